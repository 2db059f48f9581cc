"""Domain XML: add, remove and update memory devices, and the elements that these require."""

import re
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence

from lxml import etree

from vpmem_driver import exception, model
from vpmem_driver.guestxml import identity
from vpmem_driver.guestxml.device import MemoryDevice, device_for
from vpmem_driver.guestxml.values import (
    DUMP,
    KIB,
    MIB,
    PARSER,
    checked_path,
    child,
    invalid,
    parse_integer,
    parse_nodeset,
    parse_size,
    read,
    read_text,
    unreadable,
    up,
)
from vpmem_driver.sizes import GRANULE, LABEL_SIZE

CELL_GRANULE = 1 * MIB  # qemuDomainGetMemorySizeAlignment
PPC64_GRANULE = 256 * MIB  # for cells and devices of ppc64

# Only comments, processing instructions and white space may precede a root element or a doctype.
PROLOG = re.compile(r"(?:[\s\ufeff]|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)
_DECLARATION = re.compile(r"\A\ufeff?<\?xml\s.*?\?>\s*", re.DOTALL)


def devices(domain_xml: str) -> tuple[MemoryDevice, ...]:
    """Return all nvdimm devices of a domain, in document order.

    :raises InvalidDomainXML: the text is not a domain, or a device cannot be parsed
    """
    return tuple(MemoryDevice.from_element(element) for element in _nvdimms(parse(domain_xml)))


def guest_node(domain: etree._Element, host_node: int | None) -> int:
    """Return the guest cell that ``<numatune>`` pins to a host node; 0 if there is none or the node is unknown.

    If there are several, return the cell with the fewest nodes, then the lowest cell.

    :param domain: a ``<domain>`` element
    :raises InvalidDomainXML: a ``<memnode>`` cannot be parsed
    """
    pinned = []
    for memnode in domain.iterfind("numatune/memnode"):
        nodes = read(memnode, parse_nodeset, "nodeset")
        if host_node in nodes:
            pinned.append((len(nodes), read(memnode, parse_integer, "cellid")))
    return min(pinned)[1] if pinned else 0


def check(domain_xml: str) -> None:
    """Verify that :func:`add` can add devices to this domain. Call it before claiming any for it.

    :raises InvalidDomainXML: see :func:`add`
    """
    domain = parse(domain_xml)
    _require_numa_and_acpi(domain)
    child(domain, "devices")
    guest_node(domain, None)
    _Memory.of(domain)
    if (maximum := domain.find("maxMemory")) is not None:
        _covered(maximum)


def add(domain_xml: str, grants: Sequence[model.Grant], *, label_size: int = LABEL_SIZE) -> str:
    """Add a device for each grant, in that order, after the existing memory devices.

    ``<maxMemory>`` is created or raised to cover the domain's cells, all its memory devices and the new ones, with a
    slot for each; larger values are kept. ``<memory>`` becomes the sum of cells and devices, as in libvirt's QEMU
    driver (virDomainDefPostParseMemory), because other drivers use it unchanged. ``<currentMemory>`` does not change.

    :raises InvalidDomainXML: the text is not a domain, has no guest NUMA cells (libvirt refuses it), or has no ACPI
        (QEMU refuses to start it). They are not added automatically, because both change the guest's hardware
    :raises DomainRefused: the domain already has a device with that path, which libvirt would accept
    :raises NamespaceMissing, InvalidRequest: see :func:`device_for`
    """
    domain = parse(domain_xml)
    if not grants:
        return domain_xml
    _require_numa_and_acpi(domain)
    added = [device_for(grant, node=guest_node(domain, grant.numa_node), label_size=label_size) for grant in grants]
    for device, grant in zip(added, grants, strict=True):
        element = device.to_element()
        identity.mark(element, grant.uuid)
        _append(domain, element)
    _refuse_shared(domain, added)
    memory = _Memory.of(domain)
    _set_size(domain.find("memory"), memory.total)
    _cover(domain, memory)
    return _print(domain, domain_xml)


def remove(domain_xml: str, paths: Collection[str]) -> str:
    """Remove the nvdimm devices with these source paths from a domain.

    A ``<maxMemory>`` with spare bytes or slots was set by the operator and is kept. One that fits exactly shrinks with
    the devices and is removed with the last memory device, which undoes :func:`add`. ``<memory>`` shrinks.
    ``<currentMemory>`` does not change, because libvirt limits it.

    :raises InvalidDomainXML: the text is not a domain
    :raises DomainRefused: it has no nvdimm device with one of the paths; then none is removed
    """
    domain = parse(domain_xml)
    if not paths:
        return domain_xml
    before = _Memory.of(domain)
    for element in [element for path in sorted(set(paths)) for element in _nvdimms(domain, path)]:
        _remove(element)
    after = _Memory.of(domain, before.cells)
    _set_size(domain.find("memory"), after.total)
    maximum = domain.find("maxMemory")
    if maximum is not None and _covered(maximum) == (before.maximum, before.slots):
        if after.slots:
            _set_size(maximum, after.maximum)
            maximum.set("slots", str(after.slots))
        else:
            _remove(maximum)
    return _print(domain, domain_xml)


def rewrite(domain_xml: str, replacement: Mapping[str, MemoryDevice]) -> str:
    """Change the device paths of a domain for the destination of a migration.

    Only paths change; the guest sees the same hardware. Size, alignment and pmem must be equal: libvirt compares these
    and the label (virDomainMemoryDefCheckABIStability) and refuses a migration if they differ, and the next cold start
    derives them from the destination's namespace. Cell, label, alias and address of the replacement are ignored.

    :param replacement: device on the destination, by source path in the document
    :raises InvalidDomainXML: the text is not a domain, or a device cannot be parsed
    :raises InvalidRequest: size, alignment or pmem differ
    :raises DomainRefused: it has no nvdimm device with a path, or two devices would share a path
    """
    domain = parse(domain_xml)
    if not replacement:
        return domain_xml
    found = [(element, device) for path, device in replacement.items() for element in _nvdimms(domain, path)]
    for element, device in found:  # find all before changing any: a new path may be the old path of another device
        _require_same(MemoryDevice.from_element(element), device)
        child(element, "source/path").text = checked_path(device.path)
    _refuse_shared(domain, replacement.values())
    return _print(domain, domain_xml)


def uuid(domain_xml: str) -> str:
    """Return the domain's uuid, in lower case.

    :raises InvalidDomainXML: the text is not a domain, or has no uuid
    """
    return str(read(child(parse(domain_xml), "uuid"), read_text)).lower()


def identified(domain_xml: str) -> list[tuple[MemoryDevice, str | None]]:
    """Return all nvdimm devices of a domain, each with the namespace uuid in its alias, or None.

    :raises InvalidDomainXML: see :func:`devices`
    """
    return [(MemoryDevice.from_element(element), identity.uuid_of(element)) for element in _nvdimms(parse(domain_xml))]


def refresh(domain_xml: str, grants: Sequence[model.Grant]) -> str:
    """Update the devices of `grants` to their current paths, and write the namespace uuid into each alias.

    :raises InvalidDomainXML: the text is not a domain, or a device cannot be parsed
    :raises DomainRefused: it has no device for a grant, or two devices share a path, now or after the change
    :raises NamespaceMissing: a grant has no path now
    """
    domain = parse(domain_xml)
    paths = identity.find(identified(domain_xml), grants)
    found = []
    for grant in grants:
        if grant.uuid not in paths:
            raise _refused(
                domain, f"it has no device for {grant.name} ({grant.uuid})", "Use 'vpmem domain xml' to create one"
            )
        if grant.device is None:
            raise exception.NamespaceMissing(namespace=grant.name)
        elements = _nvdimms(domain, paths[grant.uuid])
        if len(elements) > 1:
            reason = f"{len(elements)} of its memory devices use {paths[grant.uuid]}"
            raise _refused(domain, reason, "Nothing was changed. Remove all but one first")
        found.append((elements[0], grant.uuid, grant.device))
    for element, uuid, path in found:  # find all before changing any
        child(element, "source/path").text = checked_path(path)
        identity.mark(element, uuid)
    changed = [MemoryDevice.from_element(element) for element, _, _ in found]
    _refuse_shared(domain, changed)
    return _print(domain, domain_xml)


def _prolog(domain_xml: str) -> str:
    match = PROLOG.match(domain_xml)
    return match[0] if match else ""


def parse(domain_xml: str) -> etree._Element:
    """Parse the ``<domain>`` element.

    :raises InvalidDomainXML: the text is not a domain, or has a document type
    """
    if domain_xml.startswith("<!DOCTYPE", len(_prolog(domain_xml))):
        raise exception.InvalidDomainXML(
            reason="it has a document type, which can include other files", remedy="Remove <!DOCTYPE …>"
        )
    try:
        domain = etree.fromstring(domain_xml.encode(), PARSER)
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise exception.InvalidDomainXML(reason=f"it is not XML: {error}", remedy=DUMP) from error
    if domain.tag != "domain":
        raise exception.InvalidDomainXML(reason=f"its root is <{domain.tag!s}>, not <domain>", remedy=DUMP)
    return domain


def _print(domain: etree._Element, original: str) -> str:
    head = _DECLARATION.sub("", _prolog(original), count=1)
    nodes = [domain, *domain.itersiblings()]
    end = original[len(original.rstrip()) :]
    return head + "\n".join(etree.tostring(node, encoding="unicode", with_tail=False) for node in nodes) + end


def _nvdimms(domain: etree._Element, path: str | None = None) -> list[etree._Element]:
    """Return the nvdimm devices, or those with this source path, of which there must be at least one."""
    found = {element: _path(element) for element in domain.iterfind("devices/memory[@model='nvdimm']")}
    if path is None:
        return list(found)
    if path not in found.values():
        known = ", ".join(str(other) for other in found.values()) or "none"
        raise _refused(domain, f"it has no nvdimm device at {path}", f"Nothing was changed. It has: {known}")
    return [element for element, other in found.items() if other == path]


def _path(device: etree._Element) -> str | None:
    element = device.find("source/path")
    return None if element is None else read(element, read_text)


def _refused(domain: etree._Element, reason: str, remedy: str) -> exception.DomainRefused:
    return exception.DomainRefused(domain=domain.findtext("name", "(unnamed)"), reason=reason, remedy=remedy)


def _refuse_shared(domain: etree._Element, changed: Iterable[MemoryDevice]) -> None:
    paths = [_path(element) for element in domain.iterfind("devices/memory")]
    for device in changed:
        if paths.count(device.path) > 1:
            reason = f"another of its memory devices already uses {device.path}"
            raise _refused(domain, reason, "Nothing was changed. Remove the other device first")


def _require_same(device: MemoryDevice, replacement: MemoryDevice) -> None:
    for name in ("size", "align", "pmem"):
        old, new = getattr(device, name), getattr(replacement, name)
        if old != new:
            reason = f"its {name} is {new}, but that of the guest's device {device.path} is {old}"
            raise invalid("device", replacement.path, reason, "Use a namespace with the same size, align and pmem")


def _require_numa_and_acpi(domain: etree._Element) -> None:
    if domain.find("cpu/numa/cell") is None:
        vcpu, memory = domain.find("vcpu"), domain.find("memory")
        last = 0 if vcpu is None else read(vcpu, parse_integer) - 1
        size = "…" if memory is None else read(memory, parse_size) // KIB
        cell = f"<cell id='0' cpus='0-{last}' memory='{size}' unit='KiB'/>"
        raise exception.InvalidDomainXML(
            reason="it has no guest NUMA cell, which memory devices require",
            remedy=f"Add <cpu><numa>{cell}</numa></cpu>, or several cells",
        )
    if domain.find("features/acpi") is None and not _is_ppc64(domain):
        raise exception.InvalidDomainXML(
            reason="it has no ACPI, which a guest needs to find its nvdimm", remedy="Add <features><acpi/></features>"
        )


def _is_ppc64(domain: etree._Element) -> bool:
    os_type = domain.find("os/type")
    return os_type is not None and (os_type.get("arch") or "").startswith("ppc64")


_DIMM_ADDRESS = "devices/memory/address[@type='dimm']"


class _Memory(typing.NamedTuple):
    """The memory of a domain, from its elements.

    :ivar total: bytes for ``<memory>``
    :ivar maximum: minimum bytes for ``<maxMemory>``, after libvirt's rounding of cells and devices
    :ivar slots: minimum number of memory slots: one for each device, and no fewer than the highest slot in use
    """

    cells: Sequence[int]
    total: int
    maximum: int
    slots: int

    @classmethod
    def of(cls, domain: etree._Element, cells: Sequence[int] | None = None) -> "_Memory":
        sizes = [read(child(element, "target/size"), parse_size) for element in domain.iterfind("devices/memory")]
        if cells is None:
            cells = [read(cell, parse_size, "memory") for cell in domain.iterfind("cpu/numa/cell")]
        if not cells:  # then only <memory> has the size, including the devices
            cells = [max(read(child(domain, "memory"), parse_size) - sum(sizes), 0)]
        granules = (PPC64_GRANULE, PPC64_GRANULE) if _is_ppc64(domain) else (CELL_GRANULE, GRANULE)
        maximum = sum(up(size, granules[0]) for size in cells) + sum(up(size, granules[1]) for size in sizes)
        taken = [read(address, parse_integer, "slot") + 1 for address in domain.iterfind(_DIMM_ADDRESS)]
        return cls(cells, sum(cells) + sum(sizes), maximum, max([len(sizes), *taken]))


def _covered(maximum: etree._Element) -> tuple[int, int]:
    return read(maximum, parse_size), read(maximum, parse_integer, "slots")


def _cover(domain: etree._Element, memory: _Memory) -> None:
    maximum = domain.find("maxMemory")
    if maximum is None:
        maximum = etree.Element("maxMemory", slots="0", unit="KiB")
        maximum.text = "0"
        before = domain.find("memory")
        _insert(domain, domain.index(child(domain, "cpu") if before is None else before), maximum)
    size, slots = _covered(maximum)
    _set_size(maximum, max(size, memory.maximum))
    maximum.set("slots", str(max(slots, memory.slots)))


def _set_size(element: etree._Element | None, size: int) -> None:
    """Set a size, unless the element already has it, in any unit."""
    if element is not None and read(element, parse_size) != size:
        element.text = str(size // KIB)
        element.set("unit", "KiB")


def _append(domain: etree._Element, device: etree._Element) -> None:
    others = domain.findall("devices/memory")
    parent = others[-1].getparent() if others else domain.find("devices")
    if parent is None:
        raise unreadable(domain, "it has no <devices>")
    _insert(parent, parent.index(others[-1]) + 1 if others else len(parent), device)


def _insert(parent: etree._Element, index: int, element: etree._Element) -> None:
    """Insert an element on its own line if the document is indented."""
    first, before = parent.text, parent[index - 1].tail if index else parent.text
    parent.insert(index, element)
    if _is_blank(before):
        element.tail = before
        if index and index == len(parent) - 1:  # `before` is the indentation of the closing tag
            parent[index - 1].tail = first
    if first and _is_blank(first) and "\n" in first:
        depth = sum(1 for _ in element.iterancestors())
        indent = first.rpartition("\n")[2]
        etree.indent(element, indent[: len(indent) // depth], level=depth)


def _remove(element: etree._Element) -> None:
    """Remove an element and its indentation: the inverse of :func:`_insert`."""
    previous, tail = element.getprevious(), element.tail
    if (parent := element.getparent()) is not None:
        parent.remove(element)
        if previous is None:
            parent.text = tail if _is_blank(parent.text) else parent.text
        elif _is_blank(previous.tail):
            previous.tail = tail


def _is_blank(text: str | None) -> bool:
    return not text or not text.strip()
