"""``compute_driver = vpmem.VPMEMLibvirtDriver``."""

from nova.virt.libvirt import driver

from vpmem_driver.nova.mixin import VPMEMDriverMixin


class VPMEMLibvirtDriver(VPMEMDriverMixin, driver.LibvirtDriver):
    """Nova's libvirt driver with the persistent memory of this package."""
