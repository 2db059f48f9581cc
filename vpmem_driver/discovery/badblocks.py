"""The addresses of a device-dax that the kernel, or its CXL device, knows to be bad.

The kernel keeps a list for each region, in sectors of 512 bytes from the start of the region. Addresses of region and
device are for root only. Sources: drivers/nvdimm/region_devs.c (badblocks, resource), bus.c (provider) and pfn_devs.c
(resource), Linux 6.1; dev_badblocks_to_json() in ndctl/json.c, ndctl 81.
"""

import os
import pathlib

from vpmem_driver import exception
from vpmem_driver.discovery import hardware, poison

_SECTOR = 512


def bad_ranges(device: str, sysfs_root: str = "/sys") -> tuple[tuple[int, int], ...]:
    """Return the bad ranges of a device: first byte and number of bytes, from its start.

    :param device: ``/dev/dax0.0``
    :raises HostToolError: its region has bad addresses, and it cannot be told whether they are in the device; or root
        asks, and cxl does not tell
    """
    path = _in_sysfs(device, sysfs_root)
    if path is None:
        return ()
    region = next((parent for parent in path.parents if parent.name.startswith("region")), None)
    if region is None:
        return ()
    try:
        ranges = _badblocks(region)
        is_cxl_ram = path.parent.name.startswith("dax_region")
        place = path if is_cxl_ram else path.parent
        if is_cxl_ram or hardware.text(f"{region.parent}/provider") == "CXL":
            ranges += poison.of_region(_number(region / "resource"))
        if not ranges:
            return ()
        first = _number(place / "resource") - _number(region / "resource")
        size = _number(path / "size")
    except (OSError, ValueError) as error:
        raise exception.HostToolError(
            what=f"Reading the bad addresses of {region.name} for {device}",
            reason=getattr(error, "strerror", None) or str(error),
            remedy="As root, compare 'ndctl list --media-errors'. For CXL memory, install the program cxl",
        ) from error
    inside = [(max(start - first, 0), min(end - first, size)) for start, end in ranges]
    return tuple((start, end - start) for start, end in inside if start < end)


def text(ranges: tuple[tuple[int, int], ...]) -> str:
    """Return ranges for a message."""
    shown = [f"bytes {start} to {start + count - 1}" for start, count in ranges]
    return "bad media: " + exception.listed(shown)


def namespace_of(device: str, sysfs_root: str = "/sys") -> str | None:
    """Return the kernel name of the namespace of a device-dax, ``namespace0.0``; None if it has none."""
    path = _in_sysfs(device, sysfs_root)
    if path is None:
        return None
    for holder in path.parent.parent.glob("namespace*/holder"):
        try:
            if holder.read_text().strip() == path.parent.name:
                return holder.parent.name
        except OSError:
            continue
    return None


def _in_sysfs(device: str, sysfs_root: str) -> pathlib.Path | None:
    """Return the directory of a device on the bus dax; None if it is not on it."""
    bus = f"{sysfs_root}/bus/dax/devices"
    try:
        target = os.readlink(f"{bus}/{os.path.basename(device)}")
    except OSError:
        return None
    return pathlib.Path(os.path.normpath(os.path.join(bus, target)))


def _badblocks(region: pathlib.Path) -> list[tuple[int, int]]:
    """Return the first bytes and the ends of the ranges that the kernel lists. CXL RAM has no list."""
    if not region.parent.name.startswith("ndbus"):
        return []
    lines = (region / "badblocks").read_text().splitlines()
    listed = [tuple(map(int, line.split())) for line in lines]
    return [(_SECTOR * start, _SECTOR * (start + count)) for start, count in listed]


def _number(path: pathlib.Path) -> int:
    return int(path.read_text(), 0)
