"""Alignments of 4 KiB and of 2 MiB, for sizes that are a multiple of neither: what QEMU maps, and what a guest sees."""

import dataclasses
import pathlib

from tests.functional.conftest import MIB
from tests.machine import guest, libvirtd
from vpmem_driver import guestxml

ALIGNMENTS = (4096, 2 * MIB)


def mapping(pid, path):
    """First address and size of what a process has mapped of a file."""
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith(str(path)):
            first, end = (int(address, 16) for address in line.split()[0].split("-"))
            return first, end - first
    raise AssertionError(f"{path} is not mapped")


def test_alignments(host, new_guest, seen):
    """The namespaces of a directory have 2 MiB on a DAX filesystem only: here the grant is said to have it."""
    paths = [host.make(f"align{number}", size=9 * MIB + 12288, full=False) for number in range(2)]
    host.pmem_namespaces = ["ALIGN:align0|align1"]
    domain = new_guest()
    grants = host.pool().claim(domain.uuid, ["ALIGN", "ALIGN"])
    grants = [dataclasses.replace(grant, align=align) for grant, align in zip(grants, ALIGNMENTS, strict=True)]
    domain.define(guestxml.add(domain.definition(), grants))
    domain.unpin()
    domain.start()
    pid = libvirtd.pid_of_guest(domain.uuid)
    for align, path, device in zip(ALIGNMENTS, paths, domain.report().devices, strict=True):
        first, size = mapping(pid, path)
        assert (first % align, size) == (0, 8 * MIB)
        assert (device.size, device.zeros) == (6 * MIB, True)
        assert guest.holds(path, domain.uuid, device.slot, device.size)
        assert not any(path.read_bytes()[device.size :]), "what the guest does not see stays as it is"
        seen(f"9 MiB and 12 KiB, aligned to {align // 1024} KiB", "8 MiB mapped, at that alignment; the guest sees 6")
