"""Volatile memory as device-dax: CXL RAM (dax_cxl), and memory that the firmware or memmap= has set aside (dax_hmem).

These devices are on the bus dax, but below no NVDIMM bus. ndctl does not list them, and daxctl prints neither physical
addresses nor serial numbers, so that both discoveries read them here from sysfs.

They have no uuid. :func:`_identity` derives one from provider, physical range and, for CXL, serial numbers: what they
have in common says that it is the same memory. Their numbers, ``dax1.0``, change at a reboot.

Sources: drivers/dax/bus.c, dax/hmem and dax/cxl.c, Linux 6.12. Only root may read `resource` there.
"""

import os
import re
import uuid
from collections.abc import Container, Iterator, Mapping

from vpmem_driver import model
from vpmem_driver.discovery import hardware, interface

#: The uuids of devices are derived from it. It must never change: the ledger identifies the memory by its uuid.
_DEVICES = uuid.UUID("1c0f6f0e-3b2b-4d0c-9b1e-6a4f5d2c7e83")

#: ends the name of the device above one of hmem, ``hmem.0``
_NUMBER = re.compile(r"[._]?[0-9]+$", re.ASCII)
#: one range of memory; ``mapping`` without a number is where one is added
_RANGE = re.compile(r"mapping[0-9]+", re.ASCII)
#: mode of a device by the name of its driver, for drivers whose memory cannot be mapped
MODES = {"kmem": "system-ram", "fsdev_dax": "fsdev"}


def links(root: str, without: Container[str] = ()) -> dict[str, str]:
    """Return the target of the link of each device on the bus dax, by name.

    :param root: where sysfs is
    :param without: names of devices that are known to be on an NVDIMM bus
    :raises OSError: the bus cannot be read. There is none, and nothing to return, if no driver of it is loaded
    """
    found: dict[str, str] = {}
    try:
        names = os.listdir(f"{root}/bus/dax/devices")
    except FileNotFoundError:
        return found
    for name in names:
        if name in without:
            continue
        try:
            found[name] = os.readlink(f"{root}/bus/dax/devices/{name}")
        except FileNotFoundError:  # it has gone meanwhile
            continue
    return found


def namespaces(root: str, targets: Mapping[str, str]) -> Iterator[tuple[str, model.Namespace]]:
    """Yield name and namespace of each device that is below no NVDIMM bus. Empty slots are skipped.

    :param targets: result of :func:`links`
    """
    for name, target in targets.items():
        if "/ndbus" not in target and (found := namespace(root, name)) is not None:
            yield name, found


def namespace(root: str, name: str) -> model.Namespace | None:
    """Return the namespace of one such device; None if it has no memory, or is below an NVDIMM bus."""
    path = os.path.realpath(f"{root}/bus/dax/devices/{name}")
    size = _number(f"{path}/size")
    if size <= 0 or "/ndbus" in path:
        return None
    driver = os.path.basename(os.path.realpath(f"{path}/driver")) if os.path.lexists(f"{path}/driver") else ""
    start = _number(f"{path}/resource")
    memory = _hardware(root, path)
    ranges = _ranges(path)
    identity = None if start < 0 or ranges > 1 else _identity(memory, start, size)
    return model.Namespace(
        uuid=identity,
        name=f"{memory.provider}-{start:x}" if start >= 0 else name,
        size=size,
        align=max(_number(f"{path}/align"), 0) or interface.DEFAULT_ALIGN,
        numa_node=_node(root, path),
        mode=MODES.get(driver, "devdax"),
        device=f"/dev/{name}",
        pmem=False,
        volatile=True,
        unusable=_why_unusable(name, driver, start, ranges),
        **memory._asdict(),
    )


def identity_of(fd: int, root: str) -> str | None:
    """Return the uuid of the namespace, on an NVDIMM bus or not, whose device-dax is open as `fd`; None if it has none.

    :param root: where sysfs is
    """
    uuid_on_bus = interface.uuid_of_dax(fd, root)
    number = interface.number_of(fd)
    if uuid_on_bus is not None or number is None:
        return uuid_on_bus
    path = os.path.realpath(f"{root}/dev/char/{number}")
    name = os.path.basename(path)
    found = namespace(root, name) if path == os.path.realpath(f"{root}/bus/dax/devices/{name}") else None
    return None if found is None else found.uuid


def _identity(memory: hardware.Hardware, start: int, size: int) -> str:
    """Derive the identity. Whatever differs makes it another memory, whose content nobody knows."""
    return str(uuid.uuid5(_DEVICES, f"{memory.provider} {start:#x} {size:#x} {memory.serial or '-'}"))


def _hardware(root: str, path: str) -> hardware.Hardware:
    """Return the hardware of the device at `path`: ``…/region1/dax_region1/dax1.0`` or ``…/hmem.0/dax0.0``."""
    above = os.path.dirname(path)
    if os.path.basename(above).startswith("dax_region"):
        return hardware.of_cxl_region(root, os.path.dirname(above))
    return hardware.Hardware(_NUMBER.sub("", os.path.basename(above)) or "dax")


def _why_unusable(name: str, driver: str, start: int, ranges: int) -> str | None:
    if not driver:
        return interface.disabled(name)
    if driver != "device_dax":
        return interface.why_not_mappable(MODES.get(driver, ""), name) or f"its driver is {driver}, not device_dax"
    if ranges > 1:
        return f"it consists of {ranges} separate ranges of memory; guests need one"
    if start < 0:
        path = f"/sys/bus/dax/devices/{name}/resource"
        return f"only root may read its physical address, which identifies it; 'chmod a+r {path}' changes that"
    return None


def _ranges(path: str) -> int:
    """Return the number of ranges that a device consists of."""
    try:
        return sum(_RANGE.fullmatch(name) is not None for name in os.listdir(path))
    except OSError:
        return 0


def _node(root: str, path: str) -> int | None:
    """Return the NUMA node. The node that the memory would have as system RAM counts if it exists already."""
    node = interface.read_node(f"{path}/numa_node")
    if node is not None:
        return node
    node = interface.read_node(f"{path}/target_node")
    return node if node is not None and os.path.exists(f"{root}/devices/system/node/node{node}") else None


def _number(path: str) -> int:
    """Return the number in an attribute, -1 if it has none or may not be read."""
    try:
        return int(hardware.text(path), 0)
    except ValueError:
        return -1
