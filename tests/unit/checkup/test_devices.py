"""Namespaces against the configuration."""

import os
import types

import pytest

from tests.unit.checkup.conftest import levels, namespace, seen
from vpmem_driver import exception, model
from vpmem_driver.checkup import devices
from vpmem_driver.sizes import GIB, KIB, MIB


class Media:
    """A discovery that knows bad ranges by device."""

    def __init__(self, **ranges):
        self.ranges = ranges

    def bad_ranges(self, device):
        found = self.ranges.get(device.removeprefix("/dev/"), ())
        if isinstance(found, Exception):
            raise found
        return found


def media(source, owner=None):
    now = seen(namespace("a"), namespace("b"))
    now.rows = {"uuid-a": types.SimpleNamespace(owner=owner)}
    return list(devices.media(now, source))


def test_good_media():
    assert media(Media()) == []


@pytest.mark.parametrize(("owner", "holder"), [(None, ""), ("somebody", "; it belongs to somebody")])
def test_bad_media(owner, holder):
    (found,) = media(Media(a=((512, 1024),)), owner)
    assert (str(found.level), found.id) == ("failure", "VPMEM-N13")
    assert found.message == f"bad media: bytes 512 to 1535{holder}"


def test_media_that_this_user_cannot_see():
    error = exception.HostToolError(what="Reading", reason="no", remedy="Look")
    (found,) = media(Media(a=error, b=error))
    assert (str(found.level), found.check) == ("unseen", "namespace a")


def conf(wipe_command=None):
    return types.SimpleNamespace(vpmem=types.SimpleNamespace(wipe_command=wipe_command))


def test_labels():
    (found,) = devices.configured(seen(namespace("a"), namespace("b"), namespace("c"), labels={"a": "L", "b": "M"}))
    assert found.message == "2 usable namespaces with 2 labels; 1 more usable without a label"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (seen(), "pmem_namespaces is empty"),
        (seen(namespace("a"), labels={}), "pmem_namespaces is empty"),
        (seen(namespace("a", unusable="it is disabled")), "none of its namespaces is usable"),
    ],
)
def test_nothing_for_guests(now, said):
    (found,) = devices.configured(now)
    assert (str(found.level), found.id) == ("failure", "VPMEM-C19")
    assert said in found.message


def test_a_failed_discovery_is_reported_once():
    assert list(devices.configured(types.SimpleNamespace(found=None))) == []


def test_devices_that_can_be_opened(made):
    made.write("/dev/a")
    (found,) = devices.nodes(made, seen(namespace("a")), conf())
    assert levels([found]) == ["ok"]


def test_a_device_that_does_not_exist(made):
    (found,) = devices.nodes(made, seen(namespace("a")), conf("sudo vpmem-wipe"))
    assert (str(found.level), found.id) == ("failure", "VPMEM-C03")
    assert found.message == "a: /dev/a does not exist"


def test_a_device_that_is_a_directory(made):
    made.path("/dev/a").mkdir(parents=True)
    (found,) = devices.nodes(made, seen(namespace("a")), conf())
    assert "neither a character device nor a file" in found.message


def test_a_device_that_this_user_may_not_open(made, monkeypatch):
    made.write("/dev/a")
    monkeypatch.setattr(os, "access", lambda path, mode, **_: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert levels(devices.nodes(made, seen(namespace("a")), conf())) == ["unseen"]
    assert levels(devices.nodes(made, seen(namespace("a")), conf("sudo vpmem-wipe"))) == ["ok"]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert levels(devices.nodes(made, seen(namespace("a")), conf())) == ["failure"]


@pytest.mark.parametrize(
    ("mode", "pmem", "device_model", "expected"),
    [
        ("file", False, "nvdimm", ["warning"]),
        ("file", False, "virtio-pmem", ["ok"]),
        ("file", False, None, []),
        ("file", True, "nvdimm", []),
        ("devdax", False, "nvdimm", []),
    ],
)
def test_whether_a_flush_reaches_the_disk(mode, pmem, device_model, expected):
    found = list(devices.flushes(seen(namespace("a", mode=mode, pmem=pmem), device_model=device_model)))
    assert levels(found) == expected
    if expected == ["warning"]:
        assert found[0].id == "VPMEM-C21"
        assert found[0].message.startswith("a: it is a nvdimm on a file without DAX")


def test_what_a_guest_loses():
    (found,) = devices.losses(seen(namespace("a"), namespace("b", align=4 * KIB)))
    assert found.message == "labels and alignment take 4194304 bytes of all namespaces"
    (found,) = devices.losses(seen(namespace("a", size=4 * GIB, align=GIB)))
    assert (str(found.level), found.id) == ("warning", "VPMEM-C16")
    assert "a guest gets 3.00 GiB of 4.00 GiB, because of the alignment of 1024.00 MiB" in found.message
    assert levels(devices.losses(seen(namespace("a", size=4 * MIB)))) == ["ok"]
    without = model.Hardware(model.DeviceModel.NVDIMM, 0)
    (found,) = devices.losses(seen(namespace("a", size=4 * GIB, align=GIB), hardware=without))
    assert found.message == "labels and alignment take 0 bytes of all namespaces"


def test_numa_nodes(made):
    (found,) = devices.numa(made, seen(namespace("a"), namespace("b")))
    assert found.message == "namespaces on node 0"
    lost, unknown = devices.numa(
        made, seen(namespace("a", numa_node=3), namespace("b", numa_node=None), namespace("c"))
    )
    assert (lost.message, unknown.message) == ("a: NUMA node 3 does not exist", "b: its NUMA node is unknown")
    assert lost.id == unknown.id == "VPMEM-C17"


def test_where_the_memory_is():
    card = {"provider": "CXL", "persistence_domain": "memory_controller", "memdev": "mem0", "serial": "0x11"}
    found = [
        *devices.hardware(
            seen(
                namespace("a", **card),
                namespace("b", **card),
                namespace("c", provider="hmem", volatile=True),
                namespace("d"),
            )
        )
    ]
    assert levels(found) == ["ok", "ok"]
    assert [each.message for each in found] == [
        "CXL: 2 namespaces, persistence domain memory_controller, mem0, serial 0x11",
        "hmem: 1 volatile namespace",
    ]
