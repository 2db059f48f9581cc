"""A plan against the host: as it was, half done, and changed."""

import dataclasses
import errno
import json
import os
import subprocess
import types

import msgspec
import pytest

from tests import ndctl_program
from tests.ndctl_program import region
from tests.unit.planning.test_plan import planner
from vpmem_driver import exception
from vpmem_driver.planning import inventory, provision
from vpmem_driver.sizes import GIB, MIB


@pytest.fixture
def regions():
    return [region(0, 4 * GIB, node=0, namespaces=[("old", GIB)]), region(1, 2 * GIB, node=1)]


def seen(regions):
    return inventory.Inventory("host", inventory.parse(json.dumps(regions)))


@pytest.fixture
def plan(regions):
    return planner().plan(seen(regions))


def do(regions, task):
    assert ndctl_program.create(regions, task.command[2:]) == 0


def test_steps_are_done_once_and_in_order(regions, plan):
    names = []
    while tasks := provision.remaining(plan, seen(regions)):
        assert [task.step for task in tasks] == list(plan.steps[len(names) :])
        names.append(tasks[0].step.name)
        do(regions, tasks[0])
    assert names == [step.name for step in plan.steps]


def test_regions_are_renumbered(regions, plan):
    regions[0]["dev"], regions[1]["dev"] = "region1", "region0"
    tasks = provision.remaining(plan, seen(regions))
    by_plan = {task.step.region: task.region.dev for task in tasks}
    assert by_plan == {"region0": "region1", "region1": "region0"}
    assert all(task.command[3] == task.region.dev for task in tasks)


def grown(regions):
    regions[0] |= {"size": 5 * GIB}


def moved(regions):
    regions[0]["numa_node"] = 5


def gone(regions):
    del regions[0]


def other_module(regions):
    regions[0]["iset_id"] = 99


def stranger(regions):
    ndctl_program.add(regions[0], "stranger", 16 * MIB)


def nameless(regions):
    ndctl_program.add(regions[0], None, 16 * MIB)


def lost(regions):
    regions[0]["namespaces"].clear()


def other_uuid(regions):
    regions[0]["namespaces"][0]["uuid"] = "11111111-2222-3333-4444-555555555555"


def other_mode(regions):
    regions[0]["namespaces"][0]["mode"] = "fsdax"


def half_made(regions):
    ndctl_program.add(regions[0], "LARGE-0", GIB)
    regions[0]["namespaces"][-1] |= {"mode": "raw"}


def wrong_size(regions):
    ndctl_program.add(regions[0], "LARGE-0", 32 * MIB)


def twice(regions):
    for _ in range(2):
        ndctl_program.add(regions[0], "LARGE-0", GIB + 32 * MIB)


def fragmented(regions):
    regions[1]["max_available_extent"] = 16 * MIB


def misplaced(regions):
    ndctl_program.add(regions[1], "LARGE-0", GIB + 32 * MIB)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (grown, "region0 does not exist, or its size"),
        (moved, "region0 does not exist, or its size, alignment or node"),
        (gone, "region0 does not exist"),
        (other_module, "region0 does not exist"),
        (stranger, r"namespace0.1 \(stranger\) in region0 is not in the plan"),
        (nameless, r"namespace0.1 \(without a name\) in region0 is not in the plan"),
        (lost, "region0 no longer has old"),
        (other_uuid, r"\(old\) in region0 is not in the plan"),
        (other_mode, "size or mode of .* has changed"),
        (half_made, "ndctl destroy-namespace --force namespace0.1"),
        (wrong_size, "the plan has"),
        (twice, r"\(LARGE-0\) in region0 is not in the plan"),
        (fragmented, "16777216 free bytes in one piece; the plan needs"),
        (misplaced, "in region1"),
    ],
)
def test_the_first_difference_is_said(regions, plan, change, said):
    assert plan.steps[0].name == "LARGE-0"
    assert plan.steps[0].region == "region0"
    change(regions)
    with pytest.raises(exception.HostChanged, match=said) as caught:
        provision.remaining(plan, seen(regions))
    assert "Nothing more was changed" in str(caught.value)


def test_regions_without_a_step_may_change(regions):
    full = region(2, GIB, node=0, available_size=0, max_available_extent=0)
    plan = planner().plan(seen([*regions, full]))
    full |= {"size": 3 * GIB}
    assert len(provision.remaining(plan, seen([*regions, full]))) == len(plan.steps)
    full["namespaces"].append({"dev": "namespace2.0", "size": 5, "name": plan.steps[0].name})
    with pytest.raises(exception.HostChanged, match="has the name of a step"):
        provision.remaining(plan, seen([*regions, full]))


def test_a_plan_without_steps(regions, plan):
    assert provision.remaining(msgspec.structs.replace(plan, steps=()), seen(regions)) == []


def namespace(**values):
    return inventory.Namespace(**{"dev": "namespace0.0", "mode": "fsdax", "size": GIB, "name": "fs"} | values)


def task(plan, regions, *namespaces):
    """A step in a region that has these namespaces."""
    (first, *_) = provision.remaining(plan, seen(regions))
    region = dataclasses.replace(first.region, namespaces=namespaces)
    return dataclasses.replace(first, region=region)


@pytest.fixture
def unowned(monkeypatch):
    monkeypatch.setattr(provision.snapshot, "read", lambda _conf: types.SimpleNamespace(errors=(), rows={}))


@pytest.mark.parametrize(
    ("number", "raised", "said"),
    [
        (errno.EBUSY, exception.NamespaceInUse, "in use by a filesystem or a device on /dev/pmem0"),
        (errno.EACCES, exception.HostToolError, "Opening /dev/pmem0 failed"),
    ],
)
def test_a_block_device_that_cannot_be_had_alone(plan, regions, unowned, monkeypatch, number, raised, said):
    def refuse(path, flags):
        assert (path, flags) == ("/dev/pmem0", os.O_RDONLY | os.O_EXCL)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(provision.os, "open", refuse)
    with pytest.raises(raised, match=said):
        provision.check_unused([task(plan, regions, namespace(blockdev="pmem0"))], None)


@pytest.mark.parametrize("blockdev", [None, "pmem-that-is-not-there", "null"])
def test_a_block_device_that_nobody_has(plan, regions, unowned, blockdev):
    provision.check_unused([task(plan, regions, namespace(blockdev=blockdev))], None)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "No such file or directory"),
        (subprocess.TimeoutExpired("ndctl", 600), "no end within 600 seconds"),
    ],
)
def test_ndctl_that_cannot_be_run(plan, regions, monkeypatch, error, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(provision.subprocess, "run", fail)
    tasks = provision.remaining(plan, seen(regions))
    with pytest.raises(exception.HostToolError, match=said) as caught:
        list(provision.carry_out(plan, tasks, lambda: seen(regions)))
    assert "ndctl create-namespace -r region0" in str(caught.value)


def test_ndctl_that_does_nothing(plan, regions, monkeypatch):
    done = types.SimpleNamespace(returncode=0, stderr=b"")
    monkeypatch.setattr(provision.subprocess, "run", lambda *_, **__: done)
    tasks = provision.remaining(plan, seen(regions))
    with pytest.raises(exception.HostChanged, match="ndctl made LARGE-0, but not as the plan has it"):
        list(provision.carry_out(plan, tasks, lambda: seen(regions)))
