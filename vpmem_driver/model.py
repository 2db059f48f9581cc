"""The frozen values that all parts of the package exchange.

Sizes and alignments are bytes. UUIDs are strings, lower case, in canonical form. Values that exist once for each
namespace of a host are msgspec.Structs, whose creation takes a tenth of the time of a frozen dataclass.
"""

import dataclasses
import enum
import functools

import msgspec
import os_resource_classes

#: Prefix that Nova adds to a label to form the Placement resource class (nova/virt/libvirt/driver.py, Nova 31-34).
RESOURCE_CLASS_PREFIX = "PMEM_NAMESPACE_"


class State(enum.StrEnum):
    """State of a namespace and its bytes in the ledger.

    A dirty or clean namespace with an owner is reserved: it is claimed for that owner when its reservation is complete.
    """

    UNKNOWN = "unknown"
    CLEAN = "clean"
    DIRTY = "dirty"
    CLAIMED = "claimed"
    QUARANTINED = "quarantined"


class Namespace(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One namespace as discovery finds it.

    :ivar uuid: its identity; None if it has none, which makes it unusable
    :ivar name: name that the operator gave it; None if it was created without one
    :ivar size: bytes that a guest can use, all of which a wipe overwrites
    :ivar align: required alignment of mappings in bytes
    :ivar numa_node: host node; None if the host does not report it
    :ivar mode: devdax, fsdax, sector, raw, system-ram, or file (a file of the directory discovery)
    :ivar device: current path of the device node or file, which a reboot may change; None if it has no device
    :ivar pmem: whether stores to it are persistent without msync, which ``<pmem/>`` promises to QEMU
    :ivar unusable: why a guest cannot use it; None if it is usable
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
    """One namespace as listings show it, combined from discovery, configuration and ledger.

    :ivar state: a :class:`State`, or ``missing`` (in the ledger, not on the host) or ``unusable``
    :ivar reason: explanation of the state, if it needs one
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
    """Number of namespaces of one label, by state. The numbers add up to `total`.

    :ivar claimed: claimed or reserved
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
    """One namespace that an owner holds, with what its guest needs. Grants are in the order of the request.

    :ivar align: bytes
    :ivar device: current path; None while the namespace is missing
    :ivar known_device: path when it was granted, which an older domain XML may still contain
    :ivar ready: False while the namespace is reserved
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
    """Return the Placement resource class of a label, for example ``CUSTOM_PMEM_NAMESPACE_4GB``."""
    return str(os_resource_classes.normalize_name(RESOURCE_CLASS_PREFIX + label))
