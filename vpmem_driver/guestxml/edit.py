"""Edits of a domain: adding, removing, refreshing and re-pointing its memory devices."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from lxml import etree

from vpmem_driver import exception, model
from vpmem_driver.guestxml import document, identity
from vpmem_driver.guestxml.memory_device import MemoryDevice, device_for
from vpmem_driver.guestxml.memory_limits import Memory, cover, covered, is_ppc64, set_size
from vpmem_driver.guestxml.values import (
    checked_path,
    child,
    invalid,
    parse_integer,
    parse_nodeset,
    parse_size,
    read,
    read_text,
    unreadable,
)
from vpmem_driver.sizes import KIB, LABEL_SIZE


def devices(domain_xml: str) -> tuple[MemoryDevice, ...]:
    """All nvdimm devices of a domain, in document order.

    :raises InvalidDomainXML: the text is no domain, or a device cannot be read
    """
    return tuple(MemoryDevice.from_element(element) for element in _nvdimms(document.parse(domain_xml)))


def guest_node(domain: etree._Element, host_node: int | None) -> int:
    """The guest cell that ``<numatune>`` pins to a host node; 0 when none is, or when the node is not known.

    Of several, the cell that may use the fewest nodes, then the lowest.

    :param domain: a ``<domain>`` element
    :raises InvalidDomainXML: a ``<memnode>`` that cannot be read
    """
    pinned = []
    for memnode in domain.iterfind("numatune/memnode"):
        nodes = read(memnode, parse_nodeset, "nodeset")
        if host_node in nodes:
            pinned.append((len(nodes), read(memnode, parse_integer, "cellid")))
    return min(pinned)[1] if pinned else 0


def check(domain_xml: str) -> None:
    """Whether :func:`add` can give this domain devices at all; to be asked before any are claimed for it.

    :raises InvalidDomainXML: see :func:`add`
    """
    domain = document.parse(domain_xml)
    _require_numa_and_acpi(domain)
    child(domain, "devices")
    guest_node(domain, None)
    Memory.of(domain)
    if (maximum := domain.find("maxMemory")) is not None:
        covered(maximum)


def add(domain_xml: str, grants: Sequence[model.Grant], *, label_size: int = LABEL_SIZE) -> str:
    """The domain with a device for each grant, in that order, behind the memory devices that it has.

    ``<maxMemory>`` is made or raised to cover the domain's cells, its memory devices of whatever model and the new
    ones, with a slot for each; what is larger stays. ``<memory>`` becomes the sum of cells and devices, as libvirt's
    QEMU driver makes it (virDomainDefPostParseMemory), since other drivers believe it; ``<currentMemory>`` stays.

    :raises InvalidDomainXML: no domain, or one without guest NUMA cells, which libvirt refuses, or without ACPI, which
        QEMU refuses at start. Neither is added unasked: both change the hardware that the guest knows
    :raises DomainRefused: the domain has a device with that path already, which libvirt would not mind
    :raises NamespaceMissing, InvalidRequest: see :func:`device_for`
    """
    domain = document.parse(domain_xml)
    if not grants:
        return domain_xml
    _require_numa_and_acpi(domain)
    added = [device_for(grant, node=guest_node(domain, grant.numa_node), label_size=label_size) for grant in grants]
    for device, grant in zip(added, grants, strict=True):
        element = device.to_element()
        identity.mark(element, grant.uuid)
        _append(domain, element)
    _refuse_shared(domain, added)
    memory = Memory.of(domain)
    set_size(domain.find("memory"), memory.total)
    cover(domain, memory)
    return document.write(domain, domain_xml)


def remove(domain_xml: str, paths: Collection[str]) -> str:
    """The domain without the nvdimm devices that have these source paths.

    A ``<maxMemory>`` with room to spare, in bytes or in slots, is the operator's and stays. One that fits exactly has
    no room to lose: it goes on fitting, and goes when the last memory device does. So what :func:`add` made is undone.
    ``<memory>`` shrinks; ``<currentMemory>`` stays, as libvirt caps it itself.

    :raises InvalidDomainXML: no domain
    :raises DomainRefused: it has no nvdimm device with one of the paths; then none is removed
    """
    domain = document.parse(domain_xml)
    if not paths:
        return domain_xml
    before = Memory.of(domain)
    for element in [element for path in sorted(set(paths)) for element in _nvdimms(domain, path)]:
        document.remove(element)
    after = Memory.of(domain, before.cells)
    set_size(domain.find("memory"), after.total)
    maximum = domain.find("maxMemory")
    if maximum is not None and covered(maximum) == (before.maximum, before.slots):
        if after.slots:
            set_size(maximum, after.maximum)
            maximum.set("slots", str(after.slots))
        else:
            document.remove(maximum)
    return document.write(domain, domain_xml)


def rewrite(domain_xml: str, replacement: Mapping[str, MemoryDevice]) -> str:
    """The domain as a migration's destination has it: nvdimm devices on other paths, and the same to the guest.

    Only paths change. Size, alignment and pmem must be equal: libvirt compares these and the label
    (virDomainMemoryDefCheckABIStability) and refuses a migration where they differ, and the next cold start makes them
    anew from the destination's namespace. Cell, label, alias and address stay, whatever the replacement says.

    :param replacement: by the source path in the document, the device on the destination
    :raises InvalidDomainXML: no domain, or a device that cannot be read
    :raises InvalidRequest: size, alignment or pmem differ
    :raises DomainRefused: there is no nvdimm device with a path, or two devices would share one
    """
    domain = document.parse(domain_xml)
    if not replacement:
        return domain_xml
    found = [(element, device) for path, device in replacement.items() for element in _nvdimms(domain, path)]
    for element, device in found:  # all are found before the first is changed: one's new path may be another's old one
        _require_same(MemoryDevice.from_element(element), device)
        child(element, "source/path").text = checked_path(device.path)
    _refuse_shared(domain, replacement.values())
    return document.write(domain, domain_xml)


def uuid(domain_xml: str) -> str:
    """The domain's uuid, in lower case.

    :raises InvalidDomainXML: the text is no domain, or has none
    """
    return str(read(child(document.parse(domain_xml), "uuid"), read_text)).lower()


def identified(domain_xml: str) -> list[tuple[MemoryDevice, str | None]]:
    """All nvdimm devices of a domain, each with the uuid of the namespace that it says it is, or None.

    :raises InvalidDomainXML: see :func:`devices`
    """
    return [
        (MemoryDevice.from_element(element), identity.told(element)) for element in _nvdimms(document.parse(domain_xml))
    ]


def refresh(domain_xml: str, grants: Sequence[model.Grant]) -> str:
    """The domain with the devices of `grants` on their current paths; the alias of each names its namespace.

    :raises InvalidDomainXML: no domain, or a device that cannot be read
    :raises DomainRefused: it has no device for a grant, or two devices share a path, or would
    :raises NamespaceMissing: a grant has no path now
    """
    domain = document.parse(domain_xml)
    paths = identity.find(identified(domain_xml), grants)
    found = []
    for grant in grants:
        if grant.uuid not in paths:
            raise _refused(
                domain, f"it has no device for {grant.name} ({grant.uuid})", "'vpmem domain xml' writes one."
            )
        if grant.device is None:
            raise exception.NamespaceMissing(namespace=grant.name)
        elements = _nvdimms(domain, paths[grant.uuid])
        if len(elements) > 1:
            reason = f"{len(elements)} of its memory devices are on {paths[grant.uuid]}"
            raise _refused(domain, reason, "Nothing was changed; remove all but one first.")
        found.append((elements[0], grant.uuid, grant.device))
    for element, uuid, path in found:  # all are found before the first is changed
        child(element, "source/path").text = checked_path(path)
        identity.mark(element, uuid)
    changed = [MemoryDevice.from_element(element) for element, _, _ in found]
    _refuse_shared(domain, changed)
    return document.write(domain, domain_xml)


def _nvdimms(domain: etree._Element, path: str | None = None) -> list[etree._Element]:
    """The nvdimm devices, or those with a source path, of which there must be one."""
    found = {element: _path(element) for element in domain.iterfind("devices/memory[@model='nvdimm']")}
    if path is None:
        return list(found)
    if path not in found.values():
        known = ", ".join(str(other) for other in found.values()) or "none"
        raise _refused(domain, f"it has no nvdimm device on {path}", f"Nothing was changed; it has: {known}.")
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
            reason = f"another of its memory devices is on {device.path} already"
            raise _refused(domain, reason, "Nothing was changed; remove the other one first.")


def _require_same(device: MemoryDevice, replacement: MemoryDevice) -> None:
    for name in ("size", "align", "pmem"):
        old, new = getattr(device, name), getattr(replacement, name)
        if old != new:
            reason = f"its {name} is {new}, and that of {device.path}, which the guest has, is {old}"
            raise invalid("device", replacement.path, reason, "A guest can only move to a namespace like its own.")


def _require_numa_and_acpi(domain: etree._Element) -> None:
    if domain.find("cpu/numa/cell") is None:
        vcpu, memory = domain.find("vcpu"), domain.find("memory")
        last = 0 if vcpu is None else read(vcpu, parse_integer) - 1
        size = "…" if memory is None else read(memory, parse_size) // KIB
        cell = f"<cell id='0' cpus='0-{last}' memory='{size}' unit='KiB'/>"
        raise exception.InvalidDomainXML(
            reason="it has no guest NUMA cell, which memory devices need",
            remedy=f"Add <cpu><numa>{cell}</numa></cpu>, or several cells.",
        )
    if domain.find("features/acpi") is None and not is_ppc64(domain):
        raise exception.InvalidDomainXML(
            reason="it has no ACPI, by which a guest finds its nvdimm", remedy="Add <features><acpi/></features>."
        )


def _append(domain: etree._Element, device: etree._Element) -> None:
    others = domain.findall("devices/memory")
    parent = others[-1].getparent() if others else domain.find("devices")
    if parent is None:
        raise unreadable(domain, "it has no <devices>")
    document.insert(parent, parent.index(others[-1]) + 1 if others else len(parent), device)
