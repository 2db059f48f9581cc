"""The guests of this compute host, asked through Nova's own connection to libvirt."""

import typing

from lxml import etree
from nova import exception as nova_exception
from nova import objects

from vpmem_driver import guestxml
from vpmem_driver.domains import Domains, same_file


class HostGuests(Domains):
    """As :class:`vpmem_driver.domains.Domains`, without a second connection."""

    def __init__(self, host: typing.Any) -> None:
        """`host` is the driver's ``nova.virt.libvirt.host.Host``."""
        super().__init__(None)
        self._host = host

    def runs(self, uuid: str) -> bool:
        """Whether the guest of that instance runs here."""
        return any(guest.uuid == uuid for guest in self._host.list_guests(only_running=True))

    def memory_paths(self, instance: objects.Instance) -> list[str]:
        """The paths of the memory devices of the instance's domain, running or shut off; empty when there is none."""
        try:
            xml = self._host.get_guest(instance).get_xml_desc()
        except nova_exception.InstanceNotFound:
            return []
        return [path.text or "" for path in etree.fromstring(xml).iterfind("devices/memory/source/path")]

    def user_of(self, device: str, *, defined: bool = False) -> str | None:
        """Which running guest has `device`, in words."""
        for guest in self._host.list_guests(only_running=not defined):
            if any(same_file(memory.path, device) for memory in guestxml.devices(guest.get_xml_desc())):
                return f"the guest of instance {guest.uuid}"
        return None
