"""The memory size of a domain with memory devices: ``<memory>`` and ``<maxMemory>``."""

import typing
from collections.abc import Sequence

from lxml import etree

from vpmem_driver.guestxml import document
from vpmem_driver.guestxml.values import child, parse_integer, parse_size, read, up
from vpmem_driver.sizes import GRANULE, KIB, MIB

CELL_GRANULE = 1 * MIB  # qemuDomainGetMemorySizeAlignment
PPC64_GRANULE = 256 * MIB  # for cells and devices of ppc64


def is_ppc64(domain: etree._Element) -> bool:
    """Return whether the guest is a POWER machine, which has larger granules and needs no ACPI."""
    os_type = domain.find("os/type")
    return os_type is not None and (os_type.get("arch") or "").startswith("ppc64")


_DIMM_ADDRESS = "devices/memory/address[@type='dimm']"


class Memory(typing.NamedTuple):
    """The memory of a domain, from its elements.

    :ivar cells: bytes of each NUMA cell
    :ivar total: bytes for ``<memory>``
    :ivar maximum: minimum bytes for ``<maxMemory>``, after libvirt's rounding of cells and devices
    :ivar slots: minimum number of memory slots: one for each device, and no fewer than the highest slot in use
    """

    cells: Sequence[int]
    total: int
    maximum: int
    slots: int

    @classmethod
    def of(cls, domain: etree._Element, cells: Sequence[int] | None = None) -> "Memory":
        """Read a domain. `cells` are the sizes of its NUMA cells in bytes, if they are already known."""
        sizes = [read(child(element, "target/size"), parse_size) for element in domain.iterfind("devices/memory")]
        if cells is None:
            cells = [read(cell, parse_size, "memory") for cell in domain.iterfind("cpu/numa/cell")]
        if not cells:  # then only <memory> has the size, including the devices
            cells = [max(read(child(domain, "memory"), parse_size) - sum(sizes), 0)]
        granules = (PPC64_GRANULE, PPC64_GRANULE) if is_ppc64(domain) else (CELL_GRANULE, GRANULE)
        maximum = sum(up(size, granules[0]) for size in cells) + sum(up(size, granules[1]) for size in sizes)
        taken = [read(address, parse_integer, "slot") + 1 for address in domain.iterfind(_DIMM_ADDRESS)]
        return cls(cells, sum(cells) + sum(sizes), maximum, max([len(sizes), *taken]))


def covered(maximum: etree._Element) -> tuple[int, int]:
    """Return the bytes and slots of a ``<maxMemory>``."""
    return read(maximum, parse_size), read(maximum, parse_integer, "slots")


def cover(domain: etree._Element, memory: Memory) -> None:
    """Create or raise ``<maxMemory>`` to cover `memory`. Larger values are kept."""
    maximum = domain.find("maxMemory")
    if maximum is None:
        maximum = etree.Element("maxMemory", slots="0", unit="KiB")
        maximum.text = "0"
        before = domain.find("memory")
        document.insert(domain, domain.index(child(domain, "cpu") if before is None else before), maximum)
    size, slots = covered(maximum)
    set_size(maximum, max(size, memory.maximum))
    maximum.set("slots", str(max(slots, memory.slots)))


def set_size(element: etree._Element | None, size: int) -> None:
    """Set a size, unless the element already has it, in any unit."""
    if element is not None and read(element, parse_size) != size:
        element.text = str(size // KIB)
        element.set("unit", "KiB")
