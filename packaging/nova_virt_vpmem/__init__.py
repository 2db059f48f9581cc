"""The module that ``compute_driver = vpmem.VPMEMLibvirtDriver`` names. nova-compute looks only below nova.virt."""

from vpmem_driver.nova.driver import VPMEMLibvirtDriver

__all__ = ["VPMEMLibvirtDriver"]
