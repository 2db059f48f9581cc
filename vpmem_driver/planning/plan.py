"""Plans: what to cut, what fits, and what is lost. The same structs are the file that ``vpmem provision`` reads.

All sizes are bytes.
"""

import collections
import dataclasses
import itertools
import os
import pathlib
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated

import msgspec

from vpmem_driver import exception, model
from vpmem_driver.planning import cutting, solve
from vpmem_driver.planning.cutting import Cut, Map
from vpmem_driver.planning.inventory import Inventory, Region
from vpmem_driver.planning.wishes import Flavor, Wishes
from vpmem_driver.sizes import GIB, KIB, MIB

VERSION = 1
_UNITS = (("G", GIB), ("M", MIB), ("K", KIB))
_Size = Annotated[int, msgspec.Meta(gt=0)]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One namespace to cut.

    :ivar region: kernel name of its region when the plan was made
    :ivar raw: what it takes of the region
    :ivar size: its size in ``ndctl list``
    :ivar guest: what a guest gets
    """

    region: str
    name: str
    label: str
    raw: _Size
    size: _Size
    guest: _Size


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A namespace that stays as it is.

    :ivar id: its uuid, or its kernel name if it has none
    """

    id: str
    name: str | None
    size: int
    mode: str


class RegionPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A region. The bytes from `kept` on add up to `size`.

    :ivar id: identity that a reboot does not change
    :ivar kept: in namespaces that stay
    :ivar guests: what guests get of new namespaces
    :ivar info_blocks: their info blocks and page descriptors
    :ivar labels: labels of guests, and what alignment takes
    :ivar unused: in no namespace
    """

    dev: str
    id: str
    numa_node: int | None
    size: int
    align: int
    kept: int
    guests: int
    info_blocks: int
    labels: int
    unused: int
    namespaces: tuple[Kept, ...]


class LabelPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A label.

    :ivar size: what a guest gets at least
    :ivar kept: namespaces that it has already
    :ivar new: namespaces to cut
    """

    label: str
    size: int
    kept: int
    new: int


class FlavorPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A flavor.

    :ivar wanted: guests; None if the flavors have weights
    :ivar guests: how many fit
    """

    flavor: str
    pmem: str
    wanted: int | None
    guests: int


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The plan of one host.

    :ivar map: value of ``--map`` of ``ndctl create-namespace``
    :ivar align: value of its ``--align``, in bytes
    :ivar gap: share by which a better plan could be better at most; 0: there is no better one
    :ivar steps: the namespaces to cut, in this order
    :ivar commands: the same as commands for a shell
    :ivar pmem_namespaces: value of the option, after all steps
    """

    version: int
    host: str
    map: Map
    align: _Size
    gap: float
    flavors: tuple[FlavorPlan, ...]
    labels: tuple[LabelPlan, ...]
    regions: tuple[RegionPlan, ...]
    steps: tuple[Step, ...]
    commands: tuple[str, ...]
    pmem_namespaces: str


@dataclasses.dataclass(frozen=True, slots=True)
class Labelled:
    """What a host has for guests already.

    :ivar names: namespaces by label, as ``pmem_namespaces`` has them
    :ivar usable: label, guest's bytes and NUMA node of each one that guests can get
    """

    names: Mapping[str, Sequence[str]]
    usable: Sequence[tuple[str, int, int | None]]


NOTHING_LABELLED = Labelled({}, ())


def command(step: Step, region: str, where: Map, align: int) -> list[str]:
    """Return the command that cuts a namespace in `region`, the current name of its region."""
    words = ["ndctl", "create-namespace", "-r", region, "-m", "devdax", "-M", where.value]
    return [*words, "-a", short(align), "-s", short(step.raw), "-n", step.name]


def short(size: int) -> str:
    """Return a number of bytes as ndctl reads it."""
    name, unit = next((pair for pair in _UNITS if size % pair[1] == 0), ("", 1))
    return f"{size // unit}{name}"


