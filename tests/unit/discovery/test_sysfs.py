"""Reading sysfs, and that it tells what ndctl tells."""

import json
import os
import pathlib
import random
import shutil

import pytest

from tests.unit.discovery import hosts
from vpmem_driver import exception, model
from vpmem_driver.discovery import ndctl, sysfs


def listed(tree: hosts.Tree) -> tuple[model.Namespace, ...]:
    return sysfs.SysfsDiscovery(str(tree.root)).namespaces()


def one(tree: hosts.Tree) -> model.Namespace:
    (namespace,) = listed(tree)
    return namespace


def failure(root: pathlib.Path) -> exception.DiscoveryFailed:
    with pytest.raises(exception.DiscoveryFailed) as failed:
        sysfs.SysfsDiscovery(str(root)).namespaces()
    assert "(discovery = sysfs)" in str(failed.value)
    return failed.value


# The tree that was recorded is that of the host that the recorded ndctl listings are of, some namespaces later.


def test_recorded_tree_agrees_with_recorded_ndctl(tmp_path: pathlib.Path) -> None:
    tree = hosts.recorded_tree(tmp_path / "sys")
    of_sysfs = {each.uuid: each for each in listed(tree)}
    plain = (hosts.DATA / "ndctl" / "ndctl-list-N.json").read_text()
    of_ndctl = ndctl.NdctlDiscovery(lambda: plain, sysfs_root=str(tree.root)).namespaces()
    assert len(of_ndctl) == 8
    for each in of_ndctl:
        if each.name == "big0":
            # By then its device had been taken from its driver.
            assert of_sysfs[each.uuid].unusable == "its device is disabled; 'daxctl enable-device dax1.0' enables it"
            assert of_sysfs[each.uuid].device == each.device
        else:
            assert of_sysfs[each.uuid] == each
    later = {each.name: each for uuid, each in of_sysfs.items() if uuid not in {each.uuid for each in of_ndctl}}
    assert {name: each.align for name, each in later.items()} == {"off0": 2 << 20, "ns0": 2 << 20, "a4k": 4096}
    assert {each.numa_node for each in later.values()} == {0}


def test_agrees_with_ndctl_in_all_things(tree: hosts.Tree) -> None:
    slots = [hosts.Slot(kind, region=region) for kind in ("devdax", "seed", *hosts.UNUSABLE) for region in (0, 1)]
    random.shuffle(slots)
    for slot in slots:
        tree.slot(slot)
    of_ndctl = ndctl.parse(json.dumps([slot.json() for slot in slots]))
    # What ndctl cannot print, the kernel does not tell either: a split claim's and a disabled one's values.
    assert listed(tree) == of_ndctl


def test_uuid_is_that_of_the_claim_and_not_of_the_namespace(tree: hosts.Tree) -> None:
    slot = hosts.Slot()
    tree.slot(slot)
    assert one(tree).uuid == slot.uuid != slot.raw_uuid


def test_device_is_found_below_the_claim_and_not_by_its_number(tree: hosts.Tree) -> None:
    """Namespaces 0.1 and 0.2 claimed by dax0.2 and dax0.1; devices are named after the namespaces."""
    first, second = hosts.Slot(number=1, claim=2), hosts.Slot(number=2, claim=1)
    for slot in (first, second):
        tree.slot(slot)
    found = {each.uuid: each.device for each in listed(tree)}
    assert found == {first.uuid: "/dev/dax0.1", second.uuid: "/dev/dax0.2"}


def test_dax_devices_of_other_memory_are_namespaces_of_their_own(tree: hosts.Tree) -> None:
    slot, volatile = hosts.Slot(number=1, claim=1), hosts.VolatileSlot(region=1, number=1)
    tree.slot(slot)
    tree.volatile(volatile)
    found = {each.name: (each.volatile, each.pmem, each.device, each.unusable) for each in listed(tree)}
    assert found == {
        slot.name: (False, True, "/dev/dax0.1", None),
        volatile.name: (True, False, "/dev/dax1.1", None),
    }


def test_name_is_kept_to_the_last_blank(tree: hosts.Tree) -> None:
    slot = hosts.Slot(name="two words ")
    tree.slot(slot)
    assert one(tree).name == "two words "


def test_node_is_the_target_node_where_it_has_no_other(tree: hosts.Tree) -> None:
    slot = hosts.Slot()
    tree.slot(slot)
    for node, target, expected in ((-1, 3, 3), (2, 3, 2), (-1, -1, None)):
        tree.attribute("nd", slot.dev, "numa_node").write_text(f"{node}\n")
        tree.attribute("nd", slot.dev, "target_node").write_text(f"{target}\n")
        assert one(tree).numa_node == expected
    for name in ("numa_node", "target_node"):
        tree.attribute("nd", slot.dev, name).unlink()
    assert one(tree).numa_node is None


def test_align_before_linux_5_10(tree: hosts.Tree) -> None:
    slot = hosts.Slot(align=4096)
    tree.slot(slot)
    tree.attribute("dax", slot.devices[0][0], "align").unlink()
    assert one(tree).align == 4096
    tree.attribute("nd", f"dax0.{slot.claim}", "align").unlink()
    assert one(tree).align == 2 << 20


def test_numbers_may_be_hexadecimal(tree: hosts.Tree) -> None:
    slot = hosts.Slot()
    tree.slot(slot)
    tree.attribute("dax", slot.devices[0][0], "size").write_text(f"{slot.size:#x}\n")
    assert one(tree).size == slot.size


