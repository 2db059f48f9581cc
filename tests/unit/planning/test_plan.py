"""Plans of whole hosts."""

import json
import shlex

import msgspec
import pytest

from tests import ndctl_program
from tests.ndctl_program import region
from vpmem_driver import exception
from vpmem_driver.planning import inventory, picture, wishes
from vpmem_driver.planning import plan as plans
from vpmem_driver.planning.cutting import Map
from vpmem_driver.pool import labels
from vpmem_driver.sizes import GIB, MIB

FLAVORS = """
[labels]
LARGE = "1GiB"
SMALL = "256MiB"
[flavors.db]
pmem = "LARGE,SMALL"
[flavors.cache]
pmem = "SMALL"
weight = 2
"""


def host(*regions, name="host"):
    return inventory.Inventory(name, inventory.parse(json.dumps(regions)))


def planner(text=FLAVORS, *, align=2 * MIB, where=Map.DEV):
    return plans.Planner(wishes.parse(text, "flavors.toml"), align, where)


def two_nodes(**more):
    return host(region(0, 8 * GIB, node=0, **more), region(1, 8 * GIB, node=1))


@pytest.mark.parametrize("where", Map)
@pytest.mark.parametrize("align", [4096, 2 * MIB, GIB])
def test_every_byte_is_accounted_for(where, align):
    plan = planner(align=align, where=where).plan(two_nodes())
    assert plan.gap == 0
    for one in plan.regions:
        assert one.kept + one.guests + one.info_blocks + one.labels + one.unused == one.size
        assert min(one.kept, one.guests, one.info_blocks, one.labels, one.unused) >= 0
        assert one.unused < (288 * MIB if align < GIB else 3 * GIB)
    wanted = {label.label: label.size for label in plan.labels}
    assert all(step.guest >= wanted[step.label] for step in plan.steps)
    db, cache = plan.flavors
    assert min(db.guests, cache.guests // 2) > 0
    made = {label.label: label.new for label in plan.labels}
    assert made == {"LARGE": db.guests, "SMALL": db.guests + cache.guests}


def test_ndctl_makes_what_the_plan_says(tmp_path):
    regions = [region(0, 8 * GIB, node=0), region(1, 6 * GIB, node=1)]
    plan = planner().plan(host(*regions))
    for command in plan.commands:
        program, verb, *words = shlex.split(command)
        assert (program, verb) == ("ndctl", "create-namespace")
        assert ndctl_program.create(regions, words) == 0
    made = {namespace["name"]: namespace["size"] for one in regions for namespace in one["namespaces"]}
    assert made == {step.name: step.size for step in plan.steps}
    assert {one["dev"]: one["available_size"] for one in regions} == {one.dev: one.unused for one in plan.regions}


def test_the_option_has_each_namespace_once():
    plan = planner().plan(two_nodes())
    config = labels.parse(plan.pmem_namespaces.split(","))
    assert sorted(entry.namespace for entry in config.entries) == sorted(step.name for step in plan.steps)
    assert set(config.labels) == {"LARGE", "SMALL"}


def test_existing_namespaces_stay_and_those_with_a_label_count():
    text = FLAVORS.replace("weight = 2", "count = 2").replace('pmem = "LARGE,SMALL"', 'pmem = "LARGE,SMALL"\ncount = 1')
    bare = planner(text).plan(two_nodes())
    used = two_nodes(namespaces=[("LARGE-0", 2 * GIB), ("other", GIB)])
    kept = planner(text).plan(used)
    assert [one.new for one in bare.labels] == [one.new for one in kept.labels] == [1, 3]
    assert kept.regions[0].kept == 3 * GIB
    assert [one.name for one in kept.regions[0].namespaces] == ["LARGE-0", "other"]
    assert "LARGE-0" not in {step.name for step in kept.steps}
    labelled = plans.Labelled(
        {"large": ["LARGE-0"], "OTHER": ["x"]}, [("large", 2 * GIB, 0), ("OTHER", GIB, None), ("SMALL", MIB, 0)]
    )
    counted = planner(text).plan(used, labelled)
    assert [(one.kept, one.new) for one in counted.labels] == [(1, 0), (0, 3)]
    assert counted.flavors == bare.flavors
    assert counted.pmem_namespaces == "large:LARGE-0,OTHER:x,SMALL:SMALL-0|SMALL-1|SMALL-2"


def test_regions_of_unknown_nodes_are_nodes_of_their_own():
    text = '[labels]\nL = "1GiB"\n[flavors.a]\npmem = "L,L"\ncount = 1\n'
    regions = (region(0, 2 * GIB), region(1, 2 * GIB))
    assert planner(text).plan(host(*regions)).flavors[0].guests == 0
    assert planner(text + 'nodes = "any"\n').plan(host(*regions)).flavors[0].guests == 1
    assert planner(text).plan(host(region(0, 2 * GIB, node=1), region(1, 2 * GIB, node=1))).flavors[0].guests == 1


def test_only_the_largest_piece_of_a_region_is_used():
    whole = planner().plan(host(region(0, 8 * GIB)))
    pieces = planner().plan(host(region(0, 8 * GIB, max_available_extent=GIB)))
    assert len(whole.steps) > len(pieces.steps) > 0
    assert sum(step.raw for step in pieces.steps) <= GIB
    assert pieces.regions[0].unused > 7 * GIB - 16 * MIB


def test_a_label_that_never_fits():
    plan = planner().plan(host(region(0, 512 * MIB)))
    assert [flavor.guests for flavor in plan.flavors] == [0, 1]
    full = planner().plan(host(region(0, GIB, available_size=0, max_available_extent=0)))
    assert (full.steps, full.pmem_namespaces) == ((), "")


def test_hosts_that_are_alike_are_solved_once():
    one = planner()
    for number in range(50):
        one.plan(host(region(number % 3, 8 * GIB, node=0), name=f"host{number}"))
    assert one.solved == 1
    one.plan(host(region(0, 9 * GIB, node=0)))
    assert one.solved == 2


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = planner().plan(two_nodes(namespaces=[("a", GIB)]))
    path = tmp_path / "plan.json"
    plans.write(plan, path)
    assert plans.read(str(path)) == plan
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


STEP = {"region": "region0", "name": "A-0", "label": "A", "raw": GIB, "size": GIB, "guest": GIB}
REGION = dict.fromkeys(("size", "align", "kept", "guests", "info_blocks", "labels", "unused"), 1) | {
    "dev": "region0",
    "id": "1000",
    "numa_node": 0,
    "namespaces": [],
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "its version is 2"),
        ({"steps": 3}, "it is not a plan"),
        ({"extra": 3}, "it is not a plan"),
        ({"map": "disk"}, "it is not a plan"),
        ({"regions": []}, "has no region"),
        ({"align": 0}, "it is not a plan"),
        ({"steps": [STEP | {"raw": -1}]}, "it is not a plan"),
        ({"steps": [STEP, STEP]}, "it has step A-0 twice"),
        ({"regions": [REGION, REGION]}, "it has region region0 twice"),
    ],
)
def test_what_is_no_plan(tmp_path, change, said):
    path = tmp_path / "plan.json"
    value = msgspec.to_builtins(planner().plan(two_nodes()))
    path.write_bytes(msgspec.json.encode(value | change))
    with pytest.raises(exception.InvalidRequest, match=said):
        plans.read(str(path))


