"""All errors of the package: one class per cause, grouped by who has to act.

::

    VPMEMError
    ├── ConfigurationError          the operator wrote something wrong: fix it and try again
    │   ├── InvalidNamespaceConfig      an entry of [libvirt] pmem_namespaces
    │   ├── InvalidOption               another option, or a combination of options
    │   ├── InvalidConfigFile           a file, or a value in it
    │   ├── InvalidRequest              an argument: owner, label, namespace, NUMA node
    │   ├── InvalidDomainXML            domain XML that cannot be used
    │   └── UnknownNamespace            no namespace has that name or uuid
    ├── InsufficientNamespaces      not enough free namespaces of a label
    ├── Refused                     an invariant forbids it
    │   ├── NotOwner                    the ledger does not hold that namespace for that owner
    │   ├── NamespaceClaimed            only its owner may change it
    │   ├── NamespaceUnavailable        it is not free
    │   ├── NamespaceInUse              a guest or a process has it mapped
    │   ├── NamespaceBusy               it must be wiped first, or a copy is not complete
    │   ├── HostRetired                 the host gives no namespace to anybody
    │   ├── DoesNotFit                  the content does not fit into the namespace that should receive it
    │   ├── DomainRefused               the domain cannot be changed this way
    │   ├── HostChanged                 the host is not as a plan saw it
    │   └── TransferRefused             another host does not accept a copy
    ├── HostError                   the host failed: nothing was changed
    │   ├── DiscoveryFailed             namespaces could not be listed
    │   ├── BootUnknown                 it is unknown whether the host has restarted
    │   ├── LedgerError                 the ledger could not be read or written
    │   │   ├── LedgerCorrupt
    │   │   └── LedgerVersion               a newer version wrote it
    │   ├── NamespaceMissing            discovery no longer finds it
    │   ├── HostToolError               a device, a process or /proc failed
    │   ├── LibvirtError
    │   └── InstallationError           a part of the installation is missing, or Nova is
    ├── WipeFailed                  the medium failed; the namespace is quarantined
    └── CopyFailed                  the content was not copied; the source still has it

A message says what happened, then what to do. Pass its texts without the final full stop: :class:`VPMEMError` adds it.
"""

import itertools
import os
import typing
from collections.abc import Iterable

#: The most characters of a text, and the most names, that a message repeats. A name in an NVDIMM label has at most 63
#: characters (NSLABEL_NAME_LEN in Linux 6.1, drivers/nvdimm/label.h).
_MAX_CHARACTERS = 64
_MAX_WORDS = 8


def printable(text: str) -> str:
    """Return `text`, escaped if it cannot be printed."""
    return text if text.isprintable() else ascii(text)[1:-1]


def shorten(text: object) -> str:
    """Return `text` for a message: cut if it is long, escaped if it cannot be printed."""
    shown = str(text)
    return printable(f"{shown[:_MAX_CHARACTERS]}…" if len(shown) > _MAX_CHARACTERS else shown)


def listed(words: Iterable[str | None]) -> str:
    """Return the first of `words` for a message, or "none"."""
    shown = [shorten(word) for word in itertools.islice(filter(None, words), _MAX_WORDS + 1)]
    return ", ".join([*shown[:_MAX_WORDS], "…"] if len(shown) > _MAX_WORDS else shown) or "none"


class VPMEMError(Exception):
    """Base of all errors.

    :cvar exit_code: exit code of the command line
    :cvar id: stable id for people to look up (:mod:`vpmem_driver.faults`); every class that is raised has one
    """

    exit_code: typing.ClassVar[int] = 5
    id: typing.ClassVar[str] = ""

    def __init__(self, *sentences: str) -> None:
        """Join the sentences of the message. Each one ends with exactly one full stop."""
        super().__init__(" ".join(f"{sentence.rstrip('.')}." for sentence in sentences))

    def with_id(self) -> str:
        """Return the message for the command line and the hook, with the id to look up."""
        return f"{self} ({self.id})"


