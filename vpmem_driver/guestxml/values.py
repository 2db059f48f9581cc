"""Parse and format values of domain XML: sizes with libvirt's units, nodesets, paths; and read their elements."""

import re
import typing
from collections.abc import Callable

from lxml import etree

from vpmem_driver import exception
from vpmem_driver.model import DeviceModel
from vpmem_driver.sizes import KIB

_CPUMASK_LEN = 16384  # VIR_DOMAIN_CPUMASK_LEN in conf/domain_conf.h: limit of a nodeset
DUMP = "Use the output of 'virsh dumpxml --inactive DOMAIN'"

_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_INTEGER = re.compile(r"\s*\+?(\d{1,20})\s*", re.ASCII)
_UNIT = re.compile(r"b|bytes?|(?P<power>[kmgtpe])(?P<base>b|ib)?", re.ASCII | re.IGNORECASE)
_NODES = re.compile(r"\s*(?P<drop>\^)?(?P<first>\d{1,5})\s*(?:-\s*(?P<last>\d{1,5})\s*)?", re.ASCII)

# The text is passed as UTF-8 bytes, which overrides the encoding in its XML declaration.
PARSER = etree.XMLParser(
    encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, strip_cdata=False
)

T = typing.TypeVar("T")
Read = Callable[[str, str | None], T]


def parse_size(text: str, unit: str | None = None) -> int:
    """Return the bytes of a size in domain XML, rounded up to KiB like in libvirt (virDomainParseMemory).

    :param unit: a suffix of libvirt's virScaleInteger, in any case: b, byte, bytes; k or KiB (1024), KB (1000), and the
        same with M, G, T, P, E; default KiB
    :raises ValueError: not a number, not a unit, or more than libvirt can represent
    """
    match = _UNIT.fullmatch(unit or "KiB")
    if match is None:
        raise ValueError(f"'{unit}' is not a unit")
    size = parse_integer(text)
    if match["power"]:
        base = 1000 if (match["base"] or "").lower() == "b" else 1024
        size *= base ** ("kmgtpe".index(match["power"].lower()) + 1)
    if size >= 1 << 63:
        raise ValueError(f"{text} {unit or 'KiB'} is too large for libvirt")
    return up(size, KIB)


def parse_integer(text: str, _unit: str | None = None) -> int:
    """Parse a non-negative integer in domain XML.

    :raises ValueError: it is not one
    """
    if match := _INTEGER.fullmatch(text):
        return int(match[1])
    raise ValueError(f"'{text}' is not a whole number")


def parse_nodeset(text: str, _unit: str | None = None) -> frozenset[int]:
    """Parse a libvirt nodeset such as ``0-3,^2,5`` (virBitmapParse): ``^N`` excludes a number that precedes it.

    :raises ValueError: bad syntax, a number above 16383, or an empty set
    """
    nodes: set[int] = set()
    for part in text.strip().removesuffix(",").split(","):
        match = _NODES.fullmatch(part)
        first, last = (int(match["first"]), int(match["last"] or match["first"])) if match else (1, 0)
        if match is None or last < first or last >= _CPUMASK_LEN or (match["drop"] and match["last"]):
            raise ValueError(f"'{text}' is not a nodeset")
        if match["drop"]:
            nodes.discard(first)
        else:
            nodes.update(range(first, last + 1))
    if not nodes:
        raise ValueError(f"'{text}' contains no node")
    return frozenset(nodes)


def up(size: int, granule: int) -> int:
    """Round `size` up to a multiple of `granule`."""
    return -(-size // granule) * granule


def read_text(text: str, _unit: str | None) -> str:
    """Accept any text."""
    return text


def read_flag(_text: str, _unit: str | None) -> bool:
    """Return True for an element with any content."""
    return True


def write_flag(_value: bool) -> str:
    """Return the text of an empty element."""
    return ""


def read_model(text: str, _unit: str | None) -> DeviceModel:
    """Accept the model of a device for a namespace.

    :raises ValueError: it is another one
    """
    try:
        return DeviceModel(text)
    except ValueError:
        raise ValueError(f"'{text}' is neither 'nvdimm' nor 'virtio-pmem'") from None


def read_access(text: str, _unit: str | None) -> str:
    """Accept shared or private.

    :raises ValueError: it is neither
    """
    if text not in {"shared", "private"}:
        raise ValueError(f"'{text}' is neither 'shared' nor 'private'")
    return text


def write_size(size: int) -> int:
    """Convert bytes to KiB.

    :raises InvalidRequest: the size is not a multiple of 1 KiB
    """
    if size % KIB or size < 0:
        raise invalid("size", size, "it is not a multiple of 1 KiB", "libvirt stores sizes in KiB")
    return size // KIB


def checked_path(path: str) -> str:
    """Return `path` if it is valid.

    :raises InvalidRequest: it is not absolute, or XML cannot represent it
    """
    if not path.startswith("/") or _UNWRITABLE.search(path):
        shown = path.encode("unicode_escape").decode()
        raise invalid("device path", shown, "it is not absolute, or XML cannot represent it", "Use an absolute path")
    return path


def invalid(what: str, value: object, reason: str, remedy: str) -> exception.InvalidRequest:
    """Return the error for an invalid value."""
    return exception.InvalidRequest(what=what, value=value, reason=reason, remedy=remedy)


def read(element: etree._Element, read: Read[T], attribute: str | None = None) -> T:
    """Read an element's text or an attribute. The unit of either is in the attribute ``unit``."""
    try:
        if attribute is None and len(element):
            raise ValueError("it contains more than text")
        return read((element.get(attribute) if attribute else element.text) or "", element.get("unit"))
    except ValueError as error:
        raise unreadable(element, f"{attribute}: {error}" if attribute else str(error)) from error


def unreadable(element: etree._Element, problem: str) -> exception.InvalidDomainXML:
    """Return the error for an invalid element."""
    line = f"line {element.sourceline}, " if element.sourceline else ""
    return exception.InvalidDomainXML(reason=f"{line}<{element.tag!s}>: {problem}", remedy=DUMP)


def child(element: etree._Element, path: str) -> etree._Element:
    """Return the element at `path`.

    :raises InvalidDomainXML: it does not exist
    """
    found = element.find(path)
    if found is None:
        raise unreadable(element, f"it has no <{path}>")
    return found
