"""Find how many namespaces of each label to cut in each region, exactly, with the solver HiGHS.

With counts, guests get as many bytes as possible. With weights, there are as many whole sets of guests as possible, a
set having ``weight`` guests of each flavor; then guests get as many bytes as possible of the rest.

The unknown numbers are: namespaces cut, by region and label; guests of each flavor that takes one node, by node; guests
of each other flavor; namespaces that those take, by node and label; and sets.
"""

import contextlib
import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping

from vpmem_driver import exception

if typing.TYPE_CHECKING:
    from vpmem_driver.planning.frontiers import Frontiers

#: A host with many regions that are alike may need longer than anybody waits.
LIMIT_SECONDS = 10.0

_Term = Mapping[int, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Bin:
    """The free bytes of a region.

    :ivar node: index of its NUMA node
    :ivar raw: bytes that a namespace of each label takes; None if it never fits
    """

    node: int
    room: int
    raw: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Demand:
    """A flavor; see :class:`.wishes.Flavor`.

    :ivar value: bytes that a guest gets
    """

    numbers: tuple[int, ...]
    value: int
    count: int | None
    weight: int
    one_node: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """A host and what is wanted, without names: hosts that are alike have the same problem.

    :ivar kept: namespaces that exist already, by node and label
    """

    bins: tuple[Bin, ...]
    kept: tuple[tuple[int, ...], ...]
    demands: tuple[Demand, ...]

    @property
    def is_counted(self) -> bool:
        """Whether numbers of guests are wanted."""
        return any(demand.count is not None for demand in self.demands)


@dataclasses.dataclass(frozen=True, slots=True)
class Solution:
    """The best numbers.

    :ivar cuts: new namespaces by bin and label
    :ivar guests: guests of each flavor
    :ivar gap: share by which a better solution could be better at most; 0 if there is none
    """

    cuts: tuple[tuple[int, ...], ...]
    guests: tuple[int, ...]
    gap: float


def solve(problem: Problem) -> Solution:
    """Solve it.

    :raises InstallationError: the solver is not installed
    :raises HostToolError: it found nothing in its time
    """
    model = _Model(problem)
    gap = 0.0
    if not problem.is_counted:
        sets, gap = model.most_sets()
        model.require_sets(sets)
    values, other_gap = model.maximize(model.bytes_of_guests())
    return model.solution(values, max(gap, other_gap))


class _Model:
    """The linear model of a problem: a number for each variable, and the constraints on them."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._nodes, self._labels = range(len(problem.kept)), range(len(problem.kept[0]))
        self._upper: list[float] = []
        self._rows: list[tuple[_Term, float]] = []  # sum of the terms <= the bound
        self._cuts = [[self._variable(self._most(box, raw)) for raw in box.raw] for box in problem.bins]
        most = [sum(self._upper[row[label]] for row in self._cuts) + self._kept(label) for label in self._labels]
        self._guests = [self._guest_variables(demand, most) for demand in problem.demands]
        self._taken = [[self._variable(most[label]) for label in self._labels] for _ in self._nodes]
        self._sets = self._variable(max(most, default=0))
        self._fill_bins()
        self._balance_nodes()
        self._balance_others()
        for demand, variables in zip(problem.demands, self._guests, strict=True):
            if demand.count is not None:
                self._rows.append((dict.fromkeys(variables, 1.0), demand.count))

    def _variable(self, most: float) -> int:
        self._upper.append(most)
        return len(self._upper) - 1

    @staticmethod
    def _most(box: Bin, raw: int | None) -> int:
        return 0 if raw is None else box.room // raw

    def _kept(self, label: int) -> int:
        return sum(row[label] for row in self._problem.kept)

    def _guest_variables(self, demand: Demand, most: list[float]) -> list[int]:
        fit = min(most[label] // number for label, number in enumerate(demand.numbers) if number)
        return [self._variable(fit) for _ in (self._nodes if demand.one_node else range(1))]

    def _fill_bins(self) -> None:
        """No region is more than full."""
        for box, variables in zip(self._problem.bins, self._cuts, strict=True):
            divisor = math.gcd(*(raw for raw in box.raw if raw)) or 1  # small numbers, for the solver's tolerances
            terms = {index: raw / divisor for index, raw in zip(variables, box.raw, strict=True) if raw}
            self._rows.append((terms, box.room // divisor))

    def _balance_nodes(self) -> None:
        """Guests take no more namespaces of a label from a node than it has."""
        for node in self._nodes:
            for label in self._labels:
                terms = {self._taken[node][label]: 1.0}
                for demand, variables in zip(self._problem.demands, self._guests, strict=True):
                    if demand.one_node:
                        terms[variables[node]] = demand.numbers[label]
                for box, cuts in zip(self._problem.bins, self._cuts, strict=True):
                    if box.node == node:
                        terms[cuts[label]] = -1.0
                self._rows.append((terms, self._problem.kept[node][label]))

    def _balance_others(self) -> None:
        """Guests that may be on several nodes take as many namespaces of a label as the nodes give them."""
        for label in self._labels:
            terms = {row[label]: -1.0 for row in self._taken}
            for demand, variables in zip(self._problem.demands, self._guests, strict=True):
                if not demand.one_node:
                    terms[variables[0]] = demand.numbers[label]
            self._rows += [(terms, 0.0), ({index: -number for index, number in terms.items()}, 0.0)]

    def bytes_of_guests(self) -> dict[int, float]:
        """Return what is to be as large as possible, in a unit that makes the numbers small.

        With counts, all new namespaces together cost less than a unit, so that guests take existing ones first.
        """
        divisor = math.gcd(*(demand.value for demand in self._problem.demands)) or 1
        pairs = zip(self._problem.demands, self._guests, strict=True)
        wanted = {index: demand.value / divisor for demand, variables in pairs for index in variables}
        if self._problem.is_counted:
            cuts = [index for row in self._cuts for index in row]
            wanted |= dict.fromkeys(cuts, -0.5 / (1 + sum(self._upper[index] for index in cuts)))
        return wanted

    def most_sets(self) -> tuple[int, float]:
        """Return the largest number of sets that fit, and the gap."""
        for demand, variables in zip(self._problem.demands, self._guests, strict=True):
            self._rows.append((dict.fromkeys(variables, -1.0) | {self._sets: demand.weight}, 0.0))
        values, gap = self.maximize({self._sets: 1.0})
        return values[self._sets], gap

    def require_sets(self, sets: int) -> None:
        """Have this number of sets."""
        self._rows.append(({self._sets: -1.0}, -sets))

    def maximize(self, wanted: _Term) -> tuple[list[int], float]:
        """Return the values of all variables for which `wanted` is largest, and the gap."""
        optimize = _optimize()
        weights = _dense(len(self._upper), {index: -weight for index, weight in wanted.items()})
        result = optimize.milp(
            weights,
            integrality=[1] * len(self._upper),
            bounds=optimize.Bounds(0, self._upper),
            constraints=optimize.LinearConstraint(
                [_dense(len(self._upper), terms) for terms, _ in self._rows], ub=[bound for _, bound in self._rows]
            ),
            options={"time_limit": LIMIT_SECONDS, "mip_rel_gap": 0.0},
        )
        if result.x is None:
            raise exception.HostToolError(
                what="Planning",
                reason=f"the solver found no plan within {LIMIT_SECONDS:g} seconds ({result.message})",
                remedy="Ask for fewer labels or flavors at once",
            )
        return [round(value) for value in result.x], float(result.mip_gap or 0.0)

    def solution(self, values: list[int], gap: float) -> Solution:
        """Return the numbers without the namespaces that no guest takes."""
        cuts = [[values[index] for index in row] for row in self._cuts]
        for node in self._nodes:
            for label in self._labels:
                used = values[self._taken[node][label]]
                for demand, variables in zip(self._problem.demands, self._guests, strict=True):
                    used += demand.numbers[label] * values[variables[node]] if demand.one_node else 0
                self._trim(cuts, node, label, max(0, used - self._problem.kept[node][label]))
        guests = tuple(sum(values[index] for index in variables) for variables in self._guests)
        return Solution(tuple(map(tuple, cuts)), guests, gap)

    def _trim(self, cuts: list[list[int]], node: int, label: int, needed: int) -> None:
        for box, row in zip(self._problem.bins, cuts, strict=True):
            if box.node == node:
                row[label] = min(row[label], needed)
                needed -= row[label]


def _dense(length: int, terms: _Term) -> list[float]:
    row = [0.0] * length
    for index, value in terms.items():
        row[index] += value
    return row


def _optimize() -> typing.Any:
    """Return the module with the solver.

    :raises InstallationError: it is not installed
    """
    with _optional():
        from scipy import optimize  # noqa: PLC0415  an optional package, and slow to import
    return optimize


def frontiers() -> "Frontiers":
    """Return what solves small problems without the solver.

    :raises InstallationError: numpy is not installed
    """
    with _optional():
        from vpmem_driver.planning.frontiers import Frontiers  # noqa: PLC0415  numpy is an optional package
    return Frontiers()


@contextlib.contextmanager
def _optional() -> Iterator[None]:
    """:raises InstallationError: a package that is imported in this context is not installed."""
    try:
        yield
    except ImportError as error:
        raise exception.InstallationError(
            reason="vpmem plan needs the Python packages numpy and scipy, which are not installed",
            remedy="Install them in the same environment: pip install 'vpmem_driver[plan]', or Debian's python3-scipy",
        ) from error
