"""Regions as ndctl prints them."""

import json

import pytest

from tests.ndctl_program import region
from vpmem_driver import exception
from vpmem_driver.planning import inventory
from vpmem_driver.sizes import GIB, MIB


def test_regions_alone_in_a_platform_and_in_buses():
    regions = [region(0, 8 * GIB, node=1, namespaces=[("a", GIB)]), region(1, 4 * GIB, iset_id=7)]
    forms = [regions, {"regions": regions, "dimms": [{"dev": "nmem0"}]}, [{"provider": "x", "regions": regions}]]
    first, *others = [inventory.parse(json.dumps(form)) for form in forms]
    assert others == [first, first]
    big, small = first
    assert (big.dev, big.id, big.node, big.available, big.extent) == ("region0", "1000", 1, 7 * GIB, 7 * GIB)
    assert [namespace.name for namespace in big.namespaces] == ["a"]
    assert (small.id, small.node, small.ways) == ("7", None, 1)


def test_one_region_is_printed_as_an_object():
    assert len(inventory.parse(json.dumps(region(0, GIB)))) == 1


def test_an_old_kernel_and_an_interleaved_region():
    old = region(0, GIB, mappings=[{}, {}])
    for key in ("align", "max_available_extent", "iset_id"):
        del old[key]
    (found,) = inventory.parse(json.dumps([old]))
    assert (found.align, found.extent, found.id, found.ways) == (16 * MIB, GIB, "region0", 2)


def test_what_is_left_out():
    empty = {"dev": "namespace0.1", "mode": "raw", "size": 0, "uuid": "00000000-0000-0000-0000-000000000000"}
    regions = [region(0, GIB), region(1, GIB, type="blk"), region(2, GIB, state="disabled")]
    regions[0]["namespaces"].append(empty)
    (found,) = inventory.parse(json.dumps(regions))
    assert (found.dev, found.namespaces) == ("region0", ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no region"),
        ("[]", "no region"),
        ("{}", "no region"),
        ('[{"dev":"namespace0.0","size":5}]', "no region"),
        ("[", "not the JSON"),
        ("[" * 10_000, "not the JSON"),
        ('[{"dev":"region0","size":"128.00 GiB"}]', "--human"),
        (json.dumps([region(0, -GIB)]), "impossible"),
        (json.dumps([region(0, 1 << 60)]), "impossible"),
        (json.dumps([region(0, GIB, align=0)]), "impossible"),
        (json.dumps([region(0, GIB, available_size=2 * GIB)]), "more free bytes"),
        (json.dumps([region(0, GIB, mappings=[{}] * 100)]), "too many NVDIMMs"),
        (json.dumps([region(0, GIB), region(0, GIB)]), "same identity"),
    ],
)
def test_what_is_no_inventory(text, said):
    with pytest.raises(ValueError, match=said):
        inventory.parse(text)


def test_a_directory(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.json").write_text(json.dumps([region(0, GIB)]))
    (tmp_path / "notes.txt").write_text("x")
    assert [found.host for found in inventory.of_files(inventory.files(str(tmp_path)))] == ["a", "b"]
    (tmp_path / "c.json").write_text("x")
    with pytest.raises(exception.InvalidRequest, match="c.json"):
        list(inventory.of_files(inventory.files(str(tmp_path))))


@pytest.mark.parametrize("path", ["", "absent", "a\0b", "{directory}"])
def test_paths_without_an_inventory(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(exception.InvalidRequest):
        list(inventory.of_files(inventory.files(path.format(directory=tmp_path))))
