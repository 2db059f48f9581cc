"""Every error of the package; one class per cause, one base class per remedy.

::

    VPMEMError
    ├── ConfigurationError          the operator wrote something wrong: correct it and try again
    │   ├── InvalidNamespaceConfig      an entry of [libvirt] pmem_namespaces
    │   ├── InvalidOption               another option, or a combination of options
    │   ├── InvalidConfigFile           a file, or a value in it
    │   ├── InvalidRequest              an argument: owner, label, namespace, NUMA node
    │   ├── InvalidDomainXML            domain XML that cannot be used
    │   └── UnknownNamespace            no namespace of that name or uuid
    ├── InsufficientNamespaces      not enough free namespaces of a label
    ├── Refused                     an invariant forbids it
    │   ├── NotOwner                    the ledger does not hold that namespace for that owner
    │   ├── NamespaceClaimed            only its owner may change it
    │   ├── NamespaceUnavailable        it is not free
    │   ├── NamespaceInUse              a guest or a process has it mapped
    │   ├── NamespaceBusy               it has to be wiped first
    │   └── DomainRefused               the domain cannot be changed this way
    ├── HostError                   the host's fault: nothing was changed
    │   ├── DiscoveryFailed             namespaces could not be listed
    │   ├── LedgerError                 the ledger could not be read or written
    │   │   ├── LedgerCorrupt
    │   │   └── LedgerVersion               it was written by a newer version
    │   ├── NamespaceMissing            discovery no longer sees it
    │   ├── HostToolError               a device, a process or /proc did not answer as it should
    │   ├── LibvirtError
    │   └── InstallationError           this package and Nova do not find each other
    └── WipeFailed                  zeros did not take; the namespace is quarantined
"""

import itertools
import typing
from collections.abc import Iterable

#: How many characters of what somebody wrote, and how many names, a message repeats. A label on an NVDIMM holds a name
#: of 63 (NSLABEL_NAME_LEN in Linux 6.1, drivers/nvdimm/label.h).
_SHOWN_CHARACTERS = 64
_SHOWN_WORDS = 8

#: The fields that hold what somebody wrote: an argument, or a part of the configuration.
_WRITTEN = frozenset({"entry", "namespace", "value"})


def shorten(text: object) -> str:
    """`text` as a message shows it: the start of a long one, and escaped where it cannot be printed."""
    shown = str(text)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}…"
    return shown if shown.isprintable() else ascii(shown)[1:-1]


def listed(words: Iterable[str | None]) -> str:
    """The first of `words` as a message shows them; "none" when there are none."""
    shown = [shorten(word) for word in itertools.islice(filter(None, words), _SHOWN_WORDS + 1)]
    return ", ".join([*shown[:_SHOWN_WORDS], "…"] if len(shown) > _SHOWN_WORDS else shown) or "none"


class VPMEMError(Exception):
    """Base of all errors; ``msg_fmt`` is filled from the keyword arguments, and what is long is shortened in it.

    :ivar kwargs: the keyword arguments
    :cvar exit_code: what the command line exits with
    """

    msg_fmt: typing.ClassVar[str] = "An unknown error occurred."
    exit_code: typing.ClassVar[int] = 5

    def __init__(self, **kwargs: object) -> None:
        self.kwargs = kwargs
        super().__init__(
            self.msg_fmt % {key: shorten(value) if key in _WRITTEN else value for key, value in kwargs.items()}
        )


class ConfigurationError(VPMEMError):
    exit_code = 2


class InvalidNamespaceConfig(ConfigurationError):
    msg_fmt = "[libvirt] pmem_namespaces, entry '%(entry)s': %(reason)s. %(remedy)s"


class InvalidOption(ConfigurationError):
    msg_fmt = "[%(group)s] %(option)s: %(reason)s. %(remedy)s"


class InvalidConfigFile(ConfigurationError):
    msg_fmt = "The configuration cannot be read: %(reason)s"


class InvalidRequest(ConfigurationError):
    msg_fmt = "%(what)s '%(value)s': %(reason)s. %(remedy)s"


class InvalidDomainXML(ConfigurationError):
    msg_fmt = "The domain XML cannot be used: %(reason)s. %(remedy)s"


class UnknownNamespace(ConfigurationError):
    msg_fmt = "There is no namespace '%(namespace)s'. 'vpmem namespace list --all' shows those of this host."


class InsufficientNamespaces(VPMEMError):
    msg_fmt = (
        "Not enough free namespaces for %(request)s: %(shortage)s. Nothing was claimed. Release some, or add "
        "namespaces to [libvirt] pmem_namespaces; 'vpmem namespace list' shows who holds what."
    )
    exit_code = 3


class Refused(VPMEMError):
    exit_code = 4


class NotOwner(Refused):
    msg_fmt = "%(owner)s does not hold %(namespace)s: %(reason)s. Nothing was done."


class NamespaceClaimed(Refused):
    msg_fmt = "Namespace %(namespace)s belongs to %(owner)s and is not wiped. 'vpmem release %(owner)s' gives it up."


class NamespaceUnavailable(Refused):
    msg_fmt = "Namespace %(namespace)s cannot be given to %(owner)s: %(reason)s. Nothing was claimed."


class NamespaceInUse(Refused):
    msg_fmt = "Namespace %(namespace)s is in use by %(user)s. Stop that first; nothing was overwritten."


class NamespaceBusy(Refused):
    msg_fmt = "Namespace %(namespace)s is reserved, but not wiped yet. 'vpmem wipe' finishes that."


class DomainRefused(Refused):
    msg_fmt = "Domain %(domain)s: %(reason)s. %(remedy)s"


class HostError(VPMEMError):
    exit_code = 5


class DiscoveryFailed(HostError):
    msg_fmt = "The host's namespaces could not be listed by %(source)s: %(reason)s. %(remedy)s"


class LedgerError(HostError):
    msg_fmt = "The ledger %(path)s cannot be used: %(reason)s. Nothing was changed. %(remedy)s"


class LedgerCorrupt(LedgerError):
    pass


class LedgerVersion(LedgerError):
    pass


class NamespaceMissing(HostError):
    msg_fmt = (
        "Namespace %(namespace)s is in the ledger but not on this host now. Its record is kept; bring the device back "
        "('ndctl list --idle' shows disabled ones), then try again."
    )


class HostToolError(HostError):
    msg_fmt = "%(what)s failed: %(reason)s. %(remedy)s"


class LibvirtError(HostError):
    msg_fmt = "libvirt (%(uri)s): %(reason)s. %(remedy)s"


class InstallationError(HostError):
    msg_fmt = "%(reason)s. %(remedy)s."


class WipeFailed(VPMEMError):
    msg_fmt = (
        "Wiping failed and the namespace is quarantined, out of everyone's reach: %(failures)s. Look at the medium "
        "('ndctl list --media-errors', the kernel log), then try again with 'vpmem wipe --namespace'."
    )
    exit_code = 6