class ConfigurationError(VPMEMError):
    exit_code = 2


class InvalidNamespaceConfig(ConfigurationError):
    id = "VPMEM-E01"

    def __init__(self, *, entry: str, reason: str, remedy: str) -> None:
        super().__init__(f"[libvirt] pmem_namespaces, entry '{shorten(entry)}': {reason}", remedy)


class InvalidOption(ConfigurationError):
    id = "VPMEM-E02"

    def __init__(self, *, group: str, option: str, reason: str, remedy: str) -> None:
        super().__init__(f"[{group}] {option}: {reason}", remedy)


class InvalidConfigFile(ConfigurationError):
    id = "VPMEM-E03"

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"Cannot read the configuration: {reason}")


class InvalidRequest(ConfigurationError):
    id = "VPMEM-E04"

    def __init__(self, *, what: str, value: object, reason: str | None, remedy: str) -> None:
        super().__init__(f"{what} '{shorten(value)}': {reason}", remedy)


class InvalidDomainXML(ConfigurationError):
    id = "VPMEM-E05"

    def __init__(self, *, reason: str, remedy: str) -> None:
        super().__init__(f"Cannot use the domain XML: {reason}", remedy)


class UnknownNamespace(ConfigurationError):
    id = "VPMEM-E06"

    def __init__(self, *, namespace: str) -> None:
        super().__init__(
            f"Namespace '{shorten(namespace)}' does not exist",
            "'vpmem namespace list --all' lists the namespaces of this host",
        )


class InsufficientNamespaces(VPMEMError):
    id = "VPMEM-E07"
    exit_code = 3

    def __init__(self, *, request: str, shortage: str) -> None:
        super().__init__(
            f"Not enough free namespaces for {request} ({shortage})",
            "Nothing was claimed",
            "Release namespaces, or add some to [libvirt] pmem_namespaces; 'vpmem namespace list' shows their owners",
        )


class Refused(VPMEMError):
    exit_code = 4


class NotOwner(Refused):
    id = "VPMEM-E08"

    def __init__(self, *, owner: str, namespace: str | None, reason: str) -> None:
        super().__init__(f"{owner} does not hold {shorten(namespace)}: {reason}", "Nothing was changed")


class NamespaceClaimed(Refused):
    id = "VPMEM-E09"

    def __init__(self, *, namespace: str, owner: str | None) -> None:
        super().__init__(
            f"Namespace {shorten(namespace)} belongs to {owner}, and only its owner may change it",
            f"To give it up, run 'vpmem release {owner}'",
        )


class NamespaceUnavailable(Refused):
    id = "VPMEM-E10"

    def __init__(self, *, namespace: str, owner: str, reason: str) -> None:
        super().__init__(f"Cannot give namespace {shorten(namespace)} to {owner}: {reason}", "Nothing was claimed")


class NamespaceInUse(Refused):
    id = "VPMEM-E11"

    def __init__(self, *, namespace: str, user: str) -> None:
        super().__init__(
            f"Namespace {shorten(namespace)} is in use by {user}",
            "Stop that domain or process first",
        )


class NamespaceBusy(Refused):
    id = "VPMEM-E12"

    def __init__(self, *, namespace: str) -> None:
        super().__init__(
            f"Namespace {shorten(namespace)} is reserved, or a copy of it is not complete",
            "'vpmem namespace show' says which. If no process works on it, run 'vpmem wipe' for a claim, run the move "
            "again or cancel it with 'vpmem domain move --cancel', or give the namespace up with 'vpmem release'",
        )


class CopyFailed(VPMEMError):
    """A copy is not complete.

    :ivar reason: without the name of the namespace
    :ivar resumable: whether another attempt may succeed without any change
    """

    id = "VPMEM-E23"
    exit_code = 7

    def __init__(self, *, namespace: str, reason: str, remedy: str, resumable: bool = False) -> None:
        super().__init__(f"Copy of namespace {shorten(namespace)} failed: {reason}", remedy)
        self.reason = reason
        self.resumable = resumable