class Planner:
    """Makes the plans of many hosts. Hosts that are alike are solved once.

    :param align: bytes
    :raises InstallationError: a package that it needs is not installed
    """

    def __init__(self, wishes: Wishes, align: int, where: Map) -> None:
        self._wishes = wishes
        self._align = align
        self._map = where
        self._demands = tuple(self._demand(flavor) for flavor in wishes.flavors)
        self._frontiers = solve.frontiers()
        self._solved: dict[solve.Problem, solve.Solution] = {}
        self._smallest: dict[tuple[int, int, int], Cut | None] = {}  # by wanted size, label area and unit

    @property
    def solved(self) -> int:
        """How many hosts that are not alike there were."""
        return len(self._solved)

    def plan(self, host: Inventory, labelled: Labelled = NOTHING_LABELLED) -> Plan:
        """Plan one host.

        :raises InstallationError: the solver is needed and not installed
        :raises HostToolError: the solver failed
        """
        places: list[int | str | None] = [_place(region) for region in host.regions]
        places += [node for _, _, node in labelled.usable]
        nodes = {place: index for index, place in enumerate(dict.fromkeys(places))}
        cuts = [self._cuts(region) for region in host.regions]
        bins = [
            solve.Bin(nodes[_place(region)], region.extent, tuple(None if cut is None else cut.raw for cut in row))
            for region, row in zip(host.regions, cuts, strict=True)
        ]
        problem = solve.Problem(tuple(bins), self._kept(nodes, labelled), self._demands)
        if problem not in self._solved:
            self._solved[problem] = self._frontiers.solve(problem) or solve.solve(problem)
        return self._write(host, labelled, problem, self._solved[problem], cuts)

    def _demand(self, flavor: Flavor) -> solve.Demand:
        pairs = zip(flavor.numbers, self._wishes.labels, strict=True)
        value = sum(number * label.size for number, label in pairs)
        return solve.Demand(flavor.numbers, value, flavor.count, flavor.weight, flavor.one_node)

    def _cuts(self, region: Region) -> list[Cut | None]:
        """Return the smallest namespace of each label in a region."""
        unit = cutting.unit(region.align, region.ways, self._align)
        found = []
        for label in self._wishes.labels:
            key = (label.size, label.label_size, unit)
            if key not in self._smallest:
                self._smallest[key] = cutting.smallest(label.size, unit, self._align, self._map, label.label_size)
            found.append(self._smallest[key])
        return [cut if cut is not None and cut.raw <= region.extent else None for cut in found]

    def _kept(self, nodes: Mapping[int | str | None, int], labelled: Labelled) -> tuple[tuple[int, ...], ...]:
        """Count the namespaces that exist for each node and label, and are large enough."""
        kept = [[0] * len(self._wishes.labels) for _ in nodes]
        for label, guest, node in labelled.usable:
            for index, wanted in enumerate(self._wishes.labels):
                if _same(label, wanted.name) and guest >= wanted.size:
                    kept[nodes[node]][index] += 1
        return tuple(map(tuple, kept))

    def _write(
        self,
        host: Inventory,
        labelled: Labelled,
        problem: solve.Problem,
        solution: solve.Solution,
        cuts: Sequence[Sequence[Cut | None]],
    ) -> Plan:
        steps = list(self._steps(host, solution, cuts))
        flavors = zip(self._wishes.flavors, solution.guests, strict=True)
        kept = [sum(row[index] for row in problem.kept) for index in range(len(self._wishes.labels))]
        new = collections.Counter(step.label for step in steps)
        return Plan(
            version=VERSION,
            host=host.host,
            map=self._map,
            align=self._align,
            gap=solution.gap,
            flavors=tuple(FlavorPlan(flavor.name, flavor.pmem, flavor.count, fit) for flavor, fit in flavors),
            labels=tuple(
                LabelPlan(label.name, label.size, kept[index], new[label.name])
                for index, label in enumerate(self._wishes.labels)
            ),
            regions=tuple(_region(region, steps) for region in host.regions),
            steps=tuple(steps),
            commands=tuple(shlex.join(command(step, step.region, self._map, self._align)) for step in steps),
            pmem_namespaces=_option(labelled, steps),
        )

    def _steps(self, host: Inventory, solution: solve.Solution, cuts: Sequence[Sequence[Cut | None]]) -> Iterator[Step]:
        """Yield the steps: in each region, the largest first."""
        taken = {ns.name for region in host.regions for ns in region.namespaces}
        names = {label.name: _names(label.name, taken) for label in self._wishes.labels}
        for region, row, numbers in zip(host.regions, cuts, solution.cuts, strict=True):
            wanted = zip(self._wishes.labels, row, numbers, strict=True)
            for label, cut, number in sorted(wanted, key=lambda item: -item[0].size):
                for _ in range(number if cut is not None else 0):
                    assert cut is not None  # noqa: S101  the range above
                    yield Step(region.dev, next(names[label.name]), label.name, cut.raw, cut.data, cut.guest)


