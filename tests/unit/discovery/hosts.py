"""Made-up hosts: one list of slots gives both what ndctl prints and what the kernel shows in sysfs."""

import contextlib
import dataclasses
import itertools
import json
import mmap
import os
import pathlib
import random
import shutil
import socket
import stat
import typing
import uuid

from vpmem_driver.discovery import directory, interface, ndctl, sysfs
from vpmem_driver.sizes import MIB

DATA = pathlib.Path(__file__).parents[2] / "data"
#: kinds of slots that make no usable namespace, and a word of the reason
UNUSABLE = {
    "fsdax": "fsdax",
    "sector": "sector",
    "raw": "raw",
    "disabled": "'ndctl enable-namespace namespace",
    "unclaimed": "'ndctl enable-namespace namespace",
    "unnamed": "no name",
    "no-device": "no device",
    "device-disabled": "'daxctl enable-device dax",
    "split": "split into 2 devices",
    "system-ram": "'daxctl reconfigure-device --force --mode=devdax dax",
}
#: the same, of which ndctl prints what it prints of a usable one
ONLY_IN_SYSFS = {"fsdev": "fsdev_dax"}
#: the same of volatile memory
UNUSABLE_VOLATILE = {
    "kmem": "'daxctl reconfigure-device --force --mode=devdax dax",
    "fsdev_dax": "fsdev_dax",
    "": "'daxctl enable-device dax",
    "other": "its driver is other",
    "ranges": "2 separate ranges",
}
_numbers = itertools.count(1)


def new_name() -> str:
    return f"ns{next(_numbers)}-{random.randrange(1 << 32):08x}"


