"""What happens to a server's memory where something fails while it is copied to another host."""

import pytest

from tests.cluster import compute
from tests.cluster.server import Server, assert_filled, assert_new, assert_same, assert_wiped, namespaces
from tests.machine import guest
from tests.waiting import wait_until

#: The source tries three times to connect to a host that does not answer.
_GIVES_UP_SECONDS = 60


@pytest.fixture(scope="module")
def slow(cluster):
    """The first compute host, where a copy of SMALL memory takes a quarter of a minute; restored afterwards."""
    host = cluster.computes[0]
    compute.stop_nova(host)
    cluster.start_nova(host, copy_rate=1, ssh_command="ssh -o BatchMode=yes -o ConnectTimeout=5")
    yield host
    compute.stop_nova(host)
    cluster.start_nova(host)


@pytest.fixture
def server(cluster, slow, request):
    """A server with SMALL memory on that host, which its guest has filled; deleted afterwards."""
    made = Server(cluster, request.node.name.removeprefix("test_").replace("_", "-"), "small", slow)
    assert_new(made, made.report(slow), made.held(slow))
    yield made
    made.delete()


def receives(host, server):
    """Whether something of the server's content is in a namespace of that host."""
    return [one for one in namespaces(host) if one.owner == server.uuid and one.state == "receiving" and any(head(one))]


def head(namespace):
    with namespace.path.open("rb") as file:
        return file.read(4096)


def test_a_connection_that_breaks(cluster, slow, server, seen):
    target = cluster.computes[1]
    old = server.held(slow)
    server.do("migrate", "--host", target.name)
    wait_until(lambda: receives(target, server), "the copy has begun", pause=0.2)
    slow.run("pkill", "--euid", "nova", "--exact", "ssh")
    report = server.report(target)
    server.wait_for("VERIFY_RESIZE")
    assert_same(server, report)
    server.do("migration", "confirm")
    server.wait_for("ACTIVE")
    assert_wiped(old)
    assert_filled(server, server.held(target))
    seen("cold migrate, the connection breaks", "the copy resumes; the same bytes at the destination")


def test_a_destination_that_dies(cluster, slow, server, seen):
    target = cluster.computes[1]
    held = server.held(slow)
    server.do("migrate", "--host", target.name)
    (lost,) = wait_until(lambda: receives(target, server), "the copy has begun", pause=0.2)
    server.log(slow).unlink()
    target.power_off()
    assert_same(server, server.report(slow, seconds=_GIVES_UP_SECONDS + guest.BOOT_SECONDS))
    server.wait_for("ACTIVE")
    assert server.status() == ("ACTIVE", slow.name)
    assert server.held(slow) == held
    assert_filled(server, held)
    target.power_on()
    cluster.start(target)
    assert_wiped([lost])
    seen("cold migrate, the destination dies", "the server is active on the source, with the same bytes")
