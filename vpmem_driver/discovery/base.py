"""The contract of discovery: where namespaces come from. Reading only; nothing on the host is changed.

What the two views of the host's NVDIMM bus, ndctl and sysfs, have to say alike is here too, so that they cannot differ.
So are the bounds of what a host can have: whatever a source says, no other number reaches the ledger.
"""

import abc
import collections
import contextlib
import os
import re
import stat
from collections.abc import Iterable, Mapping

import msgspec

from vpmem_driver import exception, model

#: Alignment of a device-dax namespace when nothing tells it: a huge page, the kernel's own default on x86-64 and, with
#: 4 KiB pages, on arm64 (Linux 6.1, drivers/nvdimm/pfn_devs.c, nd_pfn_default_alignment()).
DEFAULT_ALIGN = 2 << 20

#: Linux has at most this many NUMA nodes: CONFIG_NODES_SHIFT is 10 or less (Linux 6.1, arch/*/Kconfig).
MAX_NODES = 1024
#: Sizes are less than this, each and all together: x86-64, and arm64 with LPA2, address 52 bits.
SIZE_LIMIT = 1 << 52

_NODES = frozenset([None, *range(MAX_NODES)])
#: From the smallest page of any CPU to the largest that device-dax maps by.
_ALIGNS = frozenset(1 << bits for bits in range(12, 31))

