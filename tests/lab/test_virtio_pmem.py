"""A file on the host's disk as a guest's memory: what the guest has flushed, after the host has lost power.

The host's periodic writeback is off, so that only what somebody flushes is on the disk. QEMU is started without
libvirt: that of Debian 12 does not start a virtio-pmem. Its arguments are those of libvirt 11.3.
"""

import hashlib
import uuid

from tests.lab import ready
from tests.lab.host import STATE
from tests.lab.test_power import wait_until
from tests.machine import guest, kernel
from tests.proofs import proves
from vpmem_driver import model
from vpmem_driver.sizes import MIB

CONFIG = "/etc/vpmem/files.conf"
LOG = "/run/files-guest.log"
SIZE = 8 * MIB

VIRTIO_PMEM, NVDIMM = model.DeviceModel.VIRTIO_PMEM, model.DeviceModel.NVDIMM


def configure(host, device_model):
    """Files as namespaces. libvirt's test driver has no version that could decide the model."""
    text = f"[libvirt]\npmem_namespaces = DISK:{device_model}\n[vpmem]\ndiscovery = directory\n"
    text += f"directory = {STATE}/files\nstate_path = {STATE}/files-state\nconnection_uri = test:///default\n"
    host.call("write", CONFIG, f"{text}device_model = {device_model}\n")


def vpmem(host, *words):
    return host.vpmem("--config-file", CONFIG, *words, "-f", "json").json


def start(host, owner, device_model, path):
    """Start the guest on a file; what it tells of its device when it has flushed all of it."""
    initramfs = guest.build(ready.ROOT / ".tox/kernel/files-initramfs", host.kernel)
    words = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-accel", "kvm", "-uuid", owner]
    words += ["-machine", "q35,nvdimm=on", "-m", "256M,slots=1,maxmem=1G", "-serial", f"file:{LOG}"]
    words += ["-object", f"memory-backend-file,id=mem0,share=on,mem-path={path},size={SIZE}"]
    is_nvdimm = device_model is NVDIMM
    device = f"nvdimm,label-size={2 * MIB}" if is_nvdimm else "virtio-pmem-pci"
    words += ["-device", f"{device},memdev=mem0,id=pmem0", "-kernel", str(host.kernel.image)]
    words += ["-initrd", str(initramfs), "-append", f"console=ttyS0 {kernel.QUICK}"]
    host.call("start", words)
    (report,) = wait_until(host, lambda: guest.reports(host.call("read", LOG)))
    (found,) = report.devices
    return found


def md5_of(host, path, size):
    return host.run("sh", "-c", f"head -c {size} '{path}' | md5sum").out.split()[0]


def after_power_loss(host, device_model):
    """A guest flushes all of its device, then the host loses power; what the guest wrote, and what the file has."""
    owner, path = str(uuid.uuid4()), f"{STATE}/files/{device_model}"
    host.run("sh", "-c", f"mkdir -p {STATE}/files && fallocate -l {SIZE} {path}")
    configure(host, device_model)
    (row,) = vpmem(host, "claim", owner, "DISK")
    assert (row["device"], row["device_model"]) == (path, device_model)
    host.call("write", "/proc/sys/vm/dirty_writeback_centisecs", "0\n")
    host.run("sync")
    found = start(host, owner, device_model, path)
    assert (found.size, found.zeros, found.holds(owner, 0)) == (row["guest_size"], True, True)
    assert md5_of(host, path, found.size) == found.md5, "in the page cache of the host it is there"

    host.power_off()
    host.boot()
    configure(host, device_model)
    (row,) = [row for row in vpmem(host, "namespace", "list") if row["device"] == path]
    assert (row["state"], row["owner"], row["device_model"]) == ("claimed", owner, device_model)
    kept = md5_of(host, path, found.size)
    ready.configure(host)
    return found, kept


@proves("survives power loss", kinds=("virtio-pmem",))
def test_of_a_virtio_pmem_all_that_was_flushed_is_there(host, seen):
    found, kept = after_power_loss(host, VIRTIO_PMEM)
    assert kept == found.md5
    seen("virtio-pmem on a file, flushed, power off", "all of it")


def test_of_a_nvdimm_on_the_same_disk_nothing_is_there(host, seen):
    found, kept = after_power_loss(host, NVDIMM)
    assert kept == hashlib.md5(bytes(found.size), usedforsecurity=False).hexdigest()
    seen("nvdimm on a file, flushed, power off", "nothing: zeros, as before the guest")