def _names(label: str, taken: Collection[str | None]) -> Iterator[str]:
    """Yield names of new namespaces of a label."""
    return (name for number in itertools.count() if (name := f"{label}-{number}") not in taken)


def _place(region: Region) -> int | str:
    """Return the NUMA node of a region. One whose node is unknown is a node of its own."""
    return region.dev if region.node is None else region.node


def _same(label: str, other: str) -> bool:
    return model.resource_class(label) == model.resource_class(other)


def _region(region: Region, steps: Sequence[Step]) -> RegionPlan:
    own = [step for step in steps if step.region == region.dev]
    raw, data, guests = (sum(getattr(step, field) for step in own) for field in ("raw", "size", "guest"))
    return RegionPlan(
        dev=region.dev,
        id=region.id,
        numa_node=region.node,
        size=region.size,
        align=region.align,
        kept=region.size - region.available,
        guests=guests,
        info_blocks=raw - data,
        labels=data - guests,
        unused=region.available - raw,
        namespaces=tuple(Kept(ns.identity, ns.name, ns.size, ns.mode) for ns in region.namespaces),
    )


def _option(labelled: Labelled, steps: Sequence[Step]) -> str:
    """Return the value of ``pmem_namespaces``: what it has, and the new namespaces."""
    names = {label: list(found) for label, found in labelled.names.items()}
    for step in steps:
        label = next((label for label in names if _same(label, step.label)), step.label)
        names.setdefault(label, []).append(step.name)
    return ",".join(f"{label}:{'|'.join(found)}" for label, found in names.items())


def read(path: str) -> Plan:
    """Read a plan.

    :raises InvalidRequest: it cannot be read, or is no plan of this version
    """
    try:
        plan = msgspec.json.decode(pathlib.Path(path).read_bytes(), type=Plan)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"it is not a plan: {error}"
        raise _wrong(path, exception.printable(reason)) from error
    if plan.version != VERSION:
        raise _wrong(path, f"its version is {plan.version}, not {VERSION}")
    for what, names in (("region", [each.dev for each in plan.regions]), ("step", [each.name for each in plan.steps])):
        if twice := _repeated(names):
            raise _wrong(path, f"it has {what} {exception.shorten(twice)} twice")
    for step in plan.steps:
        if not step.name.isprintable() or not step.name or step.name.startswith("-"):
            raise _wrong(path, f"'{exception.shorten(step.name)}' is not the name of a namespace")
        if step.region not in {region.dev for region in plan.regions}:
            raise _wrong(path, f"step {exception.shorten(step.name)} has no region")
    return plan


def _repeated(names: Iterable[str]) -> str | None:
    """Return a name that is there more than once."""
    return next((name for name, count in collections.Counter(names).items() if count > 1), None)


def write(plan: Plan, path: pathlib.Path) -> None:
    """Write a plan in one step.

    :raises OSError: it cannot be written; an older file is unchanged
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n")
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _wrong(path: str, reason: str) -> exception.InvalidRequest:
    return exception.InvalidRequest(
        what="plan", value=path, reason=reason, remedy="Make it with 'vpmem plan … --output PLAN'"
    )
