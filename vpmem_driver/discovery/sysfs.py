"""Discovery in sysfs, with the same results as ndctl, but without ndctl and without root.

Volatile memory, which is on no NVDIMM bus, is listed too (:mod:`.volatile`).

A holder claims a namespace of region N, ``bus/nd/devices/namespaceN.M``, and is next to it. The holder of a devdax
namespace is ``daxN.K`` (K and M differ if they were not created in the same order). Below the holder is the device for
guests, which is linked in ``bus/dax/devices``, with the driver that makes it a character device or system RAM.

The attributes are those of Linux 6.1: drivers/nvdimm/namespace_devs.c, pfn_devs.c and dax_devs.c, drivers/dax/bus.c.
The bus ``dax`` exists since Linux 5.1, its attribute align since 5.10.
"""

import errno
import os
import re

from vpmem_driver import exception, model
from vpmem_driver.discovery import badblocks, hardware, interface, volatile

#: Modes of a namespace in sysfs and in ndctl (ndctl 76.1: ndctl_namespace_get_mode() in ndctl/lib/libndctl.c).
_MODES = {"dax": "devdax", "memory": "fsdax", "safe": "sector", "raw": "raw"}

#: Name of a device that claims a namespace: ``dax0.1``, ``pfn0.0``, ``btt1.2``.
_DEVICE = re.compile(r"[a-z]+[0-9]+\.[0-9]+", re.ASCII)

_REMEDY = "Check the kernel log, or set [vpmem] discovery = ndctl"

#: Errors of reading an attribute if the device has no value for it now, or no longer exists.
_NO_VALUE = (errno.ENOENT, errno.ENXIO, errno.ENODEV)

#: names of the dax devices below ``region0/dax0.0``
_Devices = dict[str, list[str]]


class SysfsDiscovery(interface.Discovery):
    """Reads sysfs.

    :param root: its mount point
    """

    name = "sysfs"

    def __init__(self, root: str = "/sys") -> None:
        self._root = root
        self._nd = f"{root}/bus/nd/devices/"
        self._dax = f"{root}/bus/dax/devices/"
        #: kernel name of each namespace, by uuid, from the last listing
        self._places: dict[str, str] = {}

    def options(self) -> dict[str, str]:
        return {} if self._root == "/sys" else {"root": self._root}

    def identity_of(self, fd: int) -> str | None:
        return volatile.identity_of(fd, self._root)

    def bad_ranges(self, device: str) -> tuple[tuple[int, int], ...]:
        return badblocks.bad_ranges(device, self._root)

    def namespaces(self) -> tuple[model.Namespace, ...]:
        """See :meth:`.interface.Discovery.namespaces`. Empty slots are skipped."""
        targets = self._targets()
        found = dict(volatile.namespaces(self._root, targets))
        slots = [dev for dev in self._listed(required=not found) if dev.startswith("namespace")]
        devices = _by_parent(targets)
        regions = _Regions(self._root)
        found |= {dev: made for dev in slots if (made := self._namespace(dev, devices, regions)) is not None}
        namespaces = interface.check(self.name, found.values())
        self._places = interface.places(found, namespaces)
        return namespaces

    def _read_again(self, uuid: str) -> tuple[model.Namespace, ...]:
        dev = self._places.get(uuid)
        if dev is None:
            return ()
        if dev.startswith("dax"):
            again = volatile.namespace(self._root, dev)
            return () if again is None else interface.check(self.name, [again])
        holder = _holder(f"{self._nd}{dev}/holder")
        found = self._namespace(dev, self._devices_below(_region(dev), holder), _Regions(self._root))
        return () if found is None else interface.check(self.name, [found])

    def _devices_below(self, region: str, holder: str) -> _Devices:
        """Like :func:`_by_parent`, for one holder."""
        try:
            names = os.listdir(f"{self._nd}{holder}") if holder else []
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise _unreadable(f"{self._nd}{holder}", exc) from exc
        below = f"{region}/{holder}"
        found = [name for name in names if _DEVICE.fullmatch(name) and _parent(_link(self._dax + name)) == below]
        return {below: found}

    def _listed(self, *, required: bool) -> list[str]:
        """Return the names on the NVDIMM bus. Without the bus, there are none, or it is an error if `required`."""
        try:
            return os.listdir(self._nd)
        except FileNotFoundError as exc:
            if not required:
                return []
            raise _failed(
                f"{self._nd} does not exist: the kernel found no NVDIMM or has not loaded its driver",
                "Check the firmware settings and the kernel log, or set [vpmem] discovery = directory",
            ) from exc
        except OSError as exc:
            raise _unreadable(self._nd, exc) from exc

    def _targets(self) -> dict[str, str]:
        try:
            return volatile.links(self._root)
        except OSError as exc:
            raise _unreadable(self._dax, exc) from exc

    def _namespace(self, dev: str, devices: _Devices, regions: "_Regions") -> model.Namespace | None:
        path = f"{self._nd}{dev}/"
        holder = _holder(path + "holder")
        if not holder and not _number(path + "size"):
            return None
        claim = f"{self._nd}{holder}/" if holder else path
        region = _region(dev)
        below = devices.get(f"{region}/{holder}", ())
        device = below[0] if len(below) == 1 else ""
        source = f"{self._dax}{device}/" if device else claim
        driver = os.path.basename(_link(source + "driver"))
        mode = "devdax" if holder.startswith("dax") else _MODES.get(_read(path + "mode"), "unknown")
        mode = volatile.MODES.get(driver, mode)
        uuid = interface.canonical_uuid(_read(claim + "uuid"))
        name = _read(path + "alt_name") or None
        size = _number(source + "size")
        return model.Namespace(
            uuid=uuid,
            name=name,
            size=size,
            align=_number(source + "align") or _number(claim + "align") or interface.DEFAULT_ALIGN,
            numa_node=regions.node(region, path),
            mode=mode,
            device=f"/dev/{device}" if device else None,
            pmem=True,
            unusable=interface.why_unusable(
                dev,
                enabled=bool(below or driver),  # a holder without a driver has no devices
                mode=mode,
                devices=len(below),
                device=device,
                device_enabled=bool(driver),
                name=name,
                uuid=uuid,
                size=size,
            ),
            **regions.hardware(region.removeprefix("region"))._asdict(),
        )