@pytest.mark.parametrize("name", ["", "--region=region0", "a\nb"])
def test_a_name_that_ndctl_must_not_get(tmp_path, name):
    value = msgspec.to_builtins(planner().plan(two_nodes()))
    value["steps"][0]["name"] = name
    path = tmp_path / "plan.json"
    path.write_bytes(msgspec.json.encode(value))
    with pytest.raises(exception.InvalidRequest, match="not the name of a namespace"):
        plans.read(str(path))


@pytest.mark.parametrize("text", ["", "[", "x" * 10_000, "[" * 10_000])
def test_a_file_that_is_no_plan(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    for wrong in (path, tmp_path, tmp_path / "absent"):
        with pytest.raises(exception.InvalidRequest):
            plans.read(str(wrong))


def test_sizes_as_ndctl_reads_them():
    assert [plans.short(size) for size in (GIB, 4112 * MIB, 4096, 5)] == ["1G", "4112M", "4K", "5"]


def test_a_picture_has_a_bar_for_each_region():
    from lxml import etree

    plan = msgspec.structs.replace(planner().plan(two_nodes()), host="<a&b>")
    root = etree.fromstring(picture.draw([(1, plan), (3, plan)]).encode())
    text = "|".join(root.itertext())
    assert text.count("region0") == text.count("region1") == 2
    assert "3 hosts like <a&b>, region0, 8.00 GiB" in text
    widths = [float(one.get("width")) for one in root.iter("{*}rect") if one.find("{*}title") is not None]
    assert sum(widths) == pytest.approx(4 * 570, abs=1)
