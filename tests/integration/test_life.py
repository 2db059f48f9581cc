"""The life of a guest's persistent memory, looked at from inside and outside: the tests are its stations, in order.

What is asked for is in another order than the namespaces' nodes, names and sizes.
"""

import os
import signal

import pytest

from tests.functional.conftest import MIB
from tests.machine import guest, libvirtd

#: label -> what its namespace has, and what the guest is to see of it: the rest is alignment, and 2 MiB of label.
WANTED = {
    "LARGE": {"node": 1, "size": 16 * MIB, "seen": 14 * MIB},
    "SMALL": {"node": 0, "size": 8 * MIB, "seen": 6 * MIB},
    "ODD": {"node": 1, "size": 9 * MIB + 12288, "seen": 6 * MIB},
}


@pytest.fixture(scope="module")
def paths(host):
    """The namespaces, full of what somebody left in them, in the order of the labels."""
    host.pmem_namespaces = [f"{label}:{label.lower()}0" for label in WANTED]
    return [host.make(f"{label.lower()}0", node=each["node"], size=each["size"]) for label, each in WANTED.items()]


@pytest.fixture(scope="module")
def first(new_guest, paths):
    return new_guest(cells=2)


@pytest.fixture(scope="module")
def next_guest(new_guest, paths):
    return new_guest(cells=2)


def assert_found(report, owner, paths):
    """All of it is what the guest `owner` has written, as the guest sees it and in the namespaces."""
    assert [device.text for device in report.devices] == [f"{owner} {slot}" for slot in range(3)]
    assert all(device.holds(owner, device.slot) for device in report.devices)
    assert_written(owner, paths)


def assert_written(owner, paths):
    for slot, (path, each) in enumerate(zip(paths, WANTED.values(), strict=True)):
        assert guest.holds(path, owner, slot, each["seen"])


def assert_attached(vpmem, domain, paths):
    code, listed, err = vpmem("domain", "attach", domain.name, ",".join(WANTED))
    assert code == 0, err
    assert {record["owner"] for record in listed.values()} == {domain.uuid}
    assert {record["device"] for record in listed.values()} == set(map(str, paths))
    domain.unpin()


def assert_zeros(report):
    """The guest finds what it asked for, in that order and on its cells, with nothing in it."""
    assert [device.slot for device in report.devices] == [0, 1, 2]
    assert [device.size for device in report.devices] == [each["seen"] for each in WANTED.values()]
    assert [device.node for device in report.devices] == [each["node"] for each in WANTED.values()]
    assert [device.zeros for device in report.devices] == [True] * 3


def test_attach_to_a_plain_domain(vpmem, first, paths, seen):
    assert not any(map(guest.is_zero, paths))
    assert_attached(vpmem, first, paths)
    assert all(map(guest.is_zero, paths)), "unknown namespaces are wiped before they are given away"
    seen("vpmem domain attach " + ",".join(WANTED), "claimed, wiped, defined")


def test_first_boot(first, paths, seen):
    first.start()
    report = first.report()
    assert_zeros(report)
    assert all(device.holds(first.uuid, device.slot) for device in report.devices)
    assert_written(first.uuid, paths)
    for label, device, path in zip(WANTED, report.devices, paths, strict=True):
        sizes = f"{device.size // MIB} MiB of {path.stat().st_size / MIB:.3g}"
        seen(f"{label}: slot {device.slot}, guest node {device.node}", f"{sizes}, all zeros; the guest fills it")


def test_stop_and_start(first, paths, seen):
    first.shut_down()
    assert_written(first.uuid, paths)
    first.start()
    assert_found(first.report(), first.uuid, paths)
    seen("stop and start", "all bytes kept")


def test_kill_qemu(first, paths, seen):
    os.kill(libvirtd.pid_of_guest(first.uuid), signal.SIGKILL)
    first.wait_until_off()
    assert_written(first.uuid, paths)
    first.start()
    assert_found(first.report(), first.uuid, paths)
    seen("kill -9 of QEMU, and start", "all bytes kept")


def test_hard_reboot(first, paths, seen):
    """As Nova does it: the domain is destroyed, taken away, and defined anew."""
    definition = first.definition()
    first.close()
    first.define(definition)
    first.start()
    assert_found(first.report(), first.uuid, paths)
    seen("hard reboot", "all bytes kept")


def test_a_running_guest_keeps_its_memory(vpmem, first, paths, seen):
    assert vpmem("domain", "detach", first.name)[0] == 4
    code, _, err = vpmem("wipe", "--namespace", "large0")
    assert (code, first.uuid in err) == (4, True)
    code, _, err = vpmem("release", first.uuid, "--wait")
    assert code == 4
    assert f"in use by process {libvirtd.pid_of_guest(first.uuid)} (qemu-system-x86)" in err
    assert_written(first.uuid, paths)
    seen("detach, wipe, release while it runs", "exit code 4: in use by process N (qemu-system-x86)")


def test_also_where_its_process_is_not_seen(vpmem, first, paths, seen):
    """As in a container with PIDs of its own: then libvirt is what tells."""
    code, _, err = vpmem("wipe", prefix=(*libvirtd.ROOT, "unshare", "--pid", "--fork", "--mount-proc"))
    assert code == 4
    assert f"in use by the running domain {first.name}" in err
    assert_written(first.uuid, paths)
    seen("wipe where QEMU's process is not seen", "exit code 4: in use by the running domain NAME")


def test_nobody_else_gets_it_meanwhile(vpmem, next_guest, paths, seen):
    code, _, err = vpmem("domain", "attach", next_guest.name, "SMALL")
    assert code == 4, err
    assert "nvdimm" not in next_guest.definition()
    seen("another attaches it while it runs", "exit code 4")


def test_wiped_when_it_is_off(vpmem, first, paths, seen):
    first.shut_down()
    assert vpmem("wipe")[0] == 0
    assert all(map(guest.is_zero, paths))
    seen("wipe when it is off", "every byte of the namespaces is zero")


def test_the_next_guest_finds_zeros(vpmem, next_guest, first, paths, seen):
    assert_attached(vpmem, next_guest, paths)
    next_guest.start()
    assert_zeros(next_guest.report())
    assert_written(next_guest.uuid, paths)
    seen("the next guest", "finds only zeros")


def test_detach(vpmem, next_guest, paths, seen):
    next_guest.shut_down()
    code, listed, err = vpmem("domain", "detach", next_guest.name, "--wait")
    assert code == 0, err
    assert {record["state"] for record in listed.values()} == {"clean"}
    assert all(map(guest.is_zero, paths))
    assert "nvdimm" not in next_guest.definition()
    seen("vpmem domain detach", "taken out, released, wiped")
