"""The addresses of a device-dax that the kernel knows to be bad.

The kernel keeps a list for each region, in sectors of 512 bytes from the start of the region. Addresses of region and
device are for root only. Sources: drivers/nvdimm/region_devs.c (badblocks, resource) and pfn_devs.c (resource), Linux
6.1; dev_badblocks_to_json() in ndctl/json.c, ndctl 81.
"""

import os
import pathlib

from vpmem_driver import exception

_SECTOR = 512


def bad_ranges(device: str, sysfs_root: str = "/sys") -> tuple[tuple[int, int], ...]:
    """Return the bad ranges of a device: first byte and number of bytes, from its start.

    :param device: ``/dev/dax0.0``
    :raises HostToolError: its region has bad addresses, and it cannot be told whether they are in the device
    """
    path = pathlib.Path(os.path.realpath(f"{sysfs_root}/bus/dax/devices/{os.path.basename(device)}"))
    region = next((parent for parent in path.parents if parent.name.startswith("region")), None)
    if region is None:
        return ()
    try:
        listed = [tuple(map(int, line.split())) for line in (region / "badblocks").read_text().splitlines()]
        if not listed:
            return ()
        first = _number(path.parent / "resource") - _number(region / "resource")
        size = _number(path / "size")
        ranges = [(_SECTOR * start - first, _SECTOR * (start + count) - first) for start, count in listed]
    except (OSError, ValueError) as error:
        raise exception.HostToolError(
            what=f"Reading the bad addresses of {region.name} for {device}",
            reason=getattr(error, "strerror", None) or str(error),
            remedy="As root, compare 'ndctl list --media-errors'",
        ) from error
    inside = [(max(start, 0), min(end, size)) for start, end in ranges]
    return tuple((start, end - start) for start, end in inside if start < end)


def text(ranges: tuple[tuple[int, int], ...]) -> str:
    """Return ranges for a message."""
    shown = [f"bytes {start} to {start + count - 1}" for start, count in ranges]
    return "bad media: " + exception.listed(shown)


def namespace_of(device: str, sysfs_root: str = "/sys") -> str | None:
    """Return the kernel name of the namespace of a device-dax, ``namespace0.0``; None if it has none."""
    path = pathlib.Path(os.path.realpath(f"{sysfs_root}/bus/dax/devices/{os.path.basename(device)}"))
    for holder in path.parent.parent.glob("namespace*/holder"):
        try:
            if holder.read_text().strip() == path.parent.name:
                return holder.parent.name
        except OSError:
            continue
    return None


def _number(path: pathlib.Path) -> int:
    return int(path.read_text(), 0)
