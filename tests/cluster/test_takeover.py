"""A compute host changes from the in-tree driver to this one, and back.

The in-tree driver runs ndctl to list namespaces, and daxio to zero them. There is no such memory here: programs with
these names stand in, on the same files.
"""

import json

import pytest

from tests.cluster import compute
from tests.cluster.server import Server, assert_filled, assert_new, assert_same, assert_wiped, namespaces
from tests.machine import guest

_NDCTL = """\
#!/bin/sh
[ "$*" = "list -X" ] || exit 2
cat <<'END'
{listing}
END
"""

_DAXIO = """\
#!/bin/sh
[ "$1 $2" = "-z -o" ] || exit 2
exec dd if=/dev/zero of="$3" bs=1M count="$(($(stat -Lc %s "$3") >> 20))" conv=notrunc
"""


@pytest.fixture
def host(cluster):
    """The second compute host, with nova-compute stopped, and what the in-tree driver needs. Restored afterwards."""
    made = cluster.computes[1]
    compute.stop_nova(made)
    listing = []
    for number, one in enumerate(namespaces(made)):
        made.run("ln", "-s", f"{compute.MEMORY}/{one.name}", f"/dev/dax0.{number}")
        device = {"chardev": f"dax0.{number}", "size": one.path.stat().st_size}
        region = {"align": 2 << 20, "devices": [device]}
        listing.append({"mode": "devdax", "name": one.name, "size": device["size"], "daxregion": region})
    made.write("/usr/local/bin/ndctl", _NDCTL.format(listing=json.dumps(listing)), mode=0o755)
    made.write("/usr/local/bin/daxio", _DAXIO, mode=0o755)
    yield made
    compute.stop_nova(made)
    forget(made)
    cluster.start_nova(made)


def forget(host):
    """Move the ledger away, as the README says."""
    host.run("sh", "-ec", "rm -rf /var/lib/vpmem-old; mv /var/lib/vpmem /var/lib/vpmem-old")
    host.run("install", "-d", "-o", "nova", "-g", "nova", "-m", "700", "/var/lib/vpmem")


def test_from_the_in_tree_driver_and_back(cluster, host, seen):
    for number in range(len(namespaces(host))):
        host.run("daxio", "-z", "-o", f"/dev/dax0.{number}")
    cluster.start_nova(host, driver=compute.IN_TREE)
    server = Server(cluster, "taken-over", "small", host)
    server.report(host)
    (name,) = [one.name for one in namespaces(host) if guest.holds(one.path, server.uuid, 0, one.seen_size)]
    seen("create with the in-tree driver", f"the guest fills {name}")
    compute.stop_nova(host)
    forget(host)
    cluster.start_nova(host)
    held = server.held(host)
    assert [one.name for one in held] == [name]
    assert_filled(server, held)
    server.do("stop")
    server.wait_for("SHUTOFF")
    assert_same(server, server.again(host, "start"))
    assert server.held(host) == held
    seen("take-over by this driver, stop, start", f"{name} is claimed and has the same bytes")
    compute.stop_nova(host)
    cluster.start_nova(host, driver=compute.IN_TREE)
    assert server.status() == ("ACTIVE", host.name)
    assert_filled(server, held)
    seen("return to the in-tree driver", "the guest runs on, with the same bytes")
    server.delete()
    assert guest.is_zero(held[0].path)
    compute.stop_nova(host)
    forget(host)
    cluster.start_nova(host)
    # The delete may still have been under way when the in-tree driver was stopped. This one then ends it, and wipes.
    assert {one.state for one in namespaces(host) if one.name != name} == {"unknown"}
    server = Server(cluster, "after-return", "small", host)
    held = server.held(host)
    assert_new(server, server.report(host), held)
    server.delete()
    assert_wiped(held)
    seen("this driver again, with a new ledger", "every namespace is unknown; a new server gets zeros")
