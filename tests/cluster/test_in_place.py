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


def test_a_file_without_dax_is_a_virtio_pmem(cluster, seen):
    host = cluster.computes[0]
    server = Server(cluster, "disk", "disk", host)
    held = server.held(host)
    assert [(one.name, one.device_model, one.seen_size) for one in held] == [
        ("disk0", "virtio-pmem", held[0].path.stat().st_size)
    ]
    assert_new(server, server.report(host), held)
    host.run("pkill", "-KILL", "--full", f"qemu.*-uuid {server.uuid}")
    assert_filled(server, held)
    assert_same(server, server.again(host, "reboot", "--hard", "--wait"))
    assert server.held(host) == held
    seen("virtio-pmem: write, flush, kill -9 of QEMU, hard reboot", "the same bytes on the host and in the guest")
    server.do("stop")
    server.wait_for("SHUTOFF")
    server.delete()
    assert_wiped(held)
    seen("virtio-pmem: delete", "unowned, all zeros")