_OTHER_MODES = {
    "fsdax": "its mode is fsdax: it can be used through discovery = directory, or be made anew as devdax",
    "system-ram": "its device is in mode system-ram; 'daxctl reconfigure-device --mode=devdax' gives it back",
}
#: Characters of a number in a message: all of one that fits 64 bits.
_SHORT = 18
_NIL_UUID = "00000000-0000-0000-0000-000000000000"
_UUID = re.compile("[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


class Discovery(abc.ABC):
    """One source of namespaces. An instance may be used for the life of a process and from several threads."""

    #: the value of [vpmem] discovery that selects it
    name: str

    @abc.abstractmethod
    def namespaces(self) -> tuple[model.Namespace, ...]:
        """Every namespace of the host now, usable or not, in a stable order.

        :returns: usable ones have uuid, name, device and a positive size; the others say why in ``unusable``
        :raises DiscoveryFailed: the host could not be read or said what cannot be understood
        """

    @abc.abstractmethod
    def options(self) -> dict[str, str]:
        """What :func:`vpmem_driver.discovery.make` needs, beside the name, to make another one like it."""

    @abc.abstractmethod
    def identity_of(self, fd: int) -> str | None:
        """The uuid of the namespace whose device or file `fd` is open on, whatever path led to it.

        It tells what `fd` is, not whether that namespace is usable, or still one of :meth:`namespaces`.

        :returns: None when it is no namespace of this kind, or the host does not tell
        :raises OSError: the host could not be asked
        :raises DiscoveryFailed: the host cannot answer
        """

    def find(self, uuid: str) -> model.Namespace:
        """The namespace of that identity as it is now: this is how a path is looked up at the moment of use.

        Where the source has a cheap way, only the place is read at which the last listing saw it; all are listed when
        it is not there, or not usable. So one that has got the same uuid since then shows with the next listing.

        :raises DiscoveryFailed: see :meth:`namespaces`
        :raises NamespaceMissing: it is not there, or not usable
        """
        found = _usable(uuid, self._read_again(uuid)) or _usable(uuid, self.namespaces())
        if found is None:
            raise exception.NamespaceMissing(namespace=uuid)
        return found

    def _read_again(self, uuid: str) -> tuple[model.Namespace, ...]:  # noqa: ARG002
        """What is now at the place where the last listing saw `uuid`; nothing where that is not known.

        :raises DiscoveryFailed: see :meth:`namespaces`
        """
        return ()


def _usable(uuid: str, found: Iterable[model.Namespace]) -> model.Namespace | None:
    return next((namespace for namespace in found if namespace.uuid == uuid and namespace.unusable is None), None)


def places(found: Mapping[str, model.Namespace], checked: Iterable[model.Namespace]) -> dict[str, str]:
    """Where each namespace was seen, by uuid.

    :param found: by place
    :param checked: what :func:`check` made of it; only the place of what is usable is kept
    """
    usable = {namespace.uuid for namespace in checked if namespace.unusable is None}
    return {ns.uuid: place for place, ns in found.items() if ns.uuid is not None and ns.uuid in usable}


def check(source: str, found: Iterable[model.Namespace]) -> tuple[model.Namespace, ...]:
    """What `source` found, sorted by name and uuid, without what cannot be.

    A size or alignment that no host can have makes a namespace unusable; such a NUMA node is unknown. Namespaces that
    share a uuid (a copied image) are unusable, all of them. A name that cannot be printed is escaped.

    :raises DiscoveryFailed: the sizes add up to more than a host can have
    """
    namespaces = sorted(map(_corrected, found), key=_order)
    total = sum([ns.size for ns in namespaces])
    if total >= SIZE_LIMIT:
        raise exception.DiscoveryFailed(
            source=source,
            reason=f"the sizes of {len(namespaces)} namespaces add up to {total} bytes, and no host has {SIZE_LIMIT}",
            remedy="Compare 'ndctl list' with what was set up, and look at the kernel log.",
        )
    uuids = [ns.uuid for ns in namespaces]
    if len(set(uuids)) == len(uuids):
        return tuple(namespaces)
    count = collections.Counter(uuids)
    return tuple(
        msgspec.structs.replace(ns, unusable="another namespace has the same uuid")
        if ns.uuid is not None and ns.unusable is None and count[ns.uuid] > 1
        else ns
        for ns in namespaces
    )


def _corrected(namespace: model.Namespace) -> model.Namespace:
    """`namespace` without what it cannot have, which is why it is unusable."""
    name, size, device = namespace.name or "", namespace.size, namespace.device or ""
    good_size, good_align = 0 <= size < SIZE_LIMIT, namespace.align in _ALIGNS
    good_node = namespace.numa_node in _NODES
    if good_size and good_align and good_node and name.isprintable() and device.isprintable():
        return namespace
    fault = None
    if not good_size:
        fault = f"its size, {_short(size)}, is not from 0 to {SIZE_LIMIT}"
    elif not good_align:
        fault = f"its alignment, {_short(namespace.align)}, is not a power of two from {min(_ALIGNS)} to {max(_ALIGNS)}"
    elif not device.isprintable():
        fault = "its path has characters that cannot be printed"
    return msgspec.structs.replace(
        namespace,
        name=namespace.name if name.isprintable() else ascii(name)[1:-1],
        size=size if good_size else 0,
        align=namespace.align if good_align else DEFAULT_ALIGN,
        numa_node=namespace.numa_node if good_node else None,
        device=namespace.device if device.isprintable() else None,
        unusable=namespace.unusable or fault,
    )


def _short(number: int) -> str:
    """In hexadecimal, which Python writes however long it is, and not all of a long one."""
    text = f"{number:#x}"
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def _order(namespace: model.Namespace) -> tuple[str, str, str]:
    return namespace.name or "", namespace.uuid or "", namespace.device or ""


def canonical_uuid(text: str | None) -> str | None:
    """`text`, which ndctl or the kernel printed, as an identity; None when it is none: no uuid, or an empty slot's."""
    if text is None or text == _NIL_UUID or not _UUID.fullmatch(text):
        return None
    return text.lower()


def why_unusable(
    dev: str,
    *,
    enabled: bool,
    mode: str,
    devices: int,
    device: str,
    device_enabled: bool,
    name: str | None,
    uuid: str | None,
    size: int,
) -> str | None:
    """Why a namespace of the NVDIMM bus cannot be given to a guest, None when it can.

    :param dev: what the kernel calls it, ``namespace0.0``
    :param enabled: whether a driver is bound to it, or to the dax, pfn or btt device that claims it
    :param mode: see :class:`vpmem_driver.model.Namespace`
    :param devices: how many dax devices it has
    :param device: the name of the one that it should have, ``dax0.0``
    :param device_enabled: whether a driver is bound to that one
    """
    if not enabled:
        # While it is disabled the kernel does not tell what it was made as: its mode would be a wrong reason.
        return f"it is disabled; 'ndctl enable-namespace {dev}' enables it"
    if mode != "devdax":
        return _OTHER_MODES.get(mode, f"its mode is {mode}: a guest can only be given devdax")
    if devices > 1:
        return f"it is split into {devices} devices"
    if not device:
        return "it has no device"
    if not device_enabled:
        return f"its device is disabled; 'daxctl enable-device {device}' enables it"
    return None if size > 0 and uuid and name else _lacking(uuid, size)


def uuid_of_dax(fd: int, sysfs_root: str) -> str | None:
    """The uuid of the namespace of the NVDIMM bus that the device-dax `fd` is open on, as sysfs tells it by number.

    The parent of the device is what claims the namespace, and has its uuid: ``…/region0/dax0.0/dax0.0`` on the bus
    dax; class dax, which kernels up to 5.16 may have instead, puts ``dax`` in between (drivers/dax/bus.c, Linux 5.10
    and 6.1).

    :returns: None when it is no character device, or sysfs does not tell
    """
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode):
        return None
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    device = os.path.realpath(f"{sysfs_root}/dev/char/{number}")
    for above in ("..", "../.."):
        with contextlib.suppress(OSError, ValueError), open(f"{device}/{above}/uuid", encoding="ascii") as file:
            return canonical_uuid(file.read().removesuffix("\n"))
    return None


def _lacking(uuid: str | None, size: int) -> str:
    if size <= 0:
        return "its size is 0"
    if not uuid:
        return "it has no uuid"
    return "it has no name; 'ndctl create-namespace --name' gives one to a new namespace"


def read_node(path: str) -> int | None:
    """The NUMA node in a ``numa_node`` or ``target_node`` file of sysfs; None when the file is not there or says -1."""
    try:
        with open(path, encoding="ascii") as file:
            node = int(file.read())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None
