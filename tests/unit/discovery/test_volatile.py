"""Volatile memory on the bus dax, and where memory is: what the contract's tests do not ask of every kind."""

import json
import os
import pathlib

import pytest

from tests.unit.discovery import hosts
from vpmem_driver import exception, model
from vpmem_driver.discovery import ndctl, sysfs, volatile
from vpmem_driver.sizes import MIB


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> hosts.Tree:
    return hosts.Tree(tmp_path)


def one(tree: hosts.Tree) -> model.Namespace:
    (namespace,) = sysfs.SysfsDiscovery(str(tree.root)).namespaces()
    return namespace


def identity(root: pathlib.Path, **values: object) -> str | None:
    known = {"serials": ("0x1", "0x2"), "start": 0x240000000, "size": 512 * MIB}
    tree = hosts.Tree(root)
    tree.volatile(hosts.VolatileSlot(**known | values))
    return one(tree).uuid


def test_the_identity_of_memory_never_changes(tmp_path: pathlib.Path) -> None:
    """It is in ledgers."""
    assert identity(tmp_path / "cxl") == "0c804700-cc42-55d5-940a-9d3bfc045783"
    assert identity(tmp_path / "hmem", serials=()) == "264b02ee-bd09-54d9-bf6f-e23f0f17f403"


@pytest.mark.parametrize(
    "other",
    [{"serials": ("0x2", "0x1")}, {"serials": ("0x1",)}, {"serials": ()}, {"start": 0x250000000}, {"size": 510 * MIB}],
)
def test_whatever_differs_makes_it_other_memory(tmp_path: pathlib.Path, other: dict[str, object]) -> None:
    assert identity(tmp_path / "one") != identity(tmp_path / "other", **other)


@pytest.mark.parametrize("other", [{"region": 7}, {"number": 9}, {"node": 1}, {"align": 4096}])
def test_what_a_boot_changes_is_no_part_of_it(tmp_path: pathlib.Path, other: dict[str, object]) -> None:
    assert identity(tmp_path / "one") == identity(tmp_path / "other", **other)


def test_cxl_memory_says_on_which_devices_it_is(tree: hosts.Tree) -> None:
    slot = hosts.VolatileSlot(serials=("0x3", "0x2"))
    tree.volatile(slot)
    found = one(tree)
    assert (found.provider, found.serial, found.persistence_domain) == ("cxl", "0x3,0x2", None)
    assert found.memdev is not None
    serials = [(tree.attribute("cxl", name, "serial").read_text().strip()) for name in found.memdev.split(",")]
    assert serials == ["0x3", "0x2"]
    assert found.name == f"cxl-{slot.start:x}"


def test_serial_numbers_that_cannot_be_read_are_not_half_of_an_identity(tree: hosts.Tree) -> None:
    tree.volatile(hosts.VolatileSlot(serials=("0x3", "")))
    assert (one(tree).serial, one(tree).provider) == (None, "cxl")


def test_an_address_that_only_root_may_read(tree: hosts.Tree) -> None:
    slot = hosts.VolatileSlot()
    tree.volatile(slot)
    path = tree.attribute("dax", slot.dev, "resource")
    path.unlink()
    path.mkdir()  # as root, this test may read everything else
    found = one(tree)
    assert (found.uuid, found.name) == (None, slot.dev)
    assert f"'chmod a+r /sys/bus/dax/devices/{slot.dev}/resource'" in (found.unusable or "")


def test_its_node_is_one_that_the_host_has(tree: hosts.Tree) -> None:
    """CXL memory has no node until it is system RAM: no guest can be bound to that."""
    slot = hosts.VolatileSlot()
    tree.volatile(slot)
    tree.attribute("dax", slot.dev, "numa_node").write_text("-1\n")
    tree.attribute("dax", slot.dev, "target_node").write_text("3\n")
    assert one(tree).numa_node is None
    (tree.root / "devices/system/node/node3").mkdir(parents=True)
    assert one(tree).numa_node == 3


def test_a_host_without_an_nvdimm_bus(tree: hosts.Tree, tmp_path: pathlib.Path) -> None:
    tree.volatile(hosts.VolatileSlot())
    (tree.root / "bus/nd/devices").rmdir()
    of_ndctl = ndctl.NdctlDiscovery(lambda: "", sysfs_root=str(tree.root)).namespaces()
    assert of_ndctl == (one(tree),)
    assert of_ndctl[0].unusable is None


