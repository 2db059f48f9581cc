"""What happens to a server's memory where its host is down."""

import contextlib

from tests.cluster.server import Server, assert_filled, assert_new, assert_wiped


@contextlib.contextmanager
def down(cluster, host):
    """While this lasts the host has no power, and Nova knows."""
    host.power_off()
    cluster.cloud.run("compute", "service", "set", "--down", host.name, "nova-compute")
    yield
    host.power_on()
    cluster.start(host)
    cluster.cloud.run("compute", "service", "set", "--up", host.name, "nova-compute")


def test_evacuate(cluster, seen):
    source, target = cluster.computes
    server = Server(cluster, "evacuated", "small", source)
    old = server.held(source)
    assert_new(server, server.report(source), old)
    with down(cluster, source):
        server.do("evacuate", "--host", target.name)
        report = server.report(target)
        server.wait_for("ACTIVE")
        new = server.held(target)
        assert_new(server, report, new)
        seen("evacuate", "all zeros at the destination: the content is on the lost host")
    assert_wiped(old)
    assert_filled(server, new)
    seen("… the source is back", "the source's are unowned, all zeros; the destination's are unchanged")
    server.delete()
    assert_wiped(new)


def test_delete_while_the_host_is_down(cluster, seen):
    host = cluster.computes[0]
    server = Server(cluster, "deleted", "small", host)
    held = server.held(host)
    assert_new(server, server.report(host), held)
    with down(cluster, host):
        server.delete()
    assert_wiped(held)
    seen("delete while the host is down", "unowned and all zeros when the host is back")
