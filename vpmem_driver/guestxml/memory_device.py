"""A ``<memory>`` device for a namespace, nvdimm or virtio-pmem: its fields, its XML, and that of a grant."""

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import field

from lxml import etree

from vpmem_driver import exception, layout, model
from vpmem_driver.guestxml.values import (
    Read,
    checked_path,
    invalid,
    parse_integer,
    parse_size,
    read,
    read_access,
    read_flag,
    read_model,
    read_text,
    unreadable,
    write_flag,
    write_size,
)
from vpmem_driver.model import DeviceModel, Hardware
from vpmem_driver.sizes import MIN_LABEL_SIZE, least_size


class _Place(typing.NamedTuple):
    """The location of a field in ``<memory>``, and how to read and write its value.

    :ivar path: path of the child element, or ``@`` and the name of an attribute
    :ivar read: takes text and unit, and raises ValueError
    :ivar write: returns the text
    :ivar unit: unit of the written number
    """

    path: str
    read: Read[object]
    write: Callable[[typing.Any], object] = str
    unit: str | None = None


def _xml(
    path: str, read: Read[object], write: Callable[[typing.Any], object] = str, unit: str | None = None
) -> dict[str, _Place]:
    return {"place": _Place(path, read, write, unit)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDevice:
    """One ``<memory>`` of a namespace. Each field declares its location in the XML; fields are in the order of the XML.

    The ``<alias>`` and ``<address>`` that libvirt adds are not fields; the functions below do not change them.

    A virtio-pmem has access, path and size; libvirt refuses the other fields there.

    :ivar model: nvdimm or virtio-pmem
    :ivar access: shared (required for stores to reach the device) or private
    :ivar path: device node or file on the host
    :ivar align: alignment of QEMU's mapping in bytes; None: the page size
    :ivar pmem: whether QEMU may assume that stores are durable without msync
    :ivar size: bytes of the device that are mapped, including the label
    :ivar node: guest NUMA cell
    :ivar label_size: bytes at the end for the guest's namespace labels; None: no label area
    """

    model: DeviceModel = field(default=DeviceModel.NVDIMM, metadata=_xml("@model", read_model))
    access: typing.Literal["shared", "private"] | None = field(default=None, metadata=_xml("@access", read_access))
    path: str = field(metadata=_xml("source/path", read_text, checked_path))
    align: int | None = field(default=None, metadata=_xml("source/alignsize", parse_size, write_size, "KiB"))
    pmem: bool = field(default=False, metadata=_xml("source/pmem", read_flag, write_flag))
    size: int = field(metadata=_xml("target/size", parse_size, write_size, "KiB"))
    node: int | None = field(default=None, metadata=_xml("target/node", parse_integer))
    label_size: int | None = field(default=None, metadata=_xml("target/label/size", parse_size, write_size, "KiB"))
    readonly: bool = field(default=False, metadata=_xml("target/readonly", read_flag, write_flag))

    @property
    def hardware(self) -> Hardware:
        """The hardware that the guest sees."""
        return Hardware(self.model, self.label_size or 0)

    @property
    def guest_size(self) -> int:
        """Bytes that the guest sees; see :func:`vpmem_driver.layout.guest_size`."""
        return layout.guest_size(self.size, self.align or 0, self.label_size or 0)

    def to_xml(self) -> str:
        """Return the element as text without white space, for virDomainAttachDevice.

        :raises InvalidRequest: a size is not a multiple of 1 KiB, or XML cannot represent the path
        """
        return etree.tostring(self.to_element(), encoding="unicode")

    def to_element(self) -> etree._Element:
        """Return the same as an lxml element that belongs to no document.

        :raises InvalidRequest: see :meth:`to_xml`
        """
        memory = etree.Element("memory")
        written = {"": memory}
        for name, place in _PLACES.items():
            value = getattr(self, name)
            if value is None or value is False:
                continue
            if place.path.startswith("@"):
                memory.set(place.path[1:], str(place.write(value)))
                continue
            element = _append(written, place.path)
            element.text = str(place.write(value)) or None
            if place.unit is not None:
                element.set("unit", place.unit)
        return memory

    @classmethod
    def from_element(cls, element: etree._Element) -> "MemoryDevice":
        """Read a ``<memory model='nvdimm'>`` or a ``<memory model='virtio-pmem'>``.

        :raises InvalidDomainXML: the model is different, path or size is missing, or a value cannot be parsed
        """
        if element.get("model") is None:
            raise unreadable(element, "it has no model")
        values: dict[str, typing.Any] = {}
        for name, place in _PLACES.items():
            if place.path.startswith("@"):
                if place.path[1:] in element.attrib:
                    values[name] = read(element, place.read, place.path[1:])
            elif (found := element.find(place.path)) is not None:
                values[name] = read(found, place.read)
            elif name in {"path", "size"}:
                raise unreadable(element, f"it has no <{place.path}>")
        return cls(**values)


_PLACES: dict[str, _Place] = {field.name: field.metadata["place"] for field in dataclasses.fields(MemoryDevice)}


def _append(written: dict[str, etree._Element], path: str) -> etree._Element:
    """Append an element, and its parents where they are not written yet. `written` has the elements by path."""
    parent_path, _, tag = path.rpartition("/")
    parent = written.get(parent_path)
    if parent is None:
        parent = _append(written, parent_path)
    written[path] = element = etree.SubElement(parent, tag)
    return element


def device_for(grant: model.Grant, *, node: int) -> MemoryDevice:
    """Return the device for a namespace, as its claim has decided it. A nvdimm is on guest cell `node`.

    Its size is rounded down to :data:`GRANULE` and to the alignment of the namespace: a device-dax mapping must be a
    multiple of it (check_vma in Linux, drivers/dax/device.c). libvirt would round up, and QEMU would then fail to
    start: "backing store size 0x… does not match 'size' option 0x…".

    :raises NamespaceMissing: the namespace has no device now
    :raises NamespaceBusy: the namespace is not wiped yet
    :raises InvalidRequest: the label is too small, or the namespace too small for label and one unit of alignment
    """
    if grant.device is None:
        raise exception.NamespaceMissing(namespace=grant.name)
    if not grant.ready:
        raise exception.NamespaceBusy(namespace=grant.name)
    label_size, align = grant.hardware.label_size, grant.align
    if 0 < label_size < MIN_LABEL_SIZE:
        raise invalid("label size", label_size, f"the minimum is {MIN_LABEL_SIZE} bytes", "Make it larger, or 0")
    if not layout.guest_size_of(grant.size, align, grant.hardware):
        reason = f"its {grant.size} bytes are too few for a label of {label_size} and an alignment of {align}"
        remedy = f"Use {least_size(align, label_size)} bytes or more, or a smaller alignment"
        raise invalid("namespace", grant.name, reason, remedy)
    size = layout.device_size(grant.size, align)
    if grant.hardware.device_model is DeviceModel.VIRTIO_PMEM:
        return MemoryDevice(model=DeviceModel.VIRTIO_PMEM, access="shared", path=grant.device, size=size)
    return MemoryDevice(
        access="shared",
        path=grant.device,
        align=align or None,
        pmem=grant.pmem,
        size=size,
        node=node,
        label_size=label_size or None,
    )