def test_neither_bus_is_an_error(tree: hosts.Tree) -> None:
    (tree.root / "bus/nd/devices").rmdir()
    with pytest.raises(exception.DiscoveryFailed, match="the kernel found no NVDIMM"):
        sysfs.SysfsDiscovery(str(tree.root)).namespaces()


def test_a_bus_that_cannot_be_read_hides_no_namespace_silently(tree: hosts.Tree) -> None:
    (tree.root / "bus/dax/devices").rmdir()
    (tree.root / "bus/dax/devices").write_text("")
    for discovery in (
        sysfs.SysfsDiscovery(str(tree.root)),
        ndctl.NdctlDiscovery(lambda: "", sysfs_root=str(tree.root)),
    ):
        with pytest.raises(exception.DiscoveryFailed, match="bus/dax/devices/? cannot be read"):
            discovery.namespaces()


def test_a_device_of_a_filesystem_is_refused_whatever_ndctl_prints(tree: hosts.Tree) -> None:
    slot = hosts.Slot("fsdev")
    tree.slot(slot)
    of_ndctl = ndctl.NdctlDiscovery(lambda: json.dumps([slot.json()]), sysfs_root=str(tree.root)).namespaces()
    assert of_ndctl == (one(tree),)
    assert of_ndctl[0].mode == "fsdev"
    assert "is bound to fsdev_dax, the driver for filesystems" in (of_ndctl[0].unusable or "")


def test_a_device_that_goes_away_meanwhile(tree: hosts.Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.volatile(hosts.VolatileSlot())
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*listed(path), "dax99.0"])
    assert "dax99.0" not in volatile.links(str(tree.root))


def hardware(tree: hosts.Tree, slot: hosts.Slot) -> list[str | None]:
    of_ndctl = ndctl.NdctlDiscovery(lambda: json.dumps([slot.json()]), sysfs_root=str(tree.root)).namespaces()
    assert of_ndctl == (one(tree),)
    return [getattr(of_ndctl[0], name) for name in ("provider", "persistence_domain", "memdev", "serial")]


def test_an_nvdimm_says_where_it_is(tree: hosts.Tree) -> None:
    slot = hosts.Slot()
    tree.slot(slot)
    assert hardware(tree, slot) == [None] * 4
    tree.device("nd", "platform/ndbus0", provider="ACPI.NFIT")
    values = {"persistence_domain": "cpu_cache", "mapping1": "nmem1,0,4096,1", "mapping0": "nmem0,0,4096,0"}
    tree.device("nd", "platform/ndbus0/region0", mappings=2, **values)
    for number in range(2):
        nmem = tree.device("nd", f"platform/ndbus0/nmem{number}")
        (nmem / "nfit").mkdir()
        (nmem / "nfit" / "serial").write_text(f"0x{number}5\n")
    assert hardware(tree, slot) == ["ACPI.NFIT", "cpu_cache", "nmem0,nmem1", "0x05,0x15"]


def test_persistent_cxl_memory_says_on_which_device_it_is(tree: hosts.Tree) -> None:
    slot = hosts.Slot()
    tree.slot(slot)
    tree.device("nd", "platform/ndbus0", provider="CXL")
    tree.device("nd", "platform/ndbus0/region0", persistence_domain="memory_controller", mapping0="nmem0,0,4096,0")
    nmem = tree.device("nd", "platform/ndbus0/nmem0")
    (nmem / "cxl").mkdir()
    (nmem / "cxl" / "provider").write_text("pmem0\n")
    tree.device("cxl", "pci/mem4", serial="0xbeef")
    tree.device("cxl", "pci/mem4/pmem0")
    assert hardware(tree, slot) == ["CXL", "memory_controller", "mem4", "0xbeef"]


def test_another_region_with_the_same_number_has_hardware_of_its_own(tree: hosts.Tree) -> None:
    slot = hosts.Slot()
    tree.slot(slot)
    tree.device("nd", "platform/ndbus0/region0", persistence_domain="cpu_cache")
    assert hardware(tree, slot)[1] == "cpu_cache"
    (tree.root / "bus/nd/devices/region0").unlink()
    tree.device("nd", "platform/ndbus1/region0", persistence_domain="memory_controller")
    assert hardware(tree, slot)[1] == "memory_controller"
