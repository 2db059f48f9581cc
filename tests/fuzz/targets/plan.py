"""A plan, as ``vpmem provision`` is given it, for a host that is as the plan saw it."""

import json
import pathlib
import random
import shlex
from collections.abc import Iterator

import msgspec

from tests.fuzz import mutation
from tests.fuzz.finding import literal
from tests.fuzz.target import Target, words
from tests.ndctl_program import region
from vpmem_driver.planning import inventory, plan, provision
from vpmem_driver.planning.cutting import Map
from vpmem_driver.sizes import GIB, MIB

HOST = inventory.Inventory("host", inventory.parse(json.dumps([region(0, 4 * GIB, node=0), region(1, 2 * GIB)])))


def made() -> plan.Plan:
    """A plan for it: two namespaces in the first region."""
    steps = tuple(
        plan.Step(region="region0", name=f"A-{n}", label="A", raw=GIB, size=GIB - 32 * MIB, guest=GIB - 34 * MIB)
        for n in (0, 1)
    )
    regions = tuple(
        plan.RegionPlan(
            dev=found.dev,
            id=found.id,
            numa_node=found.node,
            size=found.size,
            align=found.align,
            **dict.fromkeys(("kept", "guests", "info_blocks", "labels", "unused"), 0),
            namespaces=(),
        )
        for found in HOST.regions
    )
    return plan.Plan(
        version=plan.VERSION,
        host="host",
        map=Map.DEV,
        align=2 * MIB,
        gap=0.0,
        flavors=(plan.FlavorPlan(flavor="db", pmem="A", wanted=None, guests=2),),
        labels=(plan.LabelPlan(label="A", size=GIB // 2, kept=0, new=2),),
        regions=regions,
        steps=steps,
        commands=tuple(shlex.join(plan.command(step, "region0", Map.DEV, 2 * MIB)) for step in steps),
        pmem_namespaces="A:A-0|A-1",
    )


def carry_out(path: pathlib.Path, data: bytes) -> None:
    """Read a plan, and find what remains to be done."""
    path.write_bytes(data)
    tasks = provision.remaining(plan.read(str(path)), HOST)
    for task in tasks:
        assert task.command[:2] == ["ndctl", "create-namespace"]
        assert all(isinstance(word, str) and word.isprintable() and word for word in task.command)
        assert 0 < task.step.raw <= task.region.extent
    assert len({task.step.name for task in tasks}) == len(tasks)


class Fuzzed(Target):
    words = words(
        "version host map align gap steps commands pmem_namespaces regions labels flavors region0 dev mem raw"
    )

    def seeds(self) -> Iterator[bytes]:
        yield msgspec.json.encode(made())

    def run(self, data: bytes) -> None:
        carry_out(self.root / "plan.json", data)

    def shown(self, data: bytes) -> str:
        return f'carry_out(tmp_path / "plan.json", {literal(data)})'

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        return mutation.json_document(data, chance, self.words, self.max_bytes)
