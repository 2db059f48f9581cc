"""virtio-pmem: a guest writes and flushes, QEMU is killed, and the next one has it all; and which libvirt starts it.

The guest runs on QEMU without libvirt, with the arguments that libvirt 11.3 writes, since libvirt before 9.4 does not
start it.
"""

import contextlib
import os
import signal
import subprocess
import uuid

import pytest

from tests.functional import conftest as functional
from tests.functional.conftest import MIB
from tests.machine import guest, kernel
from tests.proofs import proves
from vpmem_driver import guestxml, model
from vpmem_driver.libvirt_domains import VIRTIO_PMEM_VERSION

SIZE = 9 * MIB + 12288
SEEN = 8 * MIB


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A host without libvirt, whose files are virtio-pmem by default."""
    made = functional.Host(tmp_path_factory.mktemp("disk"))
    del made.options["device_model"]
    made.pmem_namespaces = ["DISK:disk0"]
    made.make("disk0", size=SIZE)
    yield made
    made.close()


@contextlib.contextmanager
def running(boot, owner, device, log):
    """Run a guest with one virtio-pmem; yields its process, and what the guest reports."""
    words = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-accel", "tcg"]
    words += ["-machine", "q35", "-m", "256M,slots=1,maxmem=1G", "-uuid", owner, "-serial", f"file:{log}"]
    memory = f"memory-backend-file,id=mem0,share=on,mem-path={device.path},size={device.size}"
    words += ["-object", memory, "-device", "virtio-pmem-pci,memdev=mem0,id=pmem0"]
    words += [
        "-kernel",
        str(boot.kernel),
        "-initrd",
        str(boot.initramfs),
        "-append",
        f"console=ttyS0 no_timer_check {kernel.QUICK}",
    ]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        yield process, guest.wait_for_report(log)
    finally:
        process.kill()
        process.wait()


def claimed(disk, owner):
    """The device of a new claim, and the file that it is."""
    (grant,) = disk.pool().claim(owner, ["DISK"])
    device = guestxml.device_for(grant, node=0)
    assert device == guestxml.MemoryDevice(
        model=model.DeviceModel.VIRTIO_PMEM, access="shared", path=str(disk.path("disk0")), size=SEEN
    )
    return device, disk.path("disk0")


@proves("claim", "wipe", "survives guest stop", kinds=("virtio-pmem",))
def test_what_a_guest_has_flushed_is_there_after_qemu_is_killed(disk, boot, tmp_path, seen):
    owner, other = str(uuid.uuid4()), str(uuid.uuid4())
    device, path = claimed(disk, owner)
    with running(boot, owner, device, tmp_path / "first") as (process, report):
        (found,) = report.devices
        assert (found.size, found.zeros, found.holds(owner, 0)) == (SEEN, True, True), "all of it, without a label"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert guest.holds(path, owner, 0, SEEN)
    with running(boot, owner, device, tmp_path / "second") as (_, report):
        (found,) = report.devices
        assert (found.text, found.holds(owner, 0)) == (f"{owner} 0", True)
    seen("virtio-pmem: write, flush, kill -9 of QEMU, start", "all bytes kept")
    pool = disk.pool()
    pool.release(owner)
    pool.wipe()
    device, _ = claimed(disk, other)
    with running(boot, other, device, tmp_path / "third") as (_, report):
        assert report.devices[0].zeros
    seen("virtio-pmem: the next guest", "finds only zeros")


def test_a_guest_without_the_driver_boots_and_has_no_device(disk, boot, pytestconfig, tmp_path, seen):
    owner = str(uuid.uuid4())
    disk.pmem_namespaces = ["DISK:disk1"]
    disk.make("disk1", size=SIZE)
    (grant,) = disk.pool().claim(owner, ["DISK"])
    unpacked = kernel.unpacked(pytestconfig.rootpath / ".tox" / "kernel")
    without = boot._replace(initramfs=guest.build(tmp_path / "initramfs", unpacked, without="virtio_pmem"))
    with running(without, owner, guestxml.device_for(grant, node=0), tmp_path / "log") as (_, report):
        assert report.devices == ()
    assert guest.is_zero(disk.path("disk1"))
    seen("virtio-pmem: a guest without the driver", "boots, and has no /dev/pmemN")


def test_which_model_is_claimed_follows_this_libvirt(host, vpmem, connection, seen):
    """libvirt 9.0 fails at the start of a guest with virtio-pmem, so it must not be claimed by default."""
    number = connection.getLibVersion()
    version = (number // 1_000_000, number // 1000 % 1000, number % 1000)
    starts = version >= VIRTIO_PMEM_VERSION
    del host.options["device_model"]
    host.pmem_namespaces = ["CHOSEN:chosen0"]
    host.make("chosen0")
    owner = str(uuid.uuid4())
    code, listed, err = vpmem("claim", owner, "CHOSEN")
    assert code == 0, err
    assert listed["chosen0"]["device_model"] == ("virtio-pmem" if starts else "nvdimm")
    assert vpmem("release", owner, "--wait")[0] == 0
    host.options["device_model"] = ["virtio-pmem"]
    code, _, err = vpmem("claim", owner, "CHOSEN")
    assert code == (0 if starts else 2)
    assert starts or "this libvirt does not start guests with virtio-pmem" in err
    seen(f"libvirt {'.'.join(map(str, version))}: a file is", "virtio-pmem" if starts else "nvdimm")
