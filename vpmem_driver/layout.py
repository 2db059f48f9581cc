"""Which byte of a namespace a copy puts where: the guest finds its data and its label in the same places.

A guest's device has its data from the start on, and its label at the end (QEMU's hw/mem/nvdimm.c). In a larger
namespace the end is elsewhere, so the label moves with it; what is between is zero.
"""

import math
from typing import NamedTuple

from vpmem_driver.model import IN_TREE, Hardware
from vpmem_driver.sizes import GRANULE, LABEL_SIZE, PAGE


class Part(NamedTuple):
    """`length` bytes from offset `source` of the source, at offset `destination` of the destination."""

    source: int
    destination: int
    length: int


def device_size(size: int, align: int) -> int:
    """Return how many bytes of a namespace a guest's device maps, including the label."""
    unit = math.lcm(align or 1, GRANULE)
    return size // unit * unit


def guest_size(device: int, align: int, label_size: int = LABEL_SIZE) -> int:
    """Return how many bytes of a device of `device` bytes the guest sees: without the label, in whole alignments.

    See nvdimm_prepare_memory_region in QEMU's hw/mem/nvdimm.c. A device with an alignment of 1 GiB and a label of 2 MiB
    loses a whole GiB.
    """
    align = max(align, PAGE)
    return max(device - label_size, 0) // align * align


def guest_size_of(size: int, align: int, hardware: Hardware) -> int:
    """Return how many bytes of a namespace a guest sees."""
    return guest_size(device_size(size, align), align, hardware.label_size)


def parts(
    source_size: int, source_align: int, size: int, align: int, hardware: Hardware = IN_TREE
) -> tuple[Part, ...] | None:
    """Return the parts of a copy from a namespace to another one, in ascending order.

    :param hardware: of the guest's device, which is the same before and after
    :returns: None if the content does not fit
    """
    if source_size == size and source_align == align:
        return (Part(0, 0, size),)
    seen, label = guest_size_of(source_size, source_align, hardware), hardware.label_size
    if seen == 0 or guest_size_of(size, align, hardware) < seen:
        return None
    before, after = device_size(source_size, source_align), device_size(size, align)
    return (Part(0, 0, seen), *([Part(before - label, after - label, label)] if label else []))