def test_attributes_that_have_no_value_now(tree: hosts.Tree) -> None:
    """The kernel answers ENXIO where a device has no value, as opening a socket's file does."""
    slot = hosts.Slot()
    tree.slot(slot)
    path = tree.attribute("dax", slot.devices[0][0], "align")
    path.unlink()
    hosts.no_namespace("socket", path)
    with pytest.raises(OSError, match="No such device"):
        path.read_text()
    assert one(tree).align == slot.align


def test_namespaces_that_go_away_meanwhile(tree: hosts.Tree) -> None:
    slots = [hosts.Slot(), hosts.Slot()]
    for slot in slots:
        tree.slot(slot)
    shutil.rmtree(tree.attribute("nd", slots[0].dev, ".").resolve())
    assert one(tree).name == slots[1].name


def test_label_less_namespaces(tree: hosts.Tree) -> None:
    """Of type nd_namespace_io: they have neither name nor uuid."""
    slot = hosts.Slot()
    tree.slot(slot)
    for name in ("alt_name", "uuid"):
        tree.attribute("nd", slot.dev, name).unlink()
    assert (one(tree).uuid, one(tree).name) == (slot.uuid, None)
    assert "no name" in one(tree).unusable


def test_no_nvdimm_at_all(tmp_path: pathlib.Path) -> None:
    failed = failure(tmp_path)
    assert f"{tmp_path}/bus/nd/devices/ does not exist" in str(failed)
    assert "discovery = directory" in str(failed)


def test_no_namespaces(tree: hosts.Tree) -> None:
    tree.device("nd", "platform/ndbus0")
    tree.device("nd", "platform/ndbus0/region0", size=1 << 30, available_size=1 << 30)
    assert listed(tree) == ()


def test_no_dax_driver(tree: hosts.Tree) -> None:
    slot = hosts.Slot("no-device")
    tree.slot(slot)
    shutil.rmtree(tree.root / "bus" / "dax")
    assert one(tree).unusable == "it has no device"


@pytest.mark.parametrize("bus", ["nd", "dax"])
def test_a_bus_that_cannot_be_listed(tree: hosts.Tree, bus: str) -> None:
    shutil.rmtree(tree.root / "bus" / bus / "devices")
    (tree.root / "bus" / bus / "devices").touch()
    failed = failure(tree.root)
    assert "Not a directory" in str(failed)
    assert f"bus/{bus}/devices" in str(failed)


def test_an_attribute_that_cannot_be_read(tree: hosts.Tree) -> None:
    slot = hosts.Slot()
    tree.slot(slot)
    path = tree.attribute("nd", slot.dev, "alt_name")
    path.unlink()
    path.mkdir()
    assert f"{slot.dev}/alt_name cannot be read (Is a directory)" in str(failure(tree.root))


def test_a_driver_that_cannot_be_told(tree: hosts.Tree) -> None:
    slot = hosts.Slot()
    tree.slot(slot)
    path = tree.attribute("dax", slot.devices[0][0], "driver")
    path.unlink()
    path.touch()
    assert "/driver cannot be read (Invalid argument)" in str(failure(tree.root))


def test_a_number_that_is_none(tree: hosts.Tree) -> None:
    slot = hosts.Slot()
    tree.slot(slot)
    tree.attribute("dax", slot.devices[0][0], "size").write_text("many\n")
    assert "/size cannot be read (it is not a number)" in str(failure(tree.root))


def test_a_number_that_cannot_be_makes_it_unusable(tree: hosts.Tree) -> None:
    slot = hosts.Slot()
    tree.slot(slot)
    tree.attribute("nd", slot.dev, "numa_node").write_text(f"{1 << 31}\n")
    assert one(tree).numa_node is None
    tree.attribute("dax", slot.devices[0][0], "size").write_text("0x" + "f" * 4000 + "\n")  # too long for str()
    assert "its size 0xffff" in one(tree).unusable


def test_a_number_that_int_does_not_take(tree: hosts.Tree) -> None:
    slot = hosts.Slot()
    tree.slot(slot)
    for name in ("numa_node", "target_node"):
        tree.attribute("nd", slot.dev, name).write_text("9" * 4301)
    assert one(tree).numa_node is None
    tree.attribute("dax", slot.devices[0][0], "size").write_text("9" * 4301)
    assert "its size 0x" in one(tree).unusable
    tree.attribute("dax", slot.devices[0][0], "align").write_text("9" * 4301)
    assert one(tree).align == 2 << 20


@pytest.mark.parametrize("holder", ["dax0.0\0", "../../../etc", "dax0.0\nx", "\udcff"])
def test_a_holder_that_is_no_device(tree: hosts.Tree, holder: str) -> None:
    slot = hosts.Slot()
    tree.slot(slot)
    path = tree.attribute("nd", slot.dev, "holder")
    path.write_bytes(os.fsencode(holder) + b"\n")
    assert f"{slot.dev}/holder does not contain the name of a device" in str(failure(tree.root))


def test_options(tmp_path: pathlib.Path) -> None:
    assert sysfs.SysfsDiscovery().options() == {}
    assert sysfs.SysfsDiscovery(str(tmp_path)).options() == {"root": str(tmp_path)}


def test_sysfs_of_this_machine() -> None:
    if not os.path.isdir("/sys/bus/nd/devices"):
        failure(pathlib.Path("/sys"))
        return
    for namespace in sysfs.SysfsDiscovery().namespaces():
        assert namespace.mode
