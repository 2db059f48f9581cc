"""A ``<memory model='nvdimm'>`` device: its fields, its XML, and the device for a namespace."""

import dataclasses
import functools
import math
import operator
import typing
from collections.abc import Callable

from lxml import etree

from vpmem_driver import exception, model
from vpmem_driver.guestxml.values import (
    KIB,
    PARSER,
    Read,
    invalid,
    parse_integer,
    parse_size,
    read,
    read_access,
    read_text,
    unreadable,
    write_path,
    write_size,
)
from vpmem_driver.sizes import GRANULE, LABEL_SIZE, PAGE, least_size

#: Minimum label size of libvirt (virDomainMemoryTargetDefParseXML) and QEMU (MIN_NAMESPACE_LABEL_SIZE).
MIN_LABEL_SIZE = 128 * KIB


class _Kind(typing.NamedTuple):
    """How to write and read one kind of value.

    :ivar template: formats the result of ``write``
    :ivar read: takes text and unit, and raises ValueError
    """

    template: str
    write: Callable[[typing.Any], object]
    read: Read[object]


_PATH = _Kind("<{tag}>%s</{tag}>", write_path, read_text)
_NUMBER = _Kind("<{tag}>%s</{tag}>", int, parse_integer)
_SIZE = _Kind('<{tag} unit="KiB">%s</{tag}>', write_size, parse_size)
_FLAG = _Kind("<{tag}/>%s", lambda _: "", lambda _text, _unit: True)
_ACCESS = _Kind(' {tag}="%s"', str, read_access)


class _Place(typing.NamedTuple):
    """The location of a field in ``<memory>``, and how to write and read it there.

    :ivar part: the child of ``<memory>``, or ``@`` for its attributes
    """

    path: str
    part: str
    tag: str
    template: str
    write: Callable[[typing.Any], object]
    read: Read[object]

    def written(self, value: object) -> str:
        """Return the field as XML, empty for None and False."""
        return "" if value is None or value is False else self.template % self.write(value)


