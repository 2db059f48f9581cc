"""Which namespace a device of a domain is: its alias has the uuid, since its path may lead elsewhere after a reboot."""

from collections.abc import Sequence

from lxml import etree

from vpmem_driver import model
from vpmem_driver.guestxml.memory_device import MemoryDevice

#: libvirt keeps an alias that begins with ``ua-`` (formatdomain.html, since 3.9.0), and QEMU's device has it as its id.
_PREFIX = "ua-vpmem-"


def mark(device: etree._Element, uuid: str) -> None:
    """Have a ``<memory>`` say which namespace it is."""
    alias = device.find("alias")
    if alias is None:
        alias = etree.SubElement(device, "alias")
    alias.set("name", _PREFIX + uuid)


def told(device: etree._Element) -> str | None:
    """The uuid of the namespace that a ``<memory>`` says it is; None when it does not say."""
    alias = device.find("alias")
    name = None if alias is None else alias.get("name")
    return name.removeprefix(_PREFIX) if name is not None and name.startswith(_PREFIX) else None


def find(devices: Sequence[tuple[MemoryDevice, str | None]], grants: Sequence[model.Grant]) -> dict[str, str]:
    """The path that a domain has for each of `grants`, by uuid; those that it has no device for are left out.

    A device without such an alias is found by the path at its claim, or by the current path.

    :param devices: of the domain, each with the uuid that it says
    """
    by_uuid = {uuid: device.path for device, uuid in devices if uuid is not None}
    unmarked = {device.path for device, uuid in devices if uuid is None}
    found = {}
    for grant in grants:
        paths = [path for path in (grant.known_device, grant.device) if path in unmarked]
        if path := by_uuid.get(grant.uuid) or next(iter(paths), None):
            found[grant.uuid] = path
    return found
