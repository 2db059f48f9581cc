"""What all kinds of discovery have in common."""

import os
import pathlib
import random
import typing
import uuid

import msgspec
import pytest

from tests.unit.discovery import hosts
from vpmem_driver import model
from vpmem_driver.discovery import base


def namespace(**values: object) -> model.Namespace:
    made = {"uuid": str(uuid.uuid4()), "name": hosts.new_name(), "size": 4096, "align": 4096, "numa_node": None}
    return model.Namespace(**made | {"mode": "devdax", "device": f"/dev/{hosts.new_name()}", "pmem": True} | values)


def test_order_is_by_name_then_uuid_then_device() -> None:
    names = [None, "a", "b"]
    ordered = [namespace(name=name, uuid=identity) for name in names for identity in (None, "1" * 36 + (name or ""))]
    shuffled = random.sample(ordered, len(ordered))
    assert base.mark_shared_identities(shuffled) == tuple(ordered)


def test_a_shared_identity_makes_all_unusable() -> None:
    shared, other = namespace(), namespace()
    twice = [shared, namespace(uuid=shared.uuid), other]
    found = {each.name: each for each in base.mark_shared_identities(twice)}
    assert found[other.name] == other
    assert found[shared.name] == msgspec.structs.replace(shared, unusable="another namespace has the same uuid")
    assert sum(each.unusable is not None for each in found.values()) == 2


def test_a_reason_that_is_there_stays() -> None:
    shared = namespace(unusable="for a reason")
    found = base.mark_shared_identities([shared, namespace(uuid=shared.uuid)])
    assert sorted(each.unusable for each in found) == ["another namespace has the same uuid", "for a reason"]


def test_to_have_no_identity_is_not_to_share_one() -> None:
    found = base.mark_shared_identities([namespace(uuid=None, unusable="it has no uuid") for _ in range(3)])
    assert {each.unusable for each in found} == {"it has no uuid"}


NODES = {"0\n": 0, "12": 12, "-1\n": None, "": None, "x\n": None, "\xff": None}


@pytest.mark.parametrize(("text", "node"), NODES.items())
def test_read_node(tmp_path: pathlib.Path, text: str, node: int | None) -> None:
    (tmp_path / "numa_node").write_text(text, encoding="utf-8")
    assert base.read_node(str(tmp_path / "numa_node")) == node


@pytest.mark.parametrize("path", ["", "gone", ".", "nul\0"])
def test_read_node_where_there_is_none(path: str) -> None:
    assert base.read_node(path) is None


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
    assert base.uuid_of_dax(null, str(tree.root)) == identity


@pytest.mark.parametrize("text", ["", uuid.UUID(int=0), "no uuid", "é" * 36])
def test_a_device_of_which_sysfs_tells_no_uuid_has_none(tree: hosts.Tree, null: int, text: object) -> None:
    tree.device("nd", "region0/dax0.1", uuid=text)
    tree.device("dax", "region0/dax0.1/dax0.0")
    assert base.uuid_of_dax(null, str(tree.root)) is None
    tree.number("region0/dax0.1/dax0.0", os.fstat(null).st_rdev)
    assert base.uuid_of_dax(null, str(tree.root)) is None
