"""The interface of discovery, which reads the namespaces of the host and changes nothing.

This module also has the code that ndctl and sysfs, the two views of the NVDIMM bus, must share, and the bounds of valid
numbers: no number outside them reaches the ledger, whatever a source reports.
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

#: Alignment of a device-dax namespace if no source reports it: a huge page, the kernel's default on x86-64 and, with
#: 4 KiB pages, on arm64 (Linux 6.1, drivers/nvdimm/pfn_devs.c, nd_pfn_default_alignment()).
DEFAULT_ALIGN = 2 << 20

#: Linux has at most this many NUMA nodes: CONFIG_NODES_SHIFT is 10 or less (Linux 6.1, arch/*/Kconfig).
MAX_NODES = 1024
#: Upper bound of each size and of their sum: x86-64, and arm64 with LPA2, address 52 bits.
SIZE_LIMIT = 1 << 52

_NODES = frozenset([None, *range(MAX_NODES)])
#: From the smallest page of any CPU to the largest that device-dax maps by.
_ALIGNS = frozenset(1 << bits for bits in range(12, 31))

_OTHER_MODES = {
    "fsdax": "its mode is fsdax; use it with discovery = directory, or create it again as devdax",
}
#: Modes of a dax device that is bound to a driver whose memory cannot be mapped.
_NOT_MAPPABLE = {
    "system-ram": "its device is in mode system-ram; 'daxctl reconfigure-device --force --mode=devdax {}' changes it "
    "back",
    "fsdev": "its device {} is bound to fsdev_dax, the driver for filesystems, and cannot be mapped",
}
#: Most characters of a number in a message; enough for 64 bits.
_MAX_DIGITS = 18
_NIL_UUID = "00000000-0000-0000-0000-000000000000"
_UUID = re.compile("[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


class Discovery(abc.ABC):
    """A source of namespaces. An instance may live as long as the process and be used from several threads."""

    #: the value of [vpmem] discovery that selects it
    name: str

    @abc.abstractmethod
    def namespaces(self) -> tuple[model.Namespace, ...]:
        """List the namespaces that the host has now, usable or not, in a stable order.

        :returns: usable ones have uuid, name, device and a positive size; the others have the reason in ``unusable``
        :raises DiscoveryFailed: the host could not be read, or its answer could not be parsed
        """

    @abc.abstractmethod
    def options(self) -> dict[str, str]:
        """Return the options for :func:`vpmem_driver.discovery.make` to create an equal discovery."""

    @abc.abstractmethod
    def identity_of(self, fd: int) -> str | None:
        """Return the uuid of the namespace whose device or file is open as `fd`, independent of its path.

        The namespace need not be usable, or still be one of :meth:`namespaces`.

        :returns: None if it is not a namespace of this kind, or its uuid cannot be determined
        :raises OSError: the host could not be read
        :raises DiscoveryFailed: the host lacks the required function
        """

    def bad_ranges(self, device: str) -> tuple[tuple[int, int], ...]:  # noqa: ARG002
        """Return the ranges of a device that cannot be read, as far as the kernel knows; see :mod:`.badblocks`.

        :raises HostToolError: that cannot be told
        """
        return ()

    def find(self, uuid: str) -> model.Namespace:
        """Return the current state of one namespace. Call it each time a device path is needed.

        If the source supports it, only the location from the last listing is read. All namespaces are listed if the
        namespace is no longer there, or unusable. A new namespace with the same uuid is therefore detected only by the
        next listing.

        :raises DiscoveryFailed: see :meth:`namespaces`
        :raises NamespaceMissing: it does not exist or is unusable
        """
        found = _usable(uuid, self._read_again(uuid)) or _usable(uuid, self.namespaces())
        if found is None:
            raise exception.NamespaceMissing(namespace=uuid)
        return found

    def _read_again(self, uuid: str) -> tuple[model.Namespace, ...]:  # noqa: ARG002
        """Read the location where the last listing found `uuid`; return nothing if it is unknown.

        :raises DiscoveryFailed: see :meth:`namespaces`
        """
        return ()


def _usable(uuid: str, found: Iterable[model.Namespace]) -> model.Namespace | None:
    return next((namespace for namespace in found if namespace.uuid == uuid and namespace.unusable is None), None)


def places(found: Mapping[str, model.Namespace], checked: Iterable[model.Namespace]) -> dict[str, str]:
    """Return the location of each usable namespace, by uuid.

    :param found: namespaces by location
    :param checked: the result of :func:`check` for them
    """
    usable = {namespace.uuid for namespace in checked if namespace.unusable is None}
    return {ns.uuid: place for place, ns in found.items() if ns.uuid is not None and ns.uuid in usable}


def check(source: str, found: Iterable[model.Namespace]) -> tuple[model.Namespace, ...]:
    """Sort the namespaces that `source` found by name and uuid, and correct impossible values.

    An impossible size or alignment makes a namespace unusable; an impossible NUMA node becomes None. All namespaces
    that share a uuid (a copied image) are unusable. A name that cannot be printed is escaped.

    :raises DiscoveryFailed: the sum of the sizes is impossible
    """
    namespaces = sorted(map(_corrected, found), key=_order)
    total = sum([ns.size for ns in namespaces])
    if total >= SIZE_LIMIT:
        raise exception.DiscoveryFailed(
            source=source,
            reason=f"{len(namespaces)} namespaces have {total} bytes in total; the maximum is {SIZE_LIMIT}",
            remedy="Compare 'ndctl list' with your setup, and check the kernel log",
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
    """Return `namespace` without impossible values, and with the reason why it is unusable."""
    name, size, device = namespace.name or "", namespace.size, namespace.device or ""
    good_size, good_align = 0 <= size < SIZE_LIMIT, namespace.align in _ALIGNS
    good_node = namespace.numa_node in _NODES
    if good_size and good_align and good_node and name.isprintable() and device.isprintable():
        return namespace
    fault = None
    if not good_size:
        fault = f"its size {_short(size)} is not between 0 and {SIZE_LIMIT}"
    elif not good_align:
        fault = f"its alignment {_short(namespace.align)} is not a power of two from {min(_ALIGNS)} to {max(_ALIGNS)}"
    elif not device.isprintable():
        fault = "its path contains unprintable characters"
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
    """Format in hexadecimal, which Python can do for any length, and cut a long number."""
    text = f"{number:#x}"
    return text if len(text) <= _MAX_DIGITS else f"{text[:_MAX_DIGITS]}…"


def _order(namespace: model.Namespace) -> tuple[str, str, str]:
    return namespace.name or "", namespace.uuid or "", namespace.device or ""


def canonical_uuid(text: str | None) -> str | None:
    """Return the uuid that ndctl or the kernel printed in lower case; None if it is malformed or of an empty slot."""
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
    """Return why a namespace of the NVDIMM bus cannot be given to a guest; None if it can.

    :param dev: its name in the kernel, ``namespace0.0``
    :param enabled: whether a driver is bound to it, or to the dax, pfn or btt device that claims it
    :param mode: see :class:`vpmem_driver.model.Namespace`
    :param devices: number of its dax devices
    :param device: name of its only dax device, ``dax0.0``
    :param device_enabled: whether a driver is bound to that device
    """
    if not enabled:
        # The kernel does not report the real mode of a disabled namespace, so the mode would be a wrong reason.
        return f"it is disabled; 'ndctl enable-namespace {dev}' enables it"
    if mode != "devdax":
        return why_not_mappable(mode, device) or _OTHER_MODES.get(mode, f"its mode is {mode}; guests need devdax")
    if devices > 1:
        return f"it is split into {devices} devices"
    if not device:
        return "it has no device"
    if not device_enabled:
        return disabled(device)
    return None if size > 0 and uuid and name else _why_incomplete(uuid, size)


def why_not_mappable(mode: str, device: str) -> str | None:
    """Return why a dax device in that mode, ``dax0.0``, cannot be mapped; None if the mode does not say so."""
    return _NOT_MAPPABLE[mode].format(device) if mode in _NOT_MAPPABLE else None


def disabled(device: str) -> str:
    """Return why a dax device without a driver is unusable."""
    return f"its device is disabled; 'daxctl enable-device {device}' enables it"


def number_of(fd: int) -> str | None:
    """Return the device number of the character device that is open as `fd`, ``MAJOR:MINOR``; None if it is none."""
    status = os.fstat(fd)
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}" if stat.S_ISCHR(status.st_mode) else None


def uuid_of_dax(fd: int, sysfs_root: str) -> str | None:
    """Return the uuid of the NVDIMM bus namespace whose device-dax is open as `fd`, from sysfs by device number.

    The parent of the device claims the namespace and has its uuid: ``…/region0/dax0.0/dax0.0`` on the bus dax. Class
    dax, which kernels up to 5.16 may have instead, has ``dax`` in between (drivers/dax/bus.c, Linux 5.10 and 6.1).

    :returns: None if it is not a character device, or sysfs has no uuid for it
    """
    number = number_of(fd)
    if number is None:
        return None
    device = os.path.realpath(f"{sysfs_root}/dev/char/{number}")
    for above in ("..", "../.."):
        with contextlib.suppress(OSError, ValueError), open(f"{device}/{above}/uuid", encoding="ascii") as file:
            return canonical_uuid(file.read().removesuffix("\n"))
    return None


def _why_incomplete(uuid: str | None, size: int) -> str:
    if size <= 0:
        return "its size is 0"
    if not uuid:
        return "it has no uuid"
    return "it has no name; create it with 'ndctl create-namespace --name'"


def read_node(path: str) -> int | None:
    """Read a ``numa_node`` or ``target_node`` file of sysfs; None if it does not exist or contains -1."""
    try:
        with open(path, encoding="ascii") as file:
            node = int(file.read())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None
