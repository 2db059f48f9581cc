"""A server's memory while the server moves and its guest goes on writing."""

from tests.cluster.server import Server, assert_wiped
from tests.machine import guest
from tests.waiting import wait_until


def test_live_migration_while_the_guest_writes(cluster, seen):
    source, target = cluster.computes
    server = Server(cluster, "live", "small", source, image="writing-guest")
    server.report(source)
    (old,) = server.held(source)

    def last(host):
        log = server.log(host)
        return guest.last_written(log.read_text()) if log.exists() else 0

    before = wait_until(
        lambda: (now := last(source)) > guest.WRITTEN_BLOCKS // 8 and now, "the guest writes", 240, pause=0.2
    )
    server.do("migrate", "--live-migration", "--host", target.name, "--wait")
    server.wait_for("ACTIVE")
    assert server.status() == ("ACTIVE", target.name)
    wait_until(lambda: last(target) > before + 8, "the guest goes on writing at the destination", 240, pause=0.2)
    assert server.held(source) == []
    assert_wiped([old])
    server.do("stop")
    server.wait_for("SHUTOFF")
    (new,) = server.held(target)
    expected = guest.written(server.uuid, 0, new.seen_size, last(target))
    assert new.path.read_bytes()[: new.seen_size] == expected
    seen("live migration under writes", f"{last(target)} writes, {before} of them before it: none is lost")
    server.delete()
    assert_wiped([new])