def _at(path: str, kind: _Kind) -> dict[str, _Place]:
    part, *outer, tag = path.split("/")
    head, tail = "".join(f"<{name}>" for name in outer), "".join(f"</{name}>" for name in reversed(outer))
    template = head + kind.template.format(tag=tag) + tail
    return {"place": _Place(path, part, tag, template, kind.write, kind.read)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDevice:
    """One ``<memory model='nvdimm'>``. Each field is declared once, for writing and reading, in the order of the XML.

    The ``<alias>`` and ``<address>`` that libvirt adds are not fields; the functions below do not change them.

    :ivar access: shared (required for stores to reach the device) or private
    :ivar path: device node or file on the host
    :ivar align: alignment of QEMU's mapping in bytes; None: the page size
    :ivar pmem: whether QEMU may assume that stores are durable without msync
    :ivar size: bytes of the device that are mapped, including the label
    :ivar node: guest NUMA cell
    :ivar label_size: bytes at the end for the guest's namespace labels; None: no label area
    """

    access: typing.Literal["shared", "private"] | None = dataclasses.field(
        default=None, metadata=_at("@/access", _ACCESS)
    )
    path: str = dataclasses.field(metadata=_at("source/path", _PATH))
    align: int | None = dataclasses.field(default=None, metadata=_at("source/alignsize", _SIZE))
    pmem: bool = dataclasses.field(default=False, metadata=_at("source/pmem", _FLAG))
    size: int = dataclasses.field(metadata=_at("target/size", _SIZE))
    node: int | None = dataclasses.field(default=None, metadata=_at("target/node", _NUMBER))
    label_size: int | None = dataclasses.field(default=None, metadata=_at("target/label/size", _SIZE))
    readonly: bool = dataclasses.field(default=False, metadata=_at("target/readonly", _FLAG))

    @property
    def guest_size(self) -> int:
        """Bytes that the guest sees: the size without the label, rounded down to the alignment.

        See nvdimm_prepare_memory_region in QEMU's hw/mem/nvdimm.c. A device with an alignment of 1 GiB and a label of
        2 MiB loses a whole GiB.
        """
        align = max(self.align or 0, PAGE)
        return max(self.size - (self.label_size or 0), 0) // align * align

    def to_xml(self) -> str:
        """Return the element as text without white space, for virDomainAttachDevice.

        :raises InvalidRequest: a size is not a multiple of 1 KiB, or XML cannot represent the path
        """
        return _TEMPLATE % tuple([write(value) for value, write in zip(_VALUES(self), _WRITERS, strict=True)])

    def to_element(self) -> etree._Element:
        """Return an lxml element without a document.

        :raises InvalidRequest: see :meth:`to_xml`
        """
        return etree.fromstring(self.to_xml(), PARSER)

    @classmethod
    def from_element(cls, element: etree._Element) -> "MemoryDevice":
        """Read a ``<memory model='nvdimm'>``.

        :raises InvalidDomainXML: the model is different, path or size is missing, or a value cannot be parsed
        """
        if element.get("model") != "nvdimm":
            raise unreadable(element, f"model '{element.get('model')}' is not 'nvdimm'")
        values: dict[str, typing.Any] = {}
        for name, place in zip(_NAMES, _PLACES, strict=True):
            if place.part == "@":
                if place.tag in element.attrib:
                    values[name] = read(element, place.read, place.tag)
            elif (found := element.find(place.path)) is not None:
                values[name] = read(found, place.read)
            elif name in {"path", "size"}:
                raise unreadable(element, f"it has no <{place.path}>")
        return cls(**values)


_NAMES = tuple(field.name for field in dataclasses.fields(MemoryDevice))
_PLACES = tuple(typing.cast("_Place", field.metadata["place"]) for field in dataclasses.fields(MemoryDevice))
_VALUES = operator.attrgetter(*_NAMES)
# The devices of a host mostly differ only in their paths.
_WRITERS = tuple(
    place.written if place.tag == "path" else functools.lru_cache(maxsize=64)(place.written) for place in _PLACES
)
_HOLES = ["%s" * sum(place.part == part for place in _PLACES) for part in ("@", "source", "target")]
_TEMPLATE = '<memory model="nvdimm"{}><source>{}</source><target>{}</target></memory>'.format(*_HOLES)


def device_for(grant: model.Grant, *, node: int, label_size: int = LABEL_SIZE) -> MemoryDevice:
    """Return the device for a namespace, on a guest cell.

    Its size is rounded down to :data:`GRANULE` and to the alignment of the namespace: a device-dax mapping must be a
    multiple of it (check_vma in Linux, drivers/dax/device.c). libvirt would round up, and QEMU would then fail to
    start: "backing store size 0x… does not match 'size' option 0x…".

    :param label_size: bytes; 0 for no label area
    :raises NamespaceMissing: the namespace has no device now
    :raises NamespaceBusy: the namespace is not wiped yet
    :raises InvalidRequest: the label is too small, or the namespace too small for label and one unit of alignment
    """
    if grant.device is None:
        raise exception.NamespaceMissing(namespace=grant.name)
    if not grant.ready:
        raise exception.NamespaceBusy(namespace=grant.name)
    if 0 < label_size < MIN_LABEL_SIZE:
        raise invalid("label size", label_size, f"the minimum is {MIN_LABEL_SIZE} bytes", "Make it larger, or 0")
    unit = math.lcm(grant.align or 1, GRANULE)
    device = MemoryDevice(
        access="shared",
        path=grant.device,
        align=grant.align or None,
        pmem=grant.pmem,
        size=grant.size // unit * unit,
        node=node,
        label_size=label_size or None,
    )
    if not device.guest_size:
        reason = f"its {grant.size} bytes are too few for a label of {label_size} and an alignment of {grant.align}"
        remedy = f"Use {least_size(grant.align, label_size)} bytes or more, or a smaller alignment"
        raise invalid("namespace", grant.name, reason, remedy)
    return device
