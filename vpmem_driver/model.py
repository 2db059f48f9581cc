"""Immutable values that all parts of the package share.

Sizes and alignments are bytes. UUIDs are strings in canonical form, lower case. Values that exist once per namespace
are msgspec.Structs, which are created ten times faster than frozen dataclasses.
"""

import dataclasses
import enum
import functools
import typing
from typing import Annotated

import msgspec
import os_resource_classes

from vpmem_driver.sizes import LABEL_SIZE

#: Nova's prefix of a label in a Placement resource class (nova/virt/libvirt/driver.py, Nova 31-34).
RESOURCE_CLASS_PREFIX = "PMEM_NAMESPACE_"


class State(enum.StrEnum):
    """The state of a namespace in the ledger.

    A dirty or clean namespace with an owner is reserved: it is claimed for that owner when all wipes of its claim are
    done. A receiving one is being filled by a copy, and is claimed for its owner when the copy is complete.
    """

    UNKNOWN = "unknown"
    CLEAN = "clean"
    DIRTY = "dirty"
    CLAIMED = "claimed"
    QUARANTINED = "quarantined"
    RECEIVING = "receiving"


class DeviceModel(enum.StrEnum):
    """The model of a guest's device, as libvirt spells it in ``<memory model=…>``."""

    NVDIMM = "nvdimm"
    VIRTIO_PMEM = "virtio-pmem"


class Hardware(msgspec.Struct, frozen=True, gc=False):
    """What a guest's device is. It is decided at the claim, and stays the same until the release.

    :ivar device_model: nvdimm, or virtio-pmem, whose flushes reach the disk also without DAX
    :ivar label_size: bytes at the end of a nvdimm for the guest's namespace labels; 0: none
    """

    device_model: DeviceModel = DeviceModel.NVDIMM
    label_size: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = LABEL_SIZE


#: What Nova's in-tree driver gives every guest, and what all owners before version 6 of the ledger have.
IN_TREE = Hardware()


class Namespace(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One namespace as discovery finds it now.

    :ivar uuid: its identity; None if this kind has none (then the namespace is unusable)
    :ivar name: name given by the operator; None if it has none
    :ivar size: bytes available to a guest; a wipe overwrites all of them
    :ivar align: required alignment of mappings, in bytes
    :ivar numa_node: host node; None if unknown
    :ivar mode: devdax, fsdax, sector, raw, system-ram, fsdev (bound to fsdev_dax), or file (of the directory discovery)
    :ivar device: current path of the device node or file, which can change at a reboot; None if there is none
    :ivar pmem: whether stores are persistent without msync, which ``<pmem/>`` asserts to QEMU
    :ivar unusable: why it cannot be given to a guest; None if it can
    :ivar volatile: whether its content is lost when the host restarts
    :ivar provider: of its bus, see :class:`vpmem_driver.discovery.hardware.Hardware`, as for the following ones
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
    volatile: bool = False
    provider: str | None = None
    persistence_domain: str | None = None
    memdev: str | None = None
    serial: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One namespace in a listing, from discovery, configuration and ledger.

    :ivar state: a :class:`State`, or ``missing`` (in the ledger, not on the host) or ``unusable``
    :ivar reason: explanation of the state, if it needs one
    :ivar volatile: whether its content is lost when the host restarts
    :ivar provider: see :class:`vpmem_driver.discovery.hardware.Hardware`, as for the following ones; None if missing
    :ivar device_model: model of its owner's device; None if it has no owner
    :ivar label_size: bytes for labels in its owner's device; None if it has no owner
    :ivar guest_size: bytes that its owner's guest sees, or that of the next owner would see; None if unusable
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
    volatile: bool = False
    provider: str | None = None
    persistence_domain: str | None = None
    memdev: str | None = None
    serial: str | None = None
    device_model: str | None = None
    label_size: int | None = None
    guest_size: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The number of namespaces of one label by availability. The numbers add up to `total`.

    :ivar claimed: claimed, or reserved until their wipe is done
    :ivar unavailable: quarantined or missing, without an owner
    """

    label: str
    resource_class: str
    total: int
    clean: int
    dirty: int
    unknown: int
    claimed: int
    unavailable: int


class Described(typing.Protocol):
    """What another host, or a file, says of a namespace."""

    @property
    def name(self) -> str:
        """Its name there."""

    @property
    def label(self) -> str | None:
        """Its label there."""

    @property
    def size(self) -> int:
        """Its bytes."""

    @property
    def align(self) -> int:
        """Its alignment in bytes."""

    @property
    def hardware(self) -> Hardware:
        """What the guest's device is."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One namespace that an owner holds, with the values that its guest needs. Grants are in the order of the request.

    :ivar align: bytes
    :ivar device: current path; None while the namespace is missing
    :ivar known_device: path when it was claimed, which an older domain XML may still contain
    :ivar ready: False while the namespace is reserved and not yet wiped, or its content is not complete
    :ivar hardware: what the guest's device is
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
    hardware: Hardware = IN_TREE

    @classmethod
    def elsewhere(cls, described: Described, owner: str = "") -> "Grant":
        """Return a namespace of another host, or that of which a file has the content: without uuid and device."""
        return cls(
            owner=owner,
            uuid="",
            name=described.name,
            label=described.label,
            size=described.size,
            align=described.align,
            numa_node=None,
            device=None,
            known_device=None,
            pmem=False,
            hardware=described.hardware,
        )


@functools.lru_cache
def resource_class(label: str) -> str:
    """Return the Placement resource class of a label, for example ``CUSTOM_PMEM_NAMESPACE_4GB``."""
    return str(os_resource_classes.normalize_name(RESOURCE_CLASS_PREFIX + label))
