"""A guest of the virtual host on persistent CXL memory."""

import pytest

from tests.lab import daemon
from tests.lab.cxl import ready
from tests.lab.test_with_guest import booted, line


@pytest.fixture(scope="module")
def owner(host):
    """The guest: a plain domain, defined and off."""
    daemon.start(host)
    made, domain_xml = daemon.small_guest()
    daemon.define(host, domain_xml)
    return made


def test_a_guest_on_cxl_memory(host, owner, seen):
    device = ready.by_name(host)["guest"]["device"]
    host.call("fill", device, "somebody's")
    (row,) = host.vpmem("domain", "attach", "guest", "GUEST", "-f", "json").json
    assert (row["device"], row["state"], row["owner"]) == (device, "claimed", owner)
    assert "<pmem/>" in host.run("virsh", "dumpxml", "guest").out

    written = booted(host)
    assert written.zeros
    assert written.holds(owner, 0)
    assert host.call("content", row["device"], written.size) == line(owner)
    host.run("virsh", "destroy", "guest")
    found = booted(host)
    assert not found.zeros
    assert found.holds(owner, 0)
    host.run("virsh", "destroy", "guest")
    seen(
        f"guest on {row['name']}", f"all zero, fills {written.size >> 20} of {row['size'] >> 20} MiB, finds them again"
    )

    host.vpmem("domain", "detach", "guest", "--wait")
    assert ready.by_name(host)[row["name"]]["state"] == "clean"
    assert not host.call("content", device)
