"""Where memory is: the provider of its bus, its persistence domain, and its memory devices with their serial numbers.

The attributes are those of Linux 6.12: drivers/nvdimm/region_devs.c (persistence_domain, mappings), bus.c (provider),
drivers/acpi/nfit/core.c (nfit/serial), drivers/cxl/pmem.c (cxl/id, cxl/provider), core/region.c and core/port.c.
"""

import functools
import os
import re
import typing
from collections.abc import Callable, Iterable

_INDEXED = re.compile(r"(?:mapping|target)([0-9]{1,5})", re.ASCII)


class Hardware(typing.NamedTuple):
    """The hardware of a region. None where the kernel does not say.

    :ivar provider: of the bus: ``ACPI.NFIT``, ``CXL``, ``e820``; of memory on no NVDIMM bus: ``cxl``, ``hmem``
    :ivar persistence_domain: what a power loss spares: ``cpu_cache`` or ``memory_controller``
    :ivar memdev: memory devices in the order of their interleaving, with commas: ``mem0,mem1``, or ``nmem0``
    :ivar serial: their serial numbers, likewise
    """

    provider: str | None = None
    persistence_domain: str | None = None
    memdev: str | None = None
    serial: str | None = None


#: Of a region that does not exist.
UNKNOWN = Hardware()


def by_region(root: str) -> Callable[[str], Hardware]:
    """Return a function from the number of a region of the NVDIMM bus to its hardware.

    It looks once whether the region exists.

    :param root: where sysfs is
    """

    def of_number(number: str) -> Hardware:
        path = f"{root}/bus/nd/devices/region{number}"
        try:
            return _of_nd_region(root, path, os.stat(path).st_ino)
        except OSError:
            return UNKNOWN

    return functools.cache(of_number)


@functools.lru_cache
def _of_nd_region(root: str, path: str, _inode: int) -> Hardware:
    """Read the hardware of the region at `path`. It does not change while the region exists.

    :param _inode: of the region; it tells it from a later one with the same number
    """
    path = os.path.realpath(path)
    dimms = [text(f"{path}/{name}").partition(",")[0] for name in _indexed(path, "mapping")]
    return Hardware(
        text(f"{os.path.dirname(path)}/provider") or None,
        text(f"{path}/persistence_domain") or None,
        *_listed(_of_dimm(root, dimm) for dimm in dimms),
    )


def of_cxl_region(root: str, path: str) -> Hardware:
    """Return the hardware of the region of a CXL root decoder at `path`."""
    decoders = [text(f"{path}/{name}") for name in _indexed(path, "target")]
    return Hardware("cxl", None, *_listed(_of_decoder(root, decoder) for decoder in decoders))


def text(path: str) -> str:
    """Return what an attribute contains; empty if it cannot be read or printed."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = file.read(4096).strip()
    except OSError:
        return ""
    return found if found.isprintable() else ""


def _of_dimm(root: str, dimm: str) -> tuple[str, str]:
    """Return the memory device and the serial number of ``nmem0``."""
    path = f"{root}/bus/nd/devices/{dimm}"
    bridge = text(f"{path}/cxl/provider")
    if not bridge:
        return dimm, text(f"{path}/nfit/serial")
    return _of_memdev(os.path.dirname(os.path.realpath(f"{root}/bus/cxl/devices/{bridge}")))


def _of_decoder(root: str, decoder: str) -> tuple[str, str]:
    """Return the memory device and the serial number of an endpoint's decoder, ``decoder3.0``."""
    endpoint = os.path.dirname(os.path.realpath(f"{root}/bus/cxl/devices/{decoder}"))
    return _of_memdev(os.path.realpath(f"{endpoint}/uport"))


def _of_memdev(path: str) -> tuple[str, str]:
    return os.path.basename(path), text(f"{path}/serial")


def _indexed(path: str, prefix: str) -> list[str]:
    try:
        names = [name for name in os.listdir(path) if name.startswith(prefix) and _INDEXED.fullmatch(name)]
    except OSError:
        return []
    return sorted(names, key=lambda name: int(name.removeprefix(prefix)))


def _listed(found: Iterable[tuple[str, str]]) -> tuple[str | None, str | None]:
    """Return names and serial numbers with commas in between; None instead of an incomplete list."""
    pairs = list(found)
    names, serials = [name for name, _ in pairs], [serial for _, serial in pairs]
    return ",".join(names) if names and all(names) else None, ",".join(serials) if serials and all(serials) else None
