"""Identify the namespace of a device by the uuid in its alias, because its path may change after a reboot."""

from collections.abc import Sequence

from lxml import etree

from vpmem_driver import model
from vpmem_driver.guestxml.memory_device import MemoryDevice

#: libvirt preserves an alias that begins with ``ua-`` (formatdomain.html, since 3.9.0). QEMU's device has it as id.
_PREFIX = "ua-vpmem-"


def mark(device: etree._Element, uuid: str) -> None:
    """Write the uuid of the namespace into the alias of a ``<memory>``."""
    alias = device.find("alias")
    if alias is None:
        alias = etree.SubElement(device, "alias")
    alias.set("name", _PREFIX + uuid)


def uuid_of(device: etree._Element) -> str | None:
    """Return the uuid in the alias of a ``<memory>``; None if it has none."""
    alias = device.find("alias")
    name = None if alias is None else alias.get("name")
    return name.removeprefix(_PREFIX) if name is not None and name.startswith(_PREFIX) else None


def find(devices: Sequence[tuple[MemoryDevice, str | None]], grants: Sequence[model.Grant]) -> dict[str, str]:
    """Return the path in the domain for each of `grants`, by uuid, without grants that have no device.

    A device without a uuid in its alias is found by its path at the claim, or by its current path.

    :param devices: devices of the domain, each with the uuid in its alias
    """
    by_uuid = {uuid: device.path for device, uuid in devices if uuid is not None}
    unmarked = {device.path for device, uuid in devices if uuid is None}
    found = {}
    for grant in grants:
        paths = [path for path in (grant.known_device, grant.device) if path in unmarked]
        if path := by_uuid.get(grant.uuid) or next(iter(paths), None):
            found[grant.uuid] = path
    return found
