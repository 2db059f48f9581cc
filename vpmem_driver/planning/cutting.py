"""How much of a namespace that ``ndctl create-namespace`` cuts a guest gets.

Source: nd_pfn_init() in Linux 6.1, drivers/nvdimm/pfn_devs.c. In front of the data are an info block and, with
``--map=dev``, the page descriptors, rounded up to the alignment. A namespace begins at a multiple of its alignment.
"""

import bisect
import dataclasses
import enum
import math

from vpmem_driver import layout
from vpmem_driver.discovery.interface import SIZE_LIMIT
from vpmem_driver.sizes import GIB, KIB, LABEL_SIZE, MIB

#: Size and position of a namespace are multiples of this if the kernel does not tell (MEMREMAP_COMPAT_ALIGN_MAX).
DEFAULT_REGION_ALIGN = 16 * MIB
#: The alignments of ndctl (validate_namespace_options() in ndctl 81, ndctl/namespace.c).
ALIGNS = (4 * KIB, 2 * MIB, GIB)

_INFO_BLOCK = 8 * KIB
_PAGE = 4 * KIB
_PAGE_DESCRIPTOR = 64
#: The least alignment of data (memremap_compat_align() on x86-64 and arm64).
_LEAST_ALIGN = 2 * MIB


class Map(enum.StrEnum):
    """Where the page descriptors of a namespace are: in the namespace, or in the host's memory."""

    DEV = "dev"
    MEM = "mem"


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """One namespace, in bytes.

    :ivar raw: what it takes of its region, the ``--size`` of ``ndctl create-namespace``
    :ivar data: what it has after that, the size in ``ndctl list``
    :ivar guest: what a guest gets of it
    """

    raw: int
    data: int
    guest: int


def unit(region_align: int, ways: int, align: int) -> int:
    """Return the number of bytes that the size of a namespace is a multiple of.

    :param ways: NVDIMMs that the region is interleaved over
    """
    return math.lcm(region_align, align * ways)


def cut(raw: int, align: int, where: Map, label_size: int = LABEL_SIZE) -> Cut:
    """Return what a namespace of `raw` bytes has.

    :param label_size: of the label area of a guest's device
    """
    step = max(align, _LEAST_ALIGN)
    pages = max(raw - _INFO_BLOCK, 0) // _PAGE
    head = _INFO_BLOCK + (_PAGE_DESCRIPTOR * pages if where is Map.DEV else 0)
    data = max(raw // step * step - -(-head // step) * step, 0)
    return Cut(raw, data, layout.guest_size(layout.device_size(data, align), align, label_size))


def smallest(wanted: int, unit: int, align: int, where: Map, label_size: int = LABEL_SIZE) -> Cut | None:
    """Return the smallest namespace that gives a guest at least `wanted` bytes; None if no host can have it."""
    sizes = range(unit, SIZE_LIMIT, unit)
    index = bisect.bisect_left(sizes, wanted, key=lambda raw: cut(raw, align, where, label_size).guest)
    return cut(sizes[index], align, where, label_size) if index < len(sizes) else None
