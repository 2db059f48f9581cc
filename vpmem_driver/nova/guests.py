"""The guests of this compute host, asked through Nova's own connection to libvirt."""

import os
import stat
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

    def user_of(self, device: str, *, defined: bool = False) -> str | None:
        """Which running guest has `device`, in words."""
        for guest in self._host.list_guests(only_running=not defined):
            if any(same_file(memory.path, device) for memory in guestxml.devices(guest.get_xml_desc())):
                return f"the guest of instance {guest.uuid}"
        return None

    def uuids(self) -> frozenset[str]:
        """The instances that have a domain on this host, running or shut off."""
        return frozenset(guest.uuid for guest in self._host.list_guests(only_running=False))

    def memory_paths(self, instance: objects.Instance) -> list[str]:
        """As :func:`memory_paths`, of the instance's domain, running or shut off; empty when there is none."""
        try:
            return memory_paths(self._host.get_guest(instance).get_xml_desc())
        except nova_exception.InstanceNotFound:
            return []


def memory_paths(domain_xml: str | bytes) -> list[str]:
    """The source path of each memory device that has one."""
    return [path.text or "" for path in etree.fromstring(domain_xml).iterfind("devices/memory/source/path")]


def same_device(path: str, other: str) -> bool:
    """Whether two paths lead to the same device or file; a path that leads nowhere is compared by its text."""
    try:
        statuses = os.stat(path), os.stat(other)
    except OSError:
        return path == other
    if all(stat.S_ISCHR(status.st_mode) for status in statuses):  # there may be several nodes for one device
        return statuses[0].st_rdev == statuses[1].st_rdev
    return os.path.samestat(*statuses)
