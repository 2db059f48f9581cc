"""Edit the XML of a domain: add, remove, update and replace its memory devices."""

import dataclasses
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
from vpmem_driver.sizes import KIB

_MODELS = frozenset(model.DeviceModel)


def devices(domain_xml: str) -> tuple[MemoryDevice, ...]:
    """Return all devices for namespaces of a domain, in document order.

    :raises InvalidDomainXML: the text is not a domain, or a device cannot be parsed
    """
    return tuple(MemoryDevice.from_element(element) for element in _devices(document.parse(domain_xml)))


def memory_paths(domain_xml: str) -> list[str | None]:
    """Return the source path of each memory device, for a namespace or not, in document order; None for one without.

    :raises InvalidDomainXML: the text is not a domain
    """
    return [_path(element) for element in document.parse(domain_xml).iterfind("devices/memory")]


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
    domain = document.parse(domain_xml)
    require_numa_and_acpi(domain)
    child(domain, "devices")
    guest_node(domain, None)
    Memory.of(domain)
    if (maximum := domain.find("maxMemory")) is not None:
        covered(maximum)


def add(domain_xml: str, grants: Sequence[model.Grant]) -> str:
    """Add a device for each grant, in that order, after the existing memory devices.

    ``<maxMemory>`` is created or raised to cover the domain's cells, all its memory devices and the new ones, with a
    slot for each; larger values are kept. ``<memory>`` becomes the sum of cells and devices, as in libvirt's QEMU
    driver (virDomainDefPostParseMemory), because other drivers use it unchanged. ``<currentMemory>`` does not change.

    :raises InvalidDomainXML: the text is not a domain, has no guest NUMA cells (libvirt refuses it), or has no ACPI
        (QEMU refuses to start it). They are not added automatically, because both change the guest's hardware
    :raises DomainRefused: the domain already has a device with that path, which libvirt would accept
    :raises NamespaceMissing, InvalidRequest: see :func:`device_for`
    """
    domain = document.parse(domain_xml)
    if not grants:
        return domain_xml
    require_numa_and_acpi(domain)
    added = [device_for(grant, node=guest_node(domain, grant.numa_node)) for grant in grants]
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
    """Remove the devices for namespaces with these source paths from a domain.

    A ``<maxMemory>`` with spare bytes or slots was set by the operator and is kept. One that fits exactly shrinks with
    the devices and is removed with the last memory device, which undoes :func:`add`. ``<memory>`` shrinks.
    ``<currentMemory>`` does not change, because libvirt limits it.

    :raises InvalidDomainXML: the text is not a domain
    :raises DomainRefused: it has no memory device with one of the paths; then none is removed
    """
    domain = document.parse(domain_xml)
    if not paths:
        return domain_xml
    before = Memory.of(domain)
    for element in [element for path in sorted(set(paths)) for element in _devices(domain, path)]:
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
    """Change the device paths of a domain for the destination of a migration.

    Only paths change; the guest sees the same hardware. Size, alignment and pmem must be equal: libvirt compares these
    and the label (virDomainMemoryDefCheckABIStability) and refuses a migration if they differ, and the next cold start
    derives them from the destination's namespace. Cell, label, alias and address of the replacement are ignored.

    :param replacement: device on the destination, by source path in the document
    :raises InvalidDomainXML: the text is not a domain, or a device cannot be parsed
    :raises InvalidRequest: size, alignment or pmem differ
    :raises DomainRefused: it has no memory device with a path, or two devices would share a path
    """
    domain = document.parse(domain_xml)
    if not replacement:
        return domain_xml
    found = [(element, device) for path, device in replacement.items() for element in _devices(domain, path)]
    for element, device in found:  # find all before changing any: a new path may be the old path of another device
        _require_same(MemoryDevice.from_element(element), device)
        child(element, "source/path").text = checked_path(device.path)
    _refuse_shared(domain, replacement.values())
    return document.write(domain, domain_xml)


def relocate(domain_xml: str, grants: Mapping[str, model.Grant]) -> str:
    """Give the devices of a domain that is shut off to other namespaces, which have the same content.

    Path, size, alignment, pmem, model, label size and alias become those of the grant. Access, guest cell, address and
    order do not change. ``<memory>`` and ``<maxMemory>`` follow the sizes as in :func:`add`.

    :param grants: the new namespace for each source path in the document
    :raises InvalidDomainXML: the text is not a domain, or a device cannot be parsed
    :raises DomainRefused: it has not exactly one such device with a path, or two devices would share a path
    :raises NamespaceMissing, NamespaceBusy, InvalidRequest: see :func:`device_for`
    """
    domain = document.parse(domain_xml)
    found = [(_only(domain, path), grant) for path, grant in grants.items()]
    changed = []
    for element, grant in found:  # find all before changing any: a new path may be the old path of another device
        old = MemoryDevice.from_element(element)
        fresh = device_for(grant, node=old.node or 0)
        changed.append(dataclasses.replace(fresh, access=old.access, readonly=old.readonly))
        element.set("model", fresh.model)
        for part in list(changed[-1].to_element()):  # <source> and <target>
            before = child(element, str(part.tag))
            if old.size == fresh.size and (address := before.find("address")) is not None:
                part.append(address)  # where libvirt has put a virtio-pmem in the guest's memory
            index = element.index(before)
            document.remove(before)
            document.insert(element, index, part)
        identity.mark(element, grant.uuid)
    _refuse_shared(domain, changed)
    memory = Memory.of(domain)
    set_size(domain.find("memory"), memory.total)
    cover(domain, memory)
    return document.write(domain, domain_xml)