class HostRetired(Refused):
    id = "VPMEM-E27"

    def __init__(self) -> None:
        super().__init__(
            "This host is retired and gives no namespace to any owner",
            "To put it into service again, run 'vpmem host retire --cancel'",
        )


class DoesNotFit(Refused):
    id = "VPMEM-E24"

    def __init__(self, *, source: str, source_size: int, namespace: str, size: int) -> None:
        super().__init__(
            f"The content of namespace {shorten(source)} ({source_size} bytes) does not fit into {shorten(namespace)} "
            f"({size} bytes)",
            "Nothing was changed",
            "Choose a namespace that gives the guest at least as many bytes",
        )


class DomainRefused(Refused):
    id = "VPMEM-E13"

    def __init__(self, *, domain: str, reason: str, remedy: str) -> None:
        super().__init__(f"Domain {domain}: {reason}", remedy)


class HostChanged(Refused):
    id = "VPMEM-E26"

    def __init__(self, *, reason: str) -> None:
        super().__init__(
            f"This host is not as the plan saw it: {reason}",
            "Nothing more was changed",
            "When the cause is clear, make a new plan, or run 'vpmem provision' again",
        )


class TransferRefused(Refused):
    id = "VPMEM-E25"

    def __init__(self, *, host: str, reason: str) -> None:
        super().__init__(f"Host {shorten(host)} refuses the copy: {reason}")


class HostError(VPMEMError):
    exit_code = 5


class DiscoveryFailed(HostError):
    id = "VPMEM-E14"

    def __init__(self, *, source: str, reason: str, remedy: str) -> None:
        super().__init__(f"Cannot list the namespaces of this host (discovery = {source}): {reason}", remedy)


class BootUnknown(HostError):
    id = "VPMEM-E28"

    def __init__(self, *, reason: str) -> None:
        super().__init__(
            f"Cannot tell whether this host has restarted, at which volatile memory loses its content: {reason}",
            "Run this on the host, or in a container that sees the host's boot_id",
        )


class LedgerError(HostError):
    """The ledger cannot be used.

    :ivar reason: without the path of the ledger
    """

    id = "VPMEM-E15"

    def __init__(self, *, path: os.PathLike[str] | str, reason: str, remedy: str) -> None:
        super().__init__(f"Cannot use the ledger {path}: {reason}", "Nothing was changed", remedy)
        self.reason = reason


class LedgerCorrupt(LedgerError):
    id = "VPMEM-E16"


class LedgerVersion(LedgerError):
    id = "VPMEM-E17"


class NamespaceMissing(HostError):
    id = "VPMEM-E18"

    def __init__(self, *, namespace: str) -> None:
        super().__init__(
            f"Namespace {shorten(namespace)} is in the ledger but not on this host now",
            "Its record is kept",
            "Bring the device back ('ndctl list --idle' shows disabled devices), then try again",
        )


class HostToolError(HostError):
    id = "VPMEM-E19"

    def __init__(self, *, what: str, reason: str, remedy: str) -> None:
        super().__init__(f"{what} failed: {reason}", remedy)


class LibvirtError(HostError):
    """:ivar is_timeout: libvirt has not answered yet."""

    id = "VPMEM-E20"

    def __init__(self, *, uri: str | None, reason: str, remedy: str, is_timeout: bool = False) -> None:
        self.is_timeout = is_timeout
        super().__init__(f"libvirt ({uri}): {reason}", remedy)


class InstallationError(HostError):
    id = "VPMEM-E21"

    def __init__(self, *, reason: str, remedy: str) -> None:
        super().__init__(reason, remedy)


class WipeFailed(VPMEMError):
    id = "VPMEM-E22"
    exit_code = 6

    def __init__(self, *, failures: str) -> None:
        super().__init__(
            f"Wipe failed, namespace quarantined: {failures}",
            "No owner can get it",
            "Check the medium ('ndctl list --media-errors', kernel log), then run 'vpmem repair'",
        )
