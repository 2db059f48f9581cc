"""A server's memory while the server moves and its guest goes on writing."""

import pytest

from tests.cluster.server import Server, assert_wiped
from tests.machine import guest
from tests.waiting import wait_until

#: What a migration, and the guest under TCG, may take.
_SECONDS = 240


@pytest.fixture
def server(cluster, request):
    """A server with SMALL memory on the first host, whose guest writes all the time; deleted afterwards."""
    source = cluster.computes[0]
    made = Server(
        cluster, request.node.name.removeprefix("test_").replace("_", "-"), "small", source, image="writing-guest"
    )
    made.report(source)
    yield made
    made.delete()


def last(server, host):
    """The newest write of which its guest has told on a host; 0 before the first."""
    log = server.log(host)
    return guest.last_written(log.read_text()) if log.exists() else 0


def wait_for_writes(server, host, number):
    return wait_until(
        lambda: (now := last(server, host)) > number and now, f"write {number} on {host.name}", _SECONDS, pause=0.2
    )


def assert_written(server, host):
    """Once the guest is off, the memory that a host has for it contains each write, and nothing else."""
    server.do("stop")
    server.wait_for("SHUTOFF")
    (held,) = server.held(host)
    newest = last(server, host)
    # The power may end between a write and what the guest tells of it.
    expected = [guest.written(server.uuid, 0, held.seen_size, number) for number in (newest, newest + 1)]
    assert held.path.read_bytes()[: held.seen_size] in expected
    return held, newest


def begin_slowly(cluster, server):
    """Begin a live migration that takes minutes; returns its id and what the destination has claimed, when it runs."""
    source, target = cluster.computes
    source.run("virsh", "migrate-setspeed", server.uuid, 1)
    server.do("migrate", "--live-migration", "--host", target.name)
    running = f"SELECT id FROM nova.migrations WHERE instance_uuid = '{server.uuid}' AND status = 'running'"  # noqa: S608
    number = wait_until(lambda: cluster.query(running), "the migration runs", _SECONDS, pause=0.5)
    wait_until(
        lambda: "Data remaining" in source.run("virsh", "domjobinfo", server.uuid), "QEMU sends", _SECONDS, pause=0.5
    )
    (new,) = server.held(target)
    return number, new


def assert_goes_on(server, source, old):
    """The server is active on the source, and its guest writes into the same memory."""
    server.wait_for("ACTIVE")
    assert server.status() == ("ACTIVE", source.name)
    wait_for_writes(server, source, last(server, source) + 8)
    assert server.held(source) == [old]


def test_live_migration_while_the_guest_writes(cluster, server, seen):
    source, target = cluster.computes
    (old,) = server.held(source)
    before = wait_for_writes(server, source, guest.WRITTEN_BLOCKS // 8)
    server.do("migrate", "--live-migration", "--host", target.name, "--wait")
    server.wait_for("ACTIVE")
    assert server.status() == ("ACTIVE", target.name)
    wait_for_writes(server, target, before + 8)
    assert server.held(source) == []
    assert_wiped([old])
    _, newest = assert_written(server, target)
    seen("live migration under writes", f"{newest} writes, {before} of them before it: none is lost")


def test_a_live_migration_that_is_aborted(cluster, server, seen):
    source, _ = cluster.computes
    (old,) = server.held(source)
    number, new = begin_slowly(cluster, server)
    cluster.cloud.run("server", "migration", "abort", server.uuid, number)
    assert_goes_on(server, source, old)
    assert_wiped([new])
    _, newest = assert_written(server, source)
    seen("live migration, aborted", f"{newest} writes on the source: none is lost; the destination's are all zeros")


def test_a_live_migration_whose_destination_dies(cluster, server, seen):
    source, target = cluster.computes
    (old,) = server.held(source)
    _, new = begin_slowly(cluster, server)
    target.power_off()
    server.wait_for("ERROR")  # Nova has asked the destination to give up its claim, without an answer
    target.power_on()
    cluster.start(target)
    assert_wiped([new])
    cluster.cloud.run("server", "set", "--state", "active", server.uuid)
    assert_goes_on(server, source, old)
    _, newest = assert_written(server, source)
    seen(
        "live migration, the destination dies",
        f"{newest} writes on the source: none is lost; the destination's are all zeros",
    )