def uuid(domain_xml: str) -> str:
    """Return the domain's uuid, in lower case.

    :raises InvalidDomainXML: the text is not a domain, or has no uuid
    """
    return str(read(child(document.parse(domain_xml), "uuid"), read_text)).lower()


def identified(domain_xml: str) -> list[tuple[MemoryDevice, str | None]]:
    """Return all devices for namespaces of a domain, each with the namespace uuid in its alias, or None.

    :raises InvalidDomainXML: see :func:`devices`
    """
    return [
        (MemoryDevice.from_element(element), identity.uuid_of(element))
        for element in _devices(document.parse(domain_xml))
    ]


def refresh(domain_xml: str, grants: Sequence[model.Grant]) -> str:
    """Update the devices of `grants` to their current paths, and write the namespace uuid into each alias.

    :raises InvalidDomainXML: the text is not a domain, or a device cannot be parsed
    :raises DomainRefused: it has no device for a grant, or two devices share a path, now or after the change
    :raises NamespaceMissing: a grant has no path now
    """
    domain = document.parse(domain_xml)
    paths = identity.find(identified(domain_xml), grants)
    found = []
    for grant in grants:
        if grant.uuid not in paths:
            raise _refused(
                domain, f"it has no device for {grant.name} ({grant.uuid})", "Use 'vpmem domain xml' to create one"
            )
        if grant.device is None:
            raise exception.NamespaceMissing(namespace=grant.name)
        found.append((_only(domain, paths[grant.uuid]), grant.uuid, grant.device))
    for element, uuid, path in found:  # find all before changing any
        child(element, "source/path").text = checked_path(path)
        identity.mark(element, uuid)
    changed = [MemoryDevice.from_element(element) for element, _, _ in found]
    _refuse_shared(domain, changed)
    return document.write(domain, domain_xml)


def _devices(domain: etree._Element, path: str | None = None) -> list[etree._Element]:
    """Return the devices for namespaces, or those with this source path, of which there must be at least one."""
    found = {
        element: _path(element) for element in domain.iterfind("devices/memory") if element.get("model") in _MODELS
    }
    if path is None:
        return list(found)
    if path not in found.values():
        known = ", ".join(str(other) for other in found.values()) or "none"
        raise _refused(domain, f"it has no memory device at {path}", f"Nothing was changed. It has: {known}")
    return [element for element, other in found.items() if other == path]


def _only(domain: etree._Element, path: str) -> etree._Element:
    """Return the device with this source path. :raises DomainRefused: there is none, or there are several."""
    elements = _devices(domain, path)
    if len(elements) > 1:
        reason = f"{len(elements)} of its memory devices use {path}"
        raise _refused(domain, reason, "Nothing was changed. Remove all but one first")
    return elements[0]


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
    for name in ("model", "size", "align", "pmem"):
        old, new = getattr(device, name), getattr(replacement, name)
        if old != new:
            reason = f"its {name} is {new}, but that of the guest's device {device.path} is {old}"
            raise invalid("device", replacement.path, reason, "Use a namespace with the same size, align and pmem")


def require_numa_and_acpi(domain: etree._Element) -> None:
    """Verify that a domain can have memory devices. :raises InvalidDomainXML: it cannot."""
    if domain.find("cpu/numa/cell") is None:
        vcpu, memory = domain.find("vcpu"), domain.find("memory")
        last = 0 if vcpu is None else read(vcpu, parse_integer) - 1
        size = "…" if memory is None else read(memory, parse_size) // KIB
        cell = f"<cell id='0' cpus='0-{last}' memory='{size}' unit='KiB'/>"
        raise exception.InvalidDomainXML(
            reason="it has no guest NUMA cell, which memory devices require",
            remedy=f"Add <cpu><numa>{cell}</numa></cpu>, or several cells",
        )
    if domain.find("features/acpi") is None and not is_ppc64(domain):
        raise exception.InvalidDomainXML(
            reason="it has no ACPI, which a guest needs to find its nvdimm", remedy="Add <features><acpi/></features>"
        )


def _append(domain: etree._Element, device: etree._Element) -> None:
    others = domain.findall("devices/memory")
    parent = others[-1].getparent() if others else domain.find("devices")
    if parent is None:
        raise unreadable(domain, "it has no <devices>")
    document.insert(parent, parent.index(others[-1]) + 1 if others else len(parent), device)
