"""What every kind of discovery keeps to. One suite for all of them."""

import concurrent.futures
import os
import random
import uuid

import pytest

from tests.unit.discovery import hosts
from vpmem_driver import discovery, exception


def test_usable_ones_are_complete(host: hosts.Host) -> None:
    found = [namespace for namespace in host.discovery.namespaces() if namespace.unusable is None]
    assert {namespace.name: (namespace.size, namespace.numa_node) for namespace in found} == host.usable
    for namespace in found:
        assert namespace.uuid == str(uuid.UUID(namespace.uuid))
        assert namespace.device is not None
        assert os.path.isabs(namespace.device)
        assert namespace.size % namespace.align == 0
        assert namespace.align & (namespace.align - 1) == 0


def test_unusable_ones_say_why(host: hosts.Host) -> None:
    found = {each.name: each.unusable for each in host.discovery.namespaces() if each.unusable is not None}
    assert found.keys() == host.unusable.keys()
    for name, reason in host.unusable.items():
        assert reason in found[name]


def test_uuids_are_unique_and_devices_too(host: hosts.Host) -> None:
    found = host.discovery.namespaces()
    for values in ([each.uuid for each in found], [each.device for each in found]):
        told = [value for value in values if value is not None]
        assert len(told) == len(set(told))


def test_order_is_stable(host: hosts.Host) -> None:
    found = host.discovery.namespaces()
    assert found == host.discovery.namespaces()
    assert [each.name or "" for each in found] == sorted(each.name or "" for each in found)


def test_find_gives_what_is_listed(host: hosts.Host) -> None:
    for namespace in host.discovery.namespaces():
        if namespace.unusable is None:
            assert host.discovery.find(namespace.uuid) == namespace


def test_find_does_not_list_again_what_it_finds_in_its_place(host: hosts.Host, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [namespace for namespace in host.discovery.namespaces() if namespace.unusable is None]
    monkeypatch.setattr(host.discovery, "namespaces", lambda: pytest.fail("all are listed"))
    for namespace in found:
        assert host.discovery.find(namespace.uuid) == namespace


def test_find_of_two_that_have_changed_places(host: hosts.Host) -> None:
    one, two = random.sample(sorted(host.usable), 2)
    identities = {each.name: each.uuid for each in host.discovery.namespaces()}
    before = [host.discovery.find(identities[name]) for name in (one, two)]
    host.exchange(one, two)
    now = [host.discovery.find(identities[name]) for name in (one, two)]
    assert [each.device for each in now] == [each.device for each in reversed(before)]
    assert [each.size for each in now] == [each.size for each in before]
    listed = {each.uuid: each for each in host.discovery.namespaces()}
    assert now == [listed[each.uuid] for each in before]


def test_find_of_an_unknown_one(host: hosts.Host) -> None:
    unknown = str(uuid.uuid4())
    with pytest.raises(exception.NamespaceMissing, match=unknown):
        host.discovery.find(unknown)


def test_find_of_unusable_ones(host: hosts.Host) -> None:
    uuids = [each.uuid for each in host.discovery.namespaces() if each.unusable is not None and each.uuid is not None]
    assert uuids
    for each in uuids:
        with pytest.raises(exception.NamespaceMissing, match=each):
            host.discovery.find(each)


def test_find_of_one_that_went_away(host: hosts.Host) -> None:
    name, identity = _one_of(host)
    host.remove(name)
    with pytest.raises(exception.NamespaceMissing, match=identity):
        host.discovery.find(identity)


def test_find_follows_a_renumbered_device(host: hosts.Host) -> None:
    name, identity = _one_of(host)
    before = host.discovery.find(identity)
    host.renumber(name)
    now = host.discovery.find(identity)
    assert now.device != before.device
    assert (now.uuid, now.size, now.align) == (before.uuid, before.size, before.align)


def test_two_of_one_uuid_are_both_unusable(host: hosts.Host) -> None:
    name, identity = _one_of(host)
    host.clone(name)
    both = [each for each in host.discovery.namespaces() if each.uuid == identity]
    assert len(both) == 2
    assert all(each.unusable for each in both)
    with pytest.raises(exception.NamespaceMissing):
        host.discovery.find(identity)


def test_nothing_is_written(host: hosts.Host) -> None:
    before = hosts.snapshot(host.root)
    host.discovery.namespaces()
    host.discovery.find(_one_of(host)[1])
    assert hosts.snapshot(host.root) == before


def test_another_one_like_it_can_be_made(host: hosts.Host) -> None:
    options = host.discovery.options()
    assert all(isinstance(value, str) for value in options.values())
    other = discovery.make(host.discovery.name, **options)
    assert other.namespaces() == host.discovery.namespaces()
    assert other.options() == options


def test_several_threads_share_one(host: hosts.Host) -> None:
    expected = host.discovery.namespaces()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        listings = [threads.submit(host.discovery.namespaces) for _ in range(16)]
        assert all(each.result() == expected for each in listings)


def test_what_is_open_is_identified_whatever_path_led_to_it(host: hosts.Host) -> None:
    for namespace in host.discovery.namespaces():
        if namespace.unusable is None:
            fd = host.open(namespace.name)
            try:
                assert host.discovery.identity_of(fd) == namespace.uuid
            finally:
                os.close(fd)


@pytest.mark.parametrize("path", ["/dev/zero", "/", "/proc/self/maps"])
def test_what_is_open_and_no_namespace_is_not_identified_as_one(host: hosts.Host, path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        assert host.discovery.identity_of(fd) not in {each.uuid for each in host.discovery.namespaces() if each.uuid}
    finally:
        os.close(fd)


def _one_of(host: hosts.Host) -> tuple[str, str]:
    name = random.choice(sorted(host.usable))
    return name, next(each.uuid for each in host.discovery.namespaces() if each.name == name)
