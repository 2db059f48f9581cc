"""What happens to a server's memory where the server moves while it is off."""

import contextlib
import hashlib

import pytest

from tests.cluster.server import Server, assert_filled, assert_new, assert_same, assert_wiped
from tests.machine import guest


@pytest.fixture
def server(cluster, request):
    """A server with SMALL memory on the first host, which its guest has filled; deleted afterwards."""
    host = cluster.computes[0]
    made = Server(cluster, request.node.name.removeprefix("test_").replace("_", "-"), "small", host)
    assert_new(made, made.report(host), made.held(host))
    yield made
    made.delete()


@contextlib.contextmanager
def only(cluster, host):
    """While this lasts, the scheduler chooses no host but this one."""
    others = [other.name for other in cluster.computes if other is not host]
    for name in others:
        cluster.cloud.run("compute", "service", "set", "--disable", name, "nova-compute")
    try:
        yield
    finally:
        for name in others:
            cluster.cloud.run("compute", "service", "set", "--enable", name, "nova-compute")


def assert_grown(server, report, old_size):
    """The guest has found all that it had written, then zeros, in a larger device."""
    (device,) = report.devices
    content = guest.pattern(server.uuid, 0, old_size) + bytes(device.size - old_size)
    assert not device.zeros, "the memory is empty"
    assert device.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_an_extra_spec_with_a_wrong_value_is_refused(cluster):
    with pytest.raises(RuntimeError, match="vpmem:on_resize"):
        cluster.cloud.run("flavor", "set", "--property", "vpmem:on_resize=perhaps", "small")


def test_cold_migrate_confirm(cluster, server, seen):
    source, target = cluster.computes
    old = server.held(source)
    report = server.again(target, "migrate", "--host", target.name, "--wait")
    new = server.held(target)
    assert_same(server, report)
    assert_filled(server, new)
    assert_filled(server, old)
    seen("cold migrate", "the same bytes at the destination, and still on the source")
    server.do("migration", "confirm")
    server.wait_for("ACTIVE")
    assert_wiped(old)
    assert_filled(server, new)
    seen("… confirm", "the same bytes at the destination; the source's are unowned, all zeros")


def test_cold_migrate_revert(cluster, server, seen):
    source, target = cluster.computes
    old = server.held(source)
    server.again(target, "migrate", "--host", target.name, "--wait")
    new = server.held(target)
    assert_same(server, server.again(source, "migration", "revert"))
    server.wait_for("ACTIVE")
    assert server.held(source) == old
    assert_filled(server, old)
    assert_wiped(new)
    seen("cold migrate, revert", "the same bytes on the source; the destination's are unowned, all zeros")


@pytest.mark.parametrize("where", ["other", "same"])
def test_resize(cluster, server, seen, where):
    source = cluster.computes[0]
    target = cluster.computes[1] if where == "other" else source
    (old,) = server.held(source)
    with only(cluster, target):
        report = server.again(target, "resize", "--flavor", "large", "--wait")
    (new,) = [one for one in server.held(target) if one != old]
    assert_grown(server, report, old.seen_size)
    assert_filled(server, [old])
    server.do("resize", "confirm")
    server.wait_for("ACTIVE")
    assert server.held(target) == [new]
    assert_wiped([old])
    seen(f"resize to the {where} host, confirm", "the same bytes, then zeros; the old namespace is unowned, all zeros")