class _Regions:
    """What all namespaces of a region have in common, read once."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._nodes: dict[str, int | None] = {}
        self.hardware = hardware.by_region(root)

    def node(self, region: str, path: str) -> int | None:
        """Return the node of the region of the namespace at `path`."""
        if region not in self._nodes:
            self._nodes[region] = _node(path)
        return self._nodes[region]


def _by_parent(targets: dict[str, str]) -> _Devices:
    """Return the names of the dax devices by their parent. `targets` are those of their links."""
    devices: _Devices = {}
    for name, target in targets.items():
        devices.setdefault(_parent(target), []).append(name)
    return devices


def _region(dev: str) -> str:
    """Return the region of a namespace from its kernel name."""
    return dev.replace("namespace", "region", 1).partition(".")[0]


def _parent(target: str) -> str:
    """Return the parent of a device, ``region0/dax0.0``, from the target of its link."""
    return "/".join(target.split("/")[-3:-1])


def _node(path: str) -> int | None:
    """Read the node of a region, which is the node of its namespaces (drivers/nvdimm/bus.c)."""
    node = interface.read_node(path + "numa_node")
    return interface.read_node(path + "target_node") if node is None else node


def _read(path: str) -> str:
    """Return the text of an attribute, empty if it has no value."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Remove only one line feed, like ndctl: a name may end with a blank.
            return os.read(fd, 4096).decode("utf-8", "replace").removesuffix("\n")
        finally:
            os.close(fd)
    except OSError as exc:
        if exc.errno in _NO_VALUE:
            return ""
        raise _unreadable(path, exc) from exc


def _holder(path: str) -> str:
    """Return the device that claims a namespace, empty if none does."""
    text = _read(path)
    if text and not _DEVICE.fullmatch(text):
        raise _failed(f"{path} does not contain the name of a device", _REMEDY)
    return text


def _number(path: str) -> int:
    """Return the number in an attribute, 0 if it has no value."""
    text = _read(path)
    try:
        return int(text, 0) if text else 0
    except ValueError as exc:
        raise _unreadable(path, exc) from exc


def _link(path: str) -> str:
    """Return the target of a symbolic link, empty if the link does not exist."""
    try:
        return os.readlink(path)
    except OSError as exc:
        if exc.errno in _NO_VALUE:
            return ""
        raise _unreadable(path, exc) from exc


def _unreadable(path: str, exc: OSError | ValueError) -> exception.DiscoveryFailed:
    reason = exc.strerror if isinstance(exc, OSError) else "it is not a number"
    return _failed(f"{path} cannot be read ({reason})", _REMEDY)


def _failed(reason: str, remedy: str) -> exception.DiscoveryFailed:
    return exception.DiscoveryFailed(source=SysfsDiscovery.name, reason=reason, remedy=remedy)
