"""What all kinds of discovery have in common."""

import pathlib
import random
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
