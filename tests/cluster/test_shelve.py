"""What happens to a server's memory where the server leaves all hosts for a while."""

from tests.cluster.server import Server, assert_filled, assert_new, assert_wiped
from tests.waiting import wait_until


def test_shelve_is_refused(cluster, seen):
    host = cluster.computes[0]
    server = Server(cluster, "kept", "small", host)
    held = server.held(host)
    assert_new(server, server.report(host), held)
    server.do("shelve")
    server.wait_for("ACTIVE")
    assert server.held(host) == held
    assert_filled(server, held)
    seen("shelve", "refused: the server is active, with the same bytes")
    server.delete()
    assert_wiped(held)


def test_shelve_with_discard_and_unshelve(cluster, seen):
    source, target = cluster.computes
    server = Server(cluster, "shelved", "shelved", source)
    old = server.held(source)
    assert_new(server, server.report(source), old)
    server.do("shelve", "--offload", "--wait")
    assert_wiped(old)
    seen("shelve with vpmem:on_shelve=discard", "unowned, all zeros")
    server.do("unshelve", "--host", target.name, "--wait")
    new = server.held(target)
    assert_new(server, server.report(target), new)
    seen("… unshelve at the other host", "all zeros in the guest")
    server.delete()
    assert_wiped(new)


def test_unshelve_after_a_resize_that_was_refused(cluster, seen):
    source, target = cluster.computes
    server = Server(cluster, "refused", "both-shelved", source)
    old = server.held(source)
    assert_new(server, server.report(source), old)
    server.do("resize", "--flavor", "small")
    faults = f"SELECT message FROM nova.instance_faults WHERE instance_uuid = '{server.uuid}'"  # noqa: S608  our own
    assert "1 persistent memory devices" in wait_until(lambda: cluster.query(faults), "the refusal", 240, pause=0.5)
    server.wait_for("ACTIVE")
    assert server.held(source) == old
    assert_filled(server, old)
    server.do("shelve", "--offload", "--wait")
    assert_wiped(old)
    server.do("unshelve", "--host", target.name, "--wait")
    new = server.held(target)
    assert [one.name[:-1] for one in new] == [one.name[:-1] for one in old]  # large0, small1: the same labels
    assert_new(server, server.report(target), new)
    seen("resize to fewer devices, then shelve and unshelve", "refused, with the same bytes; then all its devices")
    server.delete()
    assert_wiped(new)
