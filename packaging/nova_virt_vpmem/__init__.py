"""What ``compute_driver = vpmem.VPMEMLibvirtDriver`` finds: nova-compute looks below nova.virt and nowhere else."""

from vpmem_driver.nova.driver import VPMEMLibvirtDriver

__all__ = ["VPMEMLibvirtDriver"]