@dataclasses.dataclass
class Slot:
    """A namespace as it was made with ndctl, or an empty slot for one (kind seed)."""

    kind: str = "devdax"
    name: str = dataclasses.field(default_factory=new_name)
    uuid: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    raw_uuid: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    size: int = dataclasses.field(default_factory=lambda: random.randrange(16, 4096) * 2 * MIB)
    align: int = dataclasses.field(default_factory=lambda: random.choice([4096, 2 * MIB]))
    node: int = 0
    region: int = 0
    number: int = dataclasses.field(default_factory=lambda: next(_numbers))
    #: the nd device that claims it is numbered on its own
    claim: int = dataclasses.field(default_factory=lambda: next(_numbers))

    @property
    def dev(self) -> str:
        return f"namespace{self.region}.{self.number}"

    @property
    def named(self) -> bool:
        return self.kind not in {"unnamed", "seed"}

    @property
    def claimed(self) -> str:
        """What claims it: dax, pfn, btt or nothing."""
        others = {"fsdax": "pfn", "sector": "btt", "raw": "", "unclaimed": "", "seed": ""}
        return others.get(self.kind, "dax")

    @property
    def devices(self) -> list[tuple[str, int, str]]:
        """Name, size and driver of its dax devices."""
        if self.claimed != "dax" or self.kind in {"disabled", "no-device"}:
            return []
        drivers = {"system-ram": "kmem", "fsdev": "fsdev_dax", "device-disabled": ""}
        driver = drivers.get(self.kind, "device_dax")
        whole = f"dax{self.region}.{self.number}"
        if self.kind == "split":
            return [(name, self.size // 2, driver) for name in (whole, f"{whole}000")]
        return [(whole, self.size, driver)]

    def json(self) -> dict[str, object]:
        """As ndctl 76.1 prints it with --namespaces --idle --verbose."""
        if self.kind == "seed":
            return {"dev": self.dev, "mode": "raw", "size": 0, "uuid": str(uuid.UUID(int=0)), "state": "disabled"}
        said: dict[str, object] = {"dev": self.dev}
        said["mode"] = {"dax": "devdax", "pfn": "fsdax", "btt": "sector", "": "raw"}[self.claimed]
        if self.kind != "disabled":
            said["size"] = self.size
        said["uuid"] = self.uuid if self.claimed else self.raw_uuid
        if self.claimed:
            said["raw_uuid"] = self.raw_uuid
        if self.claimed == "dax":
            said["daxregion"] = {"id": self.region, "size": self.size, "align": self.align} | self._json_devices()
        if self.claimed in {"dax", "pfn"}:
            said["align"] = self.align
        if self.kind in {"disabled", "unclaimed"}:
            said["state"] = "disabled"
        if self.named:
            said["name"] = self.name
        return said | {"numa_node": self.node, "target_node": self.node}

    def _json_devices(self) -> dict[str, object]:
        devices = [
            {"chardev": name, "size": size, "target_node": self.node, "align": self.align}
            | {"mode": "system-ram" if driver == "kmem" else "devdax"}
            | ({} if driver else {"state": "disabled"})
            for name, size, driver in self.devices
        ]
        return {"devices": devices} if devices else {}


@dataclasses.dataclass
class VolatileSlot:
    """A dax device that is on no NVDIMM bus: CXL RAM of memory devices with these serial numbers, or hmem without any.

    `kind` is its driver, or ``ranges`` for one in two ranges of memory.
    """

    kind: str = "device_dax"
    serials: tuple[str, ...] = ()
    size: int = dataclasses.field(default_factory=lambda: random.randrange(16, 4096) * 2 * MIB)
    align: int = 2 * MIB
    start: int = dataclasses.field(default_factory=lambda: next(_numbers) << 40)
    node: int = 0
    region: int = dataclasses.field(default_factory=lambda: next(_numbers))
    number: int = dataclasses.field(default_factory=lambda: next(_numbers))
    claim: int = 0

    @property
    def dev(self) -> str:
        return f"dax{self.region}.{self.number}"

    @property
    def name(self) -> str:
        return f"{'cxl' if self.serials else 'hmem'}-{self.start:x}"

    @property
    def devices(self) -> list[tuple[str, int, str]]:
        """Name, size and driver of its dax device."""
        return [(self.dev, self.size, "device_dax" if self.kind == "ranges" else self.kind)]


class Tree:
    """A made-up sysfs, with the links of a real one."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        for bus in ("nd", "dax", "cxl"):
            (root / "bus" / bus / "devices").mkdir(parents=True)

    def device(self, bus: str, path: str, driver: str = "", **attributes: object) -> pathlib.Path:
        """A device at devices/`path`, linked to from its bus."""
        real = self.root / "devices" / path
        real.mkdir(parents=True, exist_ok=True)
        for name, value in attributes.items():
            (real / name).write_text(f"{value}\n")
        if driver:
            bound = self.root / "bus" / bus / "drivers" / driver
            bound.mkdir(parents=True, exist_ok=True)
            (bound / real.name).symlink_to(os.path.relpath(real, bound))
            (real / "driver").symlink_to(os.path.relpath(bound, real))
        link = self.root / "bus" / bus / "devices" / real.name
        link.symlink_to(os.path.relpath(real, link.parent))
        return real

    def number(self, path: str, number: int) -> None:
        """Give the device at devices/`path` that device number."""
        link = self.root / "dev" / "char" / f"{os.major(number)}:{os.minor(number)}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(self.root / "devices" / path, link.parent))

    def attribute(self, bus: str, device: str, name: str) -> pathlib.Path:
        return self.root / "bus" / bus / "devices" / device / name

    def slot(self, slot: Slot) -> None:
        region = f"platform/ndbus{slot.region}/region{slot.region}"
        holder = f"{slot.claimed}{slot.region}.{slot.claim}" if slot.claimed else ""
        node = {"numa_node": slot.node, "target_node": slot.node}
        enabled = slot.kind not in {"disabled", "unclaimed", "seed"}
        self.device(
            "nd",
            f"{region}/{slot.dev}",
            driver="nd_pmem" if enabled and not holder else "",
            holder=holder,
            mode={"dax": "dax", "pfn": "memory", "btt": "safe", "": "raw"}[slot.claimed],
            size=0 if slot.kind == "seed" else slot.size + (2 * MIB if holder else 0),
            alt_name=slot.name if slot.named else "",
            uuid="" if slot.kind == "seed" else slot.raw_uuid,
            **node,
        )
        if holder:
            self._claim(f"{region}/{holder}", slot, enabled)

    def volatile(self, slot: VolatileSlot) -> None:
        """A device of CXL memory has a region, each of whose targets is a decoder of an endpoint of a memory device."""
        above = f"platform/hmem.{slot.region}"
        if slot.serials:
            region = f"platform/ACPI0017:00/root0/decoder0.0/region{slot.region}"
            above = f"{region}/dax_region{slot.region}"
            for index, serial in enumerate(slot.serials):
                self._target(region, index, next(_numbers), serial)
        ((name, size, driver),) = slot.devices
        values = {"size": size, "align": slot.align, "numa_node": slot.node, "target_node": slot.node}
        real = self.device("dax", f"{above}/{name}", driver=driver, resource=f"{slot.start:#x}", **values)
        for index in range(2 if slot.kind == "ranges" else 1):
            (real / f"mapping{index}").mkdir()
        (real / "mapping").touch()

    def _target(self, region: str, index: int, number: int, serial: str) -> None:
        memdev = self.device("cxl", f"pci/mem{number}", serial=serial)
        endpoint = self.device("cxl", f"platform/ACPI0017:00/root0/port1/endpoint{number}")
        (endpoint / "uport").symlink_to(os.path.relpath(memdev, endpoint))
        decoder = self.device("cxl", f"platform/ACPI0017:00/root0/port1/endpoint{number}/decoder{number}.0")
        (self.root / "devices" / region).mkdir(parents=True, exist_ok=True)
        (self.root / "devices" / region / f"target{index}").write_text(f"{decoder.name}\n")

    def _claim(self, path: str, slot: Slot, enabled: bool) -> None:
        align = {} if slot.claimed == "btt" else {"align": slot.align}
        size = slot.size if enabled else ""
        self.device("nd", path, driver="bound" if enabled else "", uuid=slot.uuid, size=size, **align)
        for name, size, driver in slot.devices:
            self.device("dax", f"{path}/{name}", driver=driver, size=size, align=slot.align)


def recorded_tree(root: pathlib.Path) -> Tree:
    """The tree that data/sysfs-nd-dax.txt was written from, and the drivers that it must have had.

    The file tells the drivers of the bus dax only; ``driver=driver`` is what readlink -f makes of a link that is not
    there. On the bus nd, the kernel gives a claim's size only while it has a driver.
    """
    tree = Tree(root)
    for block in ("\n" + (DATA / "sysfs-nd-dax.txt").read_text()).split("\nSYS ")[1:]:
        head, *lines = block.splitlines()
        path, _, rest = head.partition(" -> ")
        target, _, driver = rest.partition(" driver=")
        attributes = dict(line.strip().split("=", 1) for line in lines)
        bus, dev = path.split("/")[3], path.rsplit("/", 1)[1]
        if bus == "dax":
            tree.device("dax", target.removeprefix("/sys/devices/"), "" if driver == "driver" else driver, **attributes)
        else:
            bound = attributes.get("size") not in {None, "", "0"} and not attributes.get("holder")
            tree.device("nd", _nd_path(dev), "bound" if bound else "", **attributes)
    return tree


def _nd_path(dev: str) -> str:
    below = f"region{dev.partition('.')[0].lstrip('abcdefghijklmnopqrstuvwxyz')}/" if "." in dev else ""
    return f"LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/{'' if dev == 'ndbus0' else 'ndbus0/'}{below}{dev}"


def snapshot(root: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """Everything below `root` that writing would change."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        times = (status.st_mtime_ns, status.st_ctime_ns)
        found[str(path)] = (status.st_mode, status.st_ino, status.st_size, *times, content)
    return found


class Host(typing.Protocol):
    """What the contract's tests need of a made-up host.

    :ivar usable: size and NUMA node by name
    :ivar unusable: a part of the reason by name; None for a name that there is none of
    """

    discovery: interface.Discovery
    root: pathlib.Path
    usable: dict[str, tuple[int, int | None]]
    unusable: dict[str | None, str]

    def renumber(self, name: str) -> None:
        """Give the namespace another device path, as a reboot may."""

    def exchange(self, name: str, other: str) -> None:
        """Give each of the two the device path of the other one."""

    def clone(self, name: str) -> None:
        """Add another namespace of the same uuid."""

    def remove(self, name: str) -> None:
        """Take the namespace away."""

    def open(self, name: str) -> int:
        """A descriptor that is open on the namespace."""


class _NvdimmHost:
    """Slots on two nodes, of which region 0 is on node 1: a region's number need not be its node's."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.slots = [Slot(region=region, node=1 - region) for region in (0, 1, 0, 1)]
        self.usable = {slot.name: (slot.size, slot.node) for slot in self.slots}
        unusable = UNUSABLE | ONLY_IN_SYSFS
        self.slots += [Slot(kind, region=1, node=0) for kind in unusable]
        self.unusable = {slot.name if slot.named else None: unusable[slot.kind] for slot in self.slots[4:]}
        self.slots.append(Slot("seed", region=1, node=0))
        random.shuffle(self.slots)
        self.volatile = [VolatileSlot(), VolatileSlot(serials=("0x1",)), VolatileSlot(serials=("0x3", "0x2"))]
        self.usable |= {slot.name: (slot.size, slot.node) for slot in self.volatile}
        self.volatile += [VolatileSlot(kind, serials=("0x4",)) for kind in UNUSABLE_VOLATILE]
        self.unusable |= {slot.name: UNUSABLE_VOLATILE[slot.kind] for slot in self.volatile[3:]}
        self.volatile.append(VolatileSlot(size=0))
        self.write()

    def write(self) -> None:
        shutil.rmtree(self.root / "sys", ignore_errors=True)
        self.tree = Tree(self.root / "sys")
        for slot in self.slots:
            self.tree.slot(slot)
        for slot in self.volatile:
            self.tree.volatile(slot)

    def open(self, name: str) -> int:
        """It is /dev/null that has the device's number here: to make a node takes root."""
        (device,) = (self.root / "sys" / "devices").rglob(self.slot(name).devices[0][0])
        fd = os.open("/dev/null", os.O_RDWR)
        self.tree.number(os.path.relpath(device, self.root / "sys" / "devices"), os.fstat(fd).st_rdev)
        return fd

    def slot(self, name: str) -> Slot | VolatileSlot:
        return next(slot for slot in [*self.slots, *self.volatile] if slot.name == name)

    def renumber(self, name: str) -> None:
        self.slot(name).number = next(_numbers)
        self.write()

    def exchange(self, name: str, other: str) -> None:
        one, two = self.slot(name), self.slot(other)
        for what in ("region", "node", "number", "claim"):
            before = getattr(one, what)
            setattr(one, what, getattr(two, what))
            setattr(two, what, before)
        self.write()

    def clone(self, name: str) -> None:
        slot = self.slot(name)
        if isinstance(slot, Slot):
            self.slots.append(Slot(uuid=slot.uuid))
        else:
            self.volatile.append(dataclasses.replace(slot, number=next(_numbers)))
        self.write()

    def remove(self, name: str) -> None:
        self.slots = [slot for slot in self.slots if slot.name != name]
        self.volatile = [slot for slot in self.volatile if slot.name != name]
        self.write()


class NdctlHost(_NvdimmHost):
    """A program called ndctl, which is found first in PATH."""

    discovery: interface.Discovery

    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        listing = f"{root}/listing/${{option#--namespace=}}"
        program(root, f'for option in "$@"; do :; done; [ ! -e "{listing}" ] || exec /bin/cat "{listing}"')
        self.discovery = ndctl.NdctlDiscovery(sysfs_root=f"{root}/sys")

    def write(self) -> None:
        super().write()
        shutil.rmtree(self.root / "listing", ignore_errors=True)
        for name, slots in [("--verbose", self.slots), *((slot.dev, [slot]) for slot in self.slots)]:
            path = self.root / "listing" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps([slot.json() for slot in slots], indent=2))


class SysfsHost(_NvdimmHost):
    """A tree like that of /sys."""

    discovery: interface.Discovery

    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        self.discovery = sysfs.SysfsDiscovery(str(root / "sys"))


class DirectoryHost:
    """Files, two of them below node0 and node1, and much that is no namespace."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.discovery: interface.Discovery = directory.DirectoryDiscovery(str(root))
        self.usable: dict[str, tuple[int, int | None]] = {}
        for where, node in (("", None), ("node0", 0), ("node1", 1), ("node1", 1)):
            path = allocated(root / where / new_name())
            self.usable[path.name] = (path.stat().st_size, node)
        (root / ".hidden").write_text("x")
        (root / "lost+found").mkdir()
        (root / "other").mkdir()
        allocated(root / "other" / new_name())
        self.unusable: dict[str | None, str] = {}
        for kind, reason in NOT_FILES.items():
            self.unusable[no_namespace(kind, root / "node0" / new_name()).name] = reason

    def path(self, name: str) -> pathlib.Path:
        return next(self.root.rglob(name))

    def open(self, name: str) -> int:
        return os.open(self.path(name), os.O_RDONLY)

    def renumber(self, name: str) -> None:
        self.path(name).rename(self.root / new_name())

    def exchange(self, name: str, other: str) -> None:
        one, two, between = self.path(name), self.path(other), self.root / ".between"
        one.rename(between)
        two.rename(one)
        between.rename(two)

    def clone(self, name: str) -> None:
        os.link(self.path(name), self.root / new_name())

    def remove(self, name: str) -> None:
        self.path(name).unlink()


#: what a directory may hold that is no usable namespace, and a word of the reason
NOT_FILES = {
    "link": "symbolic link",
    "directory": "directory",
    "pipe": "named pipe",
    "socket": "socket",
    "linked": "hard links",
    "empty": "empty",
    "odd": "not a multiple",
    "sparse": "'fallocate -l ",
}


def allocated(path: pathlib.Path, pages: int | None = None) -> pathlib.Path:
    """A usable namespace's file."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, (pages or random.randrange(1, 64)) * mmap.PAGESIZE)
    return path


def no_namespace(kind: str, path: pathlib.Path) -> pathlib.Path:
    """Something of :data:`NOT_FILES` at `path`."""
    match kind:
        case "link":
            path.symlink_to("/dev/zero")
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
                # A socket's path has little room; the directory's descriptor makes it short.
                fd = os.open(path.parent, os.O_RDONLY)
                sock.bind(f"/proc/self/fd/{fd}/{path.name}")
                os.close(fd)
        case "linked":
            os.link(allocated(path), path.with_name(f".{path.name}"))
        case "empty":
            path.touch()
        case "odd":
            path.write_bytes(b"x" * (mmap.PAGESIZE + random.randrange(1, mmap.PAGESIZE)))
        case "sparse":
            path.touch()
            os.truncate(path, random.randrange(1, 64) * MIB)
    return path


def program(directory: pathlib.Path, script: str, mode: int = 0o755) -> pathlib.Path:
    """A program called ndctl."""
    path = directory / "ndctl"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path
