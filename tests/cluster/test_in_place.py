"""What happens to a server's memory where the server stays on its host."""

from tests.cluster.server import Server, assert_filled, assert_new, assert_same, assert_wiped


def test_create_stop_start_hard_reboot_delete(cluster, seen):
    host = cluster.computes[0]
    server = Server(cluster, "in-place", "both", host)
    held = server.held(host)
    assert [one.name for one in held] == ["large0", "small0"]
    assert_new(server, server.report(host), held)
    seen("create", "all zeros in the guest, which fills them")
    server.do("stop")
    server.wait_for("SHUTOFF")
    assert_filled(server, held)
    assert_same(server, server.again(host, "start"))
    seen("stop, start", "the same bytes on the host and in the guest")
    assert_same(server, server.again(host, "reboot", "--hard", "--wait"))
    assert server.held(host) == held
    assert_filled(server, held)
    seen("hard reboot", "the same bytes")
    server.delete()
    assert_wiped(held)
    seen("delete", "unowned, all zeros")
