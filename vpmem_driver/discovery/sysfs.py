"""Namespaces as the kernel shows them in sysfs: what ndctl tells, without ndctl and without root.

A namespace of region N, ``bus/nd/devices/namespaceN.M``, is claimed by a holder beside it; that of a devdax one is
``daxN.K`` (K and M differ when they were not made in one order). Below the holder is the device that guests are given,
which ``bus/dax/devices`` links to, with the driver that makes it a character device or system RAM.

Attributes are those of Linux 6.1: drivers/nvdimm/namespace_devs.c, pfn_devs.c and dax_devs.c, drivers/dax/bus.c. The
bus ``dax`` came with Linux 5.1, its attribute align with 5.10.
"""

import errno
import os
import re

from vpmem_driver import exception, model
from vpmem_driver.discovery import base

#: The modes of a namespace and what ndctl calls them (ndctl 76.1: ndctl_namespace_get_mode() in ndctl/lib/libndctl.c).
_MODES = {"dax": "devdax", "memory": "fsdax", "safe": "sector", "raw": "raw"}

#: What the kernel calls a device that claims a namespace: ``dax0.1``, ``pfn0.0``, ``btt1.2``.
_DEVICE = re.compile(r"[a-z]+[0-9]+\.[0-9]+", re.ASCII)

_REMEDY = "Look at the kernel log, or set [vpmem] discovery = ndctl."

#: What reading an attribute fails with when a device has no value for it now, or is gone.
_NO_VALUE = (errno.ENOENT, errno.ENXIO, errno.ENODEV)

#: names of the dax devices below ``region0/dax0.0``
_Devices = dict[str, list[str]]


class SysfsDiscovery(base.Discovery):
    """Reads sysfs.

    :param root: where it is mounted
    """

    name = "sysfs"

    def __init__(self, root: str = "/sys") -> None:
        self._root = root
        self._nd = f"{root}/bus/nd/devices/"
        self._dax = f"{root}/bus/dax/devices/"
        #: what the kernel calls each namespace, by uuid, since the last listing
        self._places: dict[str, str] = {}

    def options(self) -> dict[str, str]:
        """The root, where that is not ``/sys``."""
        return {} if self._root == "/sys" else {"root": self._root}

    def identity_of(self, fd: int) -> str | None:
        """See :meth:`base.Discovery.identity_of`."""
        return base.uuid_of_dax(fd, self._root)

    def namespaces(self) -> tuple[model.Namespace, ...]:
        """See :meth:`base.Discovery.namespaces`. Empty slots are left out."""
        slots = [dev for dev in self._listed() if dev.startswith("namespace")]
        devices = self._devices()
        nodes: dict[str, int | None] = {}
        found = {dev: made for dev in slots if (made := self._namespace(dev, devices, nodes)) is not None}
        namespaces = base.check(self.name, found.values())
        self._places = base.places(found, namespaces)
        return namespaces

    def _read_again(self, uuid: str) -> tuple[model.Namespace, ...]:
        dev = self._places.get(uuid)
        if dev is None:
            return ()
        holder = _holder(f"{self._nd}{dev}/holder")
        found = self._namespace(dev, self._devices_below(_region(dev), holder), {})
        return () if found is None else base.check(self.name, [found])

    def _devices_below(self, region: str, holder: str) -> _Devices:
        """As :meth:`_devices`, for one holder."""
        try:
            names = os.listdir(f"{self._nd}{holder}") if holder else []
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise _unreadable(f"{self._nd}{holder}", exc) from exc
        below = f"{region}/{holder}"
        found = [name for name in names if _DEVICE.fullmatch(name) and _parent(_link(self._dax + name)) == below]
        return {below: found}

    def _listed(self) -> list[str]:
        try:
            return os.listdir(self._nd)
        except FileNotFoundError as exc:
            raise _failed(
                f"there is no {self._nd}: the kernel found no NVDIMM and has no driver for one loaded",
                "Look at the firmware's settings and the kernel log, or set [vpmem] discovery = directory.",
            ) from exc
        except OSError as exc:
            raise _unreadable(self._nd, exc) from exc

    def _devices(self) -> _Devices:
        devices: _Devices = {}
        try:
            names = os.listdir(self._dax)
        except FileNotFoundError:
            return devices  # no dax driver is loaded
        except OSError as exc:
            raise _unreadable(self._dax, exc) from exc
        for name in names:
            if target := _link(self._dax + name):
                devices.setdefault(_parent(target), []).append(name)
        return devices

    def _namespace(self, dev: str, devices: _Devices, nodes: dict[str, int | None]) -> model.Namespace | None:
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
        if driver == "kmem":
            mode = "system-ram"
        uuid = base.canonical_uuid(_read(claim + "uuid"))
        name = _read(path + "alt_name") or None
        size = _number(source + "size")
        if region not in nodes:
            nodes[region] = _node(path)
        return model.Namespace(
            uuid=uuid,
            name=name,
            size=size,
            align=_number(source + "align") or _number(claim + "align") or base.DEFAULT_ALIGN,
            numa_node=nodes[region],
            mode=mode,
            device=f"/dev/{device}" if device else None,
            pmem=True,
            unusable=base.why_unusable(
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
        )


def _region(dev: str) -> str:
    """The region of a namespace that the kernel calls so."""
    return dev.replace("namespace", "region", 1).partition(".")[0]


def _parent(target: str) -> str:
    """``region0/dax0.0``: what a device is below, by the link that leads to it."""
    return "/".join(target.split("/")[-3:-1])


def _node(path: str) -> int | None:
    """Read once per region: the kernel gives a namespace the node of its region (drivers/nvdimm/bus.c)."""
    node = base.read_node(path + "numa_node")
    return base.read_node(path + "target_node") if node is None else node


def _read(path: str) -> str:
    """An attribute's text, empty where it has none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Not stripped: ndctl takes off one line feed only, and a name may end with a blank.
            return os.read(fd, 4096).decode("utf-8", "replace").removesuffix("\n")
        finally:
            os.close(fd)
    except OSError as exc:
        if exc.errno in _NO_VALUE:
            return ""
        raise _unreadable(path, exc) from exc


def _holder(path: str) -> str:
    """The device of the bus that claims a namespace, empty where none does."""
    text = _read(path)
    if text and not _DEVICE.fullmatch(text):
        raise _failed(f"{path} cannot be read (it holds no name of a device)", _REMEDY)
    return text


def _number(path: str) -> int:
    """An attribute's number, 0 where it has none."""
    text = _read(path)
    try:
        return int(text, 0) if text else 0
    except ValueError as exc:
        raise _unreadable(path, exc) from exc


def _link(path: str) -> str:
    """Where a symbolic link leads, empty where there is none."""
    try:
        return os.readlink(path)
    except OSError as exc:
        if exc.errno in _NO_VALUE:
            return ""
        raise _unreadable(path, exc) from exc


def _unreadable(path: str, exc: OSError | ValueError) -> exception.DiscoveryFailed:
    reason = exc.strerror if isinstance(exc, OSError) else "it holds no number"
    return _failed(f"{path} cannot be read ({reason})", _REMEDY)


def _failed(reason: str, remedy: str) -> exception.DiscoveryFailed:
    return exception.DiscoveryFailed(source=SysfsDiscovery.name, reason=reason, remedy=remedy)
