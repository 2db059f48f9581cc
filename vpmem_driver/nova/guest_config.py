"""A memory device in Nova's guest configuration, written by the same code as in domain XML elsewhere."""

import typing

from nova.virt.libvirt import config as vconfig

from vpmem_driver.guestxml import KIB, MemoryDevice


class GuestMemoryDevice(vconfig.LibvirtConfigGuestVPMEM):
    """A nvdimm or a virtio-pmem. Nova's own class writes a nvdimm only, always with a label area."""

    def __init__(self, device: MemoryDevice) -> None:
        super().__init__()
        self._device = device
        self.model = device.model
        self.source_path = device.path
        self.align_size = (device.align or 0) // KIB
        self.pmem = device.pmem
        self.target_size = device.size // KIB
        self.target_node = device.node
        self.label_size = (device.label_size or 0) // KIB

    def format_dom(self) -> typing.Any:
        """Return the element."""
        return self._device.to_element()
