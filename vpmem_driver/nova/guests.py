"""The guests of this compute host, listed through Nova's own connection to libvirt."""

import contextlib
import functools
import typing
from collections.abc import Generator, Iterator

from nova import exception as nova_exception
from nova import objects
from nova.compute import power_state
from nova.virt.libvirt import host as libvirt_host

from vpmem_driver import guestxml, model
from vpmem_driver.libvirt_domains import VIRTIO_PMEM_VERSION, Domains, Dump
from vpmem_driver.sizes import MAX_LABEL_SIZE


class HostGuests(Domains):
    """:class:`vpmem_driver.libvirt_domains.Domains` over Nova's connection."""

    def __init__(self, host: typing.Any) -> None:
        """`host` is the driver's ``nova.virt.libvirt.host.Host``."""
        super().__init__("Nova's connection")
        self._host = host

    def starts_virtio_pmem(self) -> bool:
        """See :meth:`Domains.starts_virtio_pmem`."""
        with self.errors():
            return bool(self._host.has_min_version(lv_ver=VIRTIO_PMEM_VERSION))

    def runs(self, uuid: str) -> bool:
        """Whether the guest of that instance runs on this host."""
        with self.errors():
            return any(guest.uuid == uuid for guest in self._host.list_guests(only_running=True))

    def memory_paths(self, instance: objects.Instance) -> list[str]:
        """Return the memory device paths of the instance's domain, running or shut off; empty if it has no domain."""
        with self.errors():
            try:
                found = guestxml.memory_paths(self._host.get_guest(instance).get_xml_desc())
            except nova_exception.InstanceNotFound:
                return []
        return [path for path in found if path is not None]

    def hardware(self, instance: objects.Instance) -> dict[str, model.Hardware]:
        """Return what the memory devices of the instance's domain are, by path; empty if it has no domain.

        Devices with a larger label area than Nova or this driver writes are left out.
        """
        with self.errors():
            try:
                found = guestxml.devices(self._host.get_guest(instance).get_xml_desc())
            except nova_exception.InstanceNotFound:
                return {}
        return {device.path: device.hardware for device in found if (device.label_size or 0) <= MAX_LABEL_SIZE}

    def _dumps(self, *, defined: bool) -> Generator[Dump, None, None]:
        for guest in self._host.list_guests(only_running=not defined):
            user = f"the guest of instance {guest.uuid}"
            yield user, guest.get_xml_desc
            if defined:
                yield user, functools.partial(guest.get_xml_desc, dump_inactive=True)

    def _binding(self) -> typing.Any:
        return libvirt_host.libvirt  # Nova loads the module there, and its tests replace it

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """See :meth:`Domains.errors`. Nova raises its own errors if libvirt is not available."""
        try:
            with super().errors():
                yield
        except nova_exception.NovaException as error:
            remedy = "Check that libvirt runs on this host; Nova reconnects by itself"
            raise self._error(str(error), remedy) from error

    def uuids(self) -> frozenset[str]:
        """Return the instances that have a domain on this host, running or shut off."""
        with self.errors():
            return frozenset(guest.uuid for guest in self._host.list_guests(only_running=False))


def is_running(driver: typing.Any, instance: objects.Instance) -> bool:
    """Whether the guest of `instance` runs. Nova may have removed its domain when a start failed; then it does not."""
    try:
        return bool(driver.get_info(instance).state == power_state.RUNNING)
    except nova_exception.InstanceNotFound:
        return False
