"""What all kinds of discovery have in common."""

import os
import pathlib
import random
import typing
import uuid

import msgspec
import pytest

from tests.unit.discovery import hosts
from vpmem_driver import exception, model
from vpmem_driver.discovery import interface


def namespace(**values: object) -> model.Namespace:
    made = {"uuid": str(uuid.uuid4()), "name": hosts.new_name(), "size": 4096, "align": 4096, "numa_node": None}
    return model.Namespace(**made | {"mode": "devdax", "device": f"/dev/{hosts.new_name()}", "pmem": True} | values)


def test_order_is_by_name_then_uuid_then_device() -> None:
    names = [None, "a", "b"]
    ordered = [namespace(name=name, uuid=identity) for name in names for identity in (None, "1" * 36 + (name or ""))]
    shuffled = random.sample(ordered, len(ordered))
    assert interface.check("ndctl", shuffled) == tuple(ordered)


def test_a_shared_identity_makes_all_unusable() -> None:
    shared, other = namespace(), namespace()
    twice = [shared, namespace(uuid=shared.uuid), other]
    found = {each.name: each for each in interface.check("ndctl", twice)}
    assert found[other.name] == other
    assert found[shared.name] == msgspec.structs.replace(shared, unusable="another namespace has the same uuid")
    assert sum(each.unusable is not None for each in found.values()) == 2


def test_a_reason_that_is_there_stays() -> None:
    shared = namespace(unusable="for a reason")
    found = interface.check("ndctl", [shared, namespace(uuid=shared.uuid)])
    assert sorted(each.unusable for each in found) == ["another namespace has the same uuid", "for a reason"]


def test_to_have_no_identity_is_not_to_share_one() -> None:
    found = interface.check("ndctl", [namespace(uuid=None, unusable="it has no uuid") for _ in range(3)])
    assert {each.unusable for each in found} == {"it has no uuid"}


# What no host can have


def _short(number: int) -> str:
    return f"{number:#x}"[:20]  # str() refuses long ones


def checked(**values: object) -> model.Namespace:
    (found,) = interface.check("ndctl", [namespace(**values)])
    return found


@pytest.mark.parametrize("size", [1 << 52, (1 << 63) - 1, 1 << 63, 1 << 400, 16**4090], ids=_short)
def test_a_size_that_no_processor_addresses_makes_it_unusable(size: int) -> None:
    found = checked(size=size)
    assert "its size 0x" in found.unusable
    assert "4503599627370496" in found.unusable
    assert len(found.unusable) < 200
    assert found.size == 0


@pytest.mark.parametrize("align", [-4096, 0, 512, 4097, 3 << 20, 2 << 30, 1 << 70, 16**4090], ids=_short)
def test_an_alignment_that_no_device_has_makes_it_unusable(align: int) -> None:
    found = checked(align=align)
    assert "its alignment " in found.unusable
    assert len(found.unusable) < 200
    assert found.align == interface.DEFAULT_ALIGN


@pytest.mark.parametrize("node", [-1, 1024, 1 << 31, 1 << 70])
def test_a_numa_node_that_linux_cannot_have_is_unknown(node: int) -> None:
    found = checked(numa_node=node)
    assert (found.numa_node, found.unusable) == (None, None)


def test_the_largest_that_can_be() -> None:
    largest = {"size": (1 << 52) - 4096, "align": 1 << 30, "numa_node": 1023}
    found = checked(**largest)
    assert {key: getattr(found, key) for key in largest} == largest
    assert found.unusable is None


def test_sizes_that_add_up_to_more_than_a_processor_addresses() -> None:
    with pytest.raises(exception.DiscoveryFailed, match="have 4503599627370496 bytes in total"):
        interface.check("ndctl", [namespace(size=1 << 51) for _ in range(2)])


def test_a_reason_stays_and_numbers_are_possible_all_the_same() -> None:
    found = checked(size=-1, align=1, numa_node=1 << 31, unusable="for a reason")
    assert (found.size, found.align, found.numa_node) == (0, interface.DEFAULT_ALIGN, None)
    assert found.unusable == "for a reason"


@pytest.mark.parametrize(("name", "shown"), [("a\0b", "a\\x00b"), ("\x1b[31m", "\\x1b[31m"), ("\udcff", "\\udcff")])
def test_a_name_that_cannot_be_printed_is_escaped(name: str, shown: str) -> None:
    assert checked(name=name).name == shown


def test_a_device_path_that_cannot_be_printed_makes_it_unusable() -> None:
    found = checked(device="/dev/dax0.0\0")
    assert found.device is None
    assert "path" in found.unusable


UUID = "854abf5c-e586-11f1-93cc-99733b9ab34e"
IDENTITIES = {UUID: UUID, UUID.upper(): UUID, "x" * 36: None, UUID.replace("-", "_"): None, UUID[:-1] + "\0": None}


@pytest.mark.parametrize(("text", "uuid"), IDENTITIES.items())
def test_only_a_uuid_is_an_identity(text: str, uuid: str | None) -> None:
    assert interface.canonical_uuid(text) == uuid


NODES = {"0\n": 0, "12": 12, "-1\n": None, "": None, "x\n": None, "\xff": None}


@pytest.mark.parametrize(("text", "node"), NODES.items())
def test_read_node(tmp_path: pathlib.Path, text: str, node: int | None) -> None:
    (tmp_path / "numa_node").write_text(text, encoding="utf-8")
    assert interface.read_node(str(tmp_path / "numa_node")) == node


@pytest.mark.parametrize("path", ["", "gone", ".", "nul\0"])
def test_read_node_where_there_is_none(path: str) -> None:
    assert interface.read_node(path) is None


@pytest.fixture
def null() -> typing.Iterator[int]:
    """It takes root to make a node; this one has the number of the made-up devices."""
    fd = os.open("/dev/null", os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("between", ["", "dax/"], ids=["bus", "class"])
def test_the_uuid_of_a_device_is_that_of_what_claims_the_namespace(tree: hosts.Tree, null: int, between: str) -> None:
    """Class dax, of older kernels and of the module dax_pmem_compat, has a directory in between."""
    identity = str(uuid.uuid4())
    tree.device("nd", "region0/dax0.1", uuid=identity.upper())
    tree.device("dax", f"region0/dax0.1/{between}dax0.0")
    tree.number(f"region0/dax0.1/{between}dax0.0", os.fstat(null).st_rdev)
    assert interface.uuid_of_dax(null, str(tree.root)) == identity


@pytest.mark.parametrize("text", ["", uuid.UUID(int=0), "no uuid", "é" * 36])
def test_a_device_of_which_sysfs_tells_no_uuid_has_none(tree: hosts.Tree, null: int, text: object) -> None:
    tree.device("nd", "region0/dax0.1", uuid=text)
    tree.device("dax", "region0/dax0.1/dax0.0")
    assert interface.uuid_of_dax(null, str(tree.root)) is None
    tree.number("region0/dax0.1/dax0.0", os.fstat(null).st_rdev)
    assert interface.uuid_of_dax(null, str(tree.root)) is None
