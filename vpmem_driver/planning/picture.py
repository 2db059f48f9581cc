"""Draw plans as SVG: a bar for each region, what guests get and what is lost of it."""

from collections.abc import Iterator, Sequence
from xml.sax import saxutils

from vpmem_driver import sizes
from vpmem_driver.planning.plan import Plan, RegionPlan

#: The parts of a region in the order of the bar, with their colours (legible with colour blindness: Okabe and Ito).
_PARTS = (
    ("kept", "kept as it is", "#999999"),
    ("guests", "guests get", "#009e73"),
    ("info_blocks", "info blocks and page descriptors", "#d55e00"),
    ("labels", "labels and alignment", "#e69f00"),
    ("unused", "unused", "#f0f0f0"),
)
_WIDTH, _LEFT, _BAR, _ROW, _TOP = 900, 310, 570, 34, 64


def draw(plans: Sequence[tuple[int, Plan]]) -> str:
    """Return the picture of hosts that are alike: how many, and the plan of one of them."""
    rows = [(count, plan, region) for count, plan in plans for region in plan.regions]
    height = _TOP + _ROW * len(rows) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-size="12">',
        "<style>text { font-family: sans-serif }</style>",
        "<title>vpmem plan</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        *_legend(),
    ]
    for index, (count, plan, region) in enumerate(rows):
        lines += _bar(_TOP + _ROW * index, _name(count, plan, region), region)
    return "\n".join([*lines, "</svg>", ""])


def _legend() -> Iterator[str]:
    for index, (_, text, colour) in enumerate(_PARTS):
        left, top = 12 + index % 3 * 290, 12 + index // 3 * 22
        yield f'<rect x="{left}" y="{top}" width="14" height="14" fill="{colour}" stroke="#666"/>'
        yield f'<text x="{left + 20}" y="{top + 12}">{text}</text>'


def _name(count: int, plan: Plan, region: RegionPlan) -> str:
    hosts = plan.host if count == 1 else f"{count} hosts like {plan.host}"
    return f"{hosts}, {region.dev}, {sizes.in_words(region.size)}"


def _bar(top: int, name: str, region: RegionPlan) -> Iterator[str]:
    yield f'<text x="{_LEFT - 8}" y="{top + 17}" text-anchor="end">{saxutils.escape(name)}</text>'
    start = 0
    for field, text, colour in _PARTS:
        size = getattr(region, field)
        if not size:
            continue
        left, right = (_LEFT + _BAR * edge / max(region.size, 1) for edge in (start, start + size))
        yield (
            f'<rect x="{left:.2f}" y="{top}" width="{right - left:.2f}" height="26" fill="{colour}" stroke="#666" '
            f'stroke-width="0.5"><title>{text}: {sizes.in_words(size)}</title></rect>'
        )
        start += size
