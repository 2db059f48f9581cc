"""A guest of the virtual host, started by its libvirtd with KVM and a device-dax namespace."""

import pytest

from tests.lab import daemon, ready
from tests.lab.test_power import listed, power_cycle, wait_until
from tests.machine import guest


def booted(host):
    """Start the guest; what it tells of its one device when it is ready."""
    host.run("virsh", "start", "guest")
    (report,) = wait_until(host, lambda: guest.reports(host.call("read", daemon.LOG)))
    (device,) = report.devices
    return device


def line(owner):
    """What the guest fills its device with."""
    return guest.pattern(owner, 0, 64).decode()


@pytest.fixture(scope="module")
def owner(host):
    """The guest: a plain domain, defined and off."""
    daemon.start(host)
    made, domain_xml = daemon.small_guest()
    daemon.define(host, domain_xml)
    return made


def test_guest_on_device_dax(host, owner, seen):
    host.call("fill", listed(host)["guest"]["device"], "somebody's")
    (row,) = host.vpmem("domain", "attach", "guest", "GUEST", "-f", "json").json
    assert (row["name"], row["state"], row["owner"]) == ("guest", "claimed", owner)

    written = booted(host)
    assert written.zeros
    assert written.holds(owner, 0)
    assert host.call("content", row["device"], written.size) == line(owner)
    seen(f"guest on {row['device']}", f"sees {written.size >> 20} of {row['size'] >> 20} MiB, all zero, and fills them")

    host.vpmem("wipe", "--namespace", "guest", code=4)
    host.run("virsh", "destroy", "guest")
    found = booted(host)
    assert not found.zeros
    assert found.holds(owner, 0)
    seen("the same, after stop and start", "finds what it wrote")


def test_guest_after_power_loss(host, owner, seen):
    before = listed(host)
    domain_xml = host.run("virsh", "dumpxml", "--inactive", "guest").out
    power_cycle(host)
    daemon.start(host)
    daemon.define(host, domain_xml)
    after = listed(host)
    others = [name for name, row in after.items() if row["device"] == before["guest"]["device"]]
    assert others == ["mem"]
    refused = host.run("virsh", "start", "guest", code=1).err
    seen("started with another's path", f"refused: {refused.rpartition('vpmem: ')[2].strip()}")

    host.vpmem("domain", "refresh", "guest")
    host.run("virsh", "start", "guest")
    assert host.call("content", after["guest"]["device"], ready.GUEST_SIZE) == line(owner)
    seen("the same, refreshed", f"starts on {after['guest']['device']}, where its bytes are")

    refused = host.vpmem("release", owner, "--wait", code=4).err
    assert listed(host)["guest"]["state"] == "dirty"
    assert host.call("content", after["guest"]["device"], ready.GUEST_SIZE) == line(owner)
    seen("released while it runs", refused.removeprefix("vpmem: ").strip())
    host.run("virsh", "destroy", "guest")
    host.vpmem("wipe")
    assert listed(host)["guest"]["state"] == "clean"
    assert host.call("content", after["guest"]["device"]) == ""
    seen("wiped when it is off", "all zero")
