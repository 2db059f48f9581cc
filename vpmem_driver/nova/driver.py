"""``compute_driver = vpmem.VPMEMLibvirtDriver``."""

from nova.virt.libvirt import driver

from vpmem_driver.nova.mixin import VPMEMDriverMixin


class VPMEMLibvirtDriver(VPMEMDriverMixin, driver.LibvirtDriver):
    """Nova's libvirt driver, with persistent memory that is never lost, leaked or mixed up."""
