"""A guest of the virtual host, started by its libvirtd with a device-dax namespace: an emulation in an emulation."""

from tests.lab import daemon
from tests.lab.test_power import listed, wait_until
from tests.machine import guest


def booted(host):
    """Start the guest; what it tells when it is ready."""
    host.run("virsh", "start", "guest")
    (report,) = wait_until(host, lambda: guest.reports(host.call("read", daemon.LOG)))
    return report


def test_guest_on_device_dax(host, seen):
    daemon.start(host)
    host.call("fill", listed(host)["guest"]["device"], "somebody's")
    owner = daemon.define(host)
    (row,) = host.vpmem("domain", "attach", "guest", "GUEST", "-f", "json").json
    name, device = row["name"], row["device"]
    assert (row["state"], row["owner"]) == ("claimed", owner)

    first = booted(host)
    assert first.uuid == owner
    (written,) = first.devices
    assert written.zeros
    assert written.holds(owner, 0)
    line = guest.pattern(owner, 0, 64).decode()
    assert host.call("content", device, written.size) == line
    seen(f"guest on {device}", f"sees {written.size >> 20} of {row['size'] >> 20} MiB, all zero, and fills them")

    host.vpmem("wipe", "--namespace", name, code=4)
    host.run("virsh", "destroy", "guest")
    (found,) = booted(host).devices
    assert not found.zeros
    assert found.holds(owner, 0)
    seen("the same, after stop and start", "finds what it wrote")

    refused = host.vpmem("release", owner, "--wait", code=4)
    assert listed(host)[name]["state"] == "dirty"
    assert host.call("content", device, written.size) == line
    seen("released while it runs", refused.err.splitlines()[0])
    host.run("virsh", "destroy", "guest")
    host.vpmem("wipe")
    assert listed(host)[name]["state"] == "clean"
    assert host.call("content", device) == ""
    seen("wiped when it was off", "all zero")
