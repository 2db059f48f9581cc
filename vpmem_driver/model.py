"""The frozen values that every part of the package speaks in.

Sizes and alignments are bytes. UUIDs are strings, lower case, in canonical form. What there is one of for each
namespace of a host is a msgspec.Struct: it is made in a tenth of the time that a frozen dataclass takes.
"""

import dataclasses
import enum
import functools

import msgspec
import os_resource_classes

#: Prefix that Nova puts before a label to make a Placement resource class (nova/virt/libvirt/driver.py, Nova 31-34).
RESOURCE_CLASS_PREFIX = "PMEM_NAMESPACE_"


class State(enum.StrEnum):
    """What the ledger knows about the bytes of a namespace.

    A dirty namespace that has an owner is reserved: it becomes that owner's, claimed, when its wipe is done.
    """

    UNKNOWN = "unknown"
    CLEAN = "clean"
    DIRTY = "dirty"
    CLAIMED = "claimed"
    QUARANTINED = "quarantined"


class Namespace(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One namespace as discovery sees it at this moment.

    :ivar uuid: its identity; None where the kind has none (such a namespace is unusable)
    :ivar name: the operator's name for it; None when it was made without one
    :ivar size: bytes that a guest can be given, all of which a wipe overwrites
    :ivar align: bytes; what the device wants mappings to be aligned to
    :ivar numa_node: host node, None when the host does not tell
    :ivar mode: devdax, fsdax, sector, raw, system-ram, or file (a file of the directory discovery)
    :ivar device: path of the device node or file, valid now and perhaps not after a reboot; None when there is none
    :ivar pmem: whether stores to it are persistent without msync, which is what ``<pmem/>`` promises to QEMU
    :ivar unusable: why it cannot be given to a guest, None when it can
    """

    uuid: str | None
    name: str | None
    size: int
    align: int
    numa_node: int | None
    mode: str
    device: str | None
    pmem: bool
    unusable: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One namespace as listings show it: what discovery, configuration and ledger say together.

    :ivar state: a :class:`State`, or ``missing`` (in the ledger, not on the host) or ``unusable``
    :ivar reason: why it is as it is, where the state does not say it all
    """

    uuid: str | None
    name: str | None
    label: str | None
    resource_class: str | None
    size: int
    align: int
    numa_node: int | None
    device: str | None
    state: str
    owner: str | None
    reason: str | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """How many namespaces of one label there are, by what can be done with them. They add up to `total`.

    :ivar claimed: held, or reserved until their wipe is done
    :ivar unavailable: quarantined or missing, and unowned
    """

    label: str
    resource_class: str
    total: int
    clean: int
    dirty: int
    unknown: int
    claimed: int
    unavailable: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One namespace that an owner holds, as the owner's guest needs it. Grants come in the order of the request.

    :ivar align: bytes
    :ivar device: path now; None while the namespace is missing
    :ivar known_device: path when it was granted: what an older domain XML may still say
    :ivar ready: False while the namespace is reserved and its wipe is not done
    """

    owner: str
    uuid: str
    name: str
    label: str | None
    size: int
    align: int
    numa_node: int | None
    device: str | None
    known_device: str | None
    pmem: bool
    ready: bool = True


@functools.lru_cache
def resource_class(label: str) -> str:
    """The Placement resource class of a label, for example ``CUSTOM_PMEM_NAMESPACE_4GB``."""
    return str(os_resource_classes.normalize_name(RESOURCE_CLASS_PREFIX + label))
