"""Hot plug: room for more devices in a definition, and whether a running domain can take a device."""

from collections.abc import Sequence

from lxml import etree

from vpmem_driver import exception, model
from vpmem_driver.guestxml import document, identity
from vpmem_driver.guestxml.edit import guest_node, require_numa_and_acpi
from vpmem_driver.guestxml.memory_device import device_for
from vpmem_driver.guestxml.memory_limits import Memory, cover, covered
from vpmem_driver.guestxml.values import child
from vpmem_driver.model import DeviceModel

#: A virtio-pmem is a PCI device, and only a free root port of a q35 machine takes another one while it runs.
_PORT = {"type": "pci", "model": "pcie-root-port"}
#: The root of the PCI devices of a q35 machine takes none while it runs; each of its ports takes one.
_ROOT, _PORTS = "pcie-root", {"pcie-root-port", "pcie-switch-downstream-port"}
_VIRTIO_PMEM = f"memory[@model='{DeviceModel.VIRTIO_PMEM}']"
_RESERVE = "Run 'vpmem domain attach DOMAIN --reserve N:SIZE', then shut the domain off and start it"


def reserve(domain_xml: str, count: int, size: int) -> str:
    """Make room in a definition for `count` more devices of `size` bytes each, to be added while the domain runs.

    :raises InvalidDomainXML: the text is not a domain, or has no guest NUMA cells or no ACPI
    """
    domain = document.parse(domain_xml)
    require_numa_and_acpi(domain)
    memory = Memory.of(domain)
    cover(domain, memory._replace(maximum=memory.maximum + count * size, slots=memory.slots + count))
    os_type = domain.find("os/type")
    if os_type is not None and "q35" in (os_type.get("machine") or ""):
        devices = child(domain, "devices")
        # libvirt puts those that have no address yet into ports that are free.
        waiting = sum(memory.find("address") is None for memory in devices.iterfind(_VIRTIO_PMEM))
        for _ in range(count + waiting):
            document.insert(devices, len(devices), etree.Element("controller", _PORT))
    return document.write(domain, domain_xml)


def require_slots(domain_xml: str, count: int) -> None:
    """Verify that a running domain has slots for `count` more devices. :raises DomainRefused: it has not."""
    domain = document.parse(domain_xml)
    free = _room(domain)[1]
    if free < count:
        raise _refused(domain, f"it has {free} free memory slots, and {count} are needed")


def plug(domain_xml: str, grants: Sequence[model.Grant]) -> list[str]:
    """Return the XML of a device for each grant, for virDomainAttachDevice.

    :param domain_xml: the XML of the running domain
    :raises DomainRefused: the domain cannot take them
    :raises NamespaceMissing, NamespaceBusy, InvalidRequest: see :func:`device_for`
    """
    domain = document.parse(domain_xml)
    added = [device_for(grant, node=guest_node(domain, grant.numa_node)) for grant in grants]
    room, wanted = _room(domain)[0], sum(device.size for device in added)
    if room < wanted:
        raise _refused(domain, f"its <maxMemory> has room for {max(room, 0)} more bytes, and {wanted} are needed")
    is_nvdimm = any(device.model is DeviceModel.NVDIMM for device in added)
    if is_nvdimm and domain.find(f"devices/memory[@model='{DeviceModel.NVDIMM}']") is None:
        reason = "it was started without a nvdimm, and QEMU adds none to such a machine"
        raise exception.DomainRefused(
            domain=_name(domain), reason=reason, remedy="Leave out --live: it gets the namespaces at its next start"
        )
    _require_ports(domain, sum(device.model is DeviceModel.VIRTIO_PMEM for device in added))
    plugged = []
    for device, grant in zip(added, grants, strict=True):
        element = device.to_element()
        identity.mark(element, grant.uuid)
        plugged.append(etree.tostring(element, encoding="unicode"))
    return plugged


def _room(domain: etree._Element) -> tuple[int, int]:
    """Return the free bytes and slots of a domain."""
    maximum = domain.find("maxMemory")
    if maximum is None:
        raise _refused(domain, "it has no <maxMemory>, so that no memory can be added while it runs")
    (size, slots), memory = covered(maximum), Memory.of(domain)
    return size - memory.maximum, slots - memory.slots


def _require_ports(domain: etree._Element, count: int) -> None:
    """Verify that a q35 machine has free ports for `count` PCI devices. Another machine has slots.

    :raises DomainRefused: it has not
    """
    controllers = domain.findall("devices/controller[@type='pci']")
    if not {controller.get("model") for controller in controllers} <= {_ROOT, *_PORTS}:
        return  # it has a bridge, and that has slots
    ports = {controller.get("index") for controller in controllers} - {None, "0"}
    used = {str(int(address.get("bus", "0"), 0)) for address in domain.iterfind("devices//address[@type='pci']")}
    free = len(ports - used)
    if controllers and free < count:
        raise _refused(domain, f"it has {free} free PCI Express ports, and {count} are needed")


def _refused(domain: etree._Element, reason: str) -> exception.DomainRefused:
    return exception.DomainRefused(domain=_name(domain), reason=reason, remedy=_RESERVE)


def _name(domain: etree._Element) -> str:
    return domain.findtext("name", "(unnamed)")
