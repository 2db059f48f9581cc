"""Sizes of a guest's device in a namespace."""

import functools
import math

KIB = 1024
MIB = 1024 * KIB

#: libvirt rounds the size of a memory device UP to this, on x86 and aarch64 alike
#: (qemuDomainGetMemoryModuleSizeAlignment in qemu_domain.c). On ppc64 it rounds a nvdimm DOWN, to 256 MiB and the label
#: (qemuDomainNVDimmAlignSizePseries), which cannot go past the end of a device either.
GRANULE = 2 * MIB
#: Label size of Nova's in-tree vPMEM (LibvirtConfigGuestVPMEM in nova/virt/libvirt/config.py, Nova 31-34). The label is
#: at the end of a device, so a guest finds its label only if this and the size of the device never change.
LABEL_SIZE = 2 * MIB
PAGE = 4096


@functools.lru_cache
def least_size(align: int, label_size: int = LABEL_SIZE) -> int:
    """Return the minimum size of a namespace with that alignment that gives the guest more than the label."""
    unit = math.lcm(align or 1, GRANULE)
    return -(-(label_size + max(align, PAGE)) // unit) * unit
