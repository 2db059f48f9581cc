"""Find the best numbers by trying all that matter. It is exact, and much faster than the solver where hosts are small.

A *frontier* says how many namespaces of several labels, or guests of several flavors, are possible together. It is an
array with an axis for each of them except the last. A value is the largest possible number of the last one, or -1 if
the numbers of the others are not possible together.
"""

import dataclasses
import itertools
import math
import operator
import typing
from collections.abc import Iterator, Sequence

import numpy as np
from numpy import typing as npt

from vpmem_driver.planning.solve import Bin, Demand, Problem, Solution

#: Larger frontiers, and sums of frontiers that take more steps, are left to the solver.
_MOST_CELLS = 1 << 17
_MOST_STEPS = 1 << 20

_Array = npt.NDArray[np.int64]
_Numbers = tuple[int, ...]
_NOTHING: _Numbers = ()


class _TooLargeError(Exception):
    """There is too much to try."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Node:
    """What regions that a guest may be spread over have for guests.

    :ivar bins: their indices
    :ivar parts: frontiers of the namespaces that can be cut from each
    :ivar supplies: from all up to each
    :ivar guests: frontier of the guests
    """

    bins: _Numbers
    parts: Sequence[_Array]
    supplies: Sequence[_Array]
    guests: _Array


class Frontiers:
    """Solves the problems of many hosts. The guests of hosts whose nodes have equal frontiers are placed once."""

    def __init__(self) -> None:
        self._placed: dict[tuple[object, ...], Sequence[_Numbers]] = {}

    def solve(self, problem: Problem) -> Solution | None:
        """Return the best numbers; None if this is a problem for the solver.

        It is if namespaces exist already, if some flavors may be on several nodes and others may not, or if there is
        too much to try.
        """
        nodes = _nodes(problem)
        if nodes is None or any(map(any, problem.kept)):
            return None
        search = _Search(problem)
        try:
            found = [search.node(bins) for bins in nodes]
            key = (problem.demands, *((node.guests.shape, node.guests.tobytes()) for node in found))
            if key not in self._placed:
                self._placed[key] = search.place([node.guests for node in found])
        except _TooLargeError:
            return None
        return search.solution(found, self._placed[key])


def _nodes(problem: Problem) -> list[_Numbers] | None:
    """Return the regions of each node; one node if all guests may be on several; None if only some may."""
    large = {demand.one_node for demand in problem.demands if sum(demand.numbers) > 1}  # others are always on one
    if len(large) > 1:
        return None
    if large == {False}:
        return [tuple(range(len(problem.bins)))]
    found: dict[int, list[int]] = {}
    for index, box in enumerate(problem.bins):
        found.setdefault(box.node, []).append(index)
    return [tuple(bins) for bins in found.values()]


class _Search:
    """One problem. Labels and flavors are in an order of its own: the smallest, of which most fit, are the last."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        columns = zip(*(box.raw for box in problem.bins), strict=True)
        sizes = [min(raw or math.inf for raw in column) for column in columns]
        self._labels = sorted(range(len(sizes)), key=lambda label: -sizes[label])
        self._flavors = sorted(range(len(problem.demands)), key=lambda flavor: -problem.demands[flavor].value)
        self._demands = [problem.demands[flavor] for flavor in self._flavors]
        self._numbers = [tuple(demand.numbers[label] for label in self._labels) for demand in self._demands]

    def node(self, bins: _Numbers) -> _Node:
        """Find out which guests a node can have.

        :raises _TooLargeError: there is too much to try
        """
        parts = [self._supply(self._problem.bins[index]) for index in bins]
        supplies = _sums(parts)
        return _Node(bins, parts, supplies, self._guests(supplies[-1]))

    def _supply(self, box: Bin) -> _Array:
        """Return the frontier of the namespaces that can be cut from a region."""
        raw = [box.raw[label] for label in self._labels]
        others = _indices([box.room // size if size else 0 for size in raw[:-1]])
        rest = box.room - _weighted([size or 0 for size in raw[:-1]], others)
        return np.where(rest < 0, -1, rest // raw[-1] if raw[-1] else 0)

    def _guests(self, supply: _Array) -> _Array:
        """Return the frontier of the guests that can have these namespaces."""
        limits = (*(length - 1 for length in supply.shape), int(supply.max()))
        pairs = zip(self._demands, self._numbers, strict=True)
        guests = _indices([self._most(demand, numbers, limits) for demand, numbers in pairs])
        needs = [_weighted(column, guests) for column in zip(*self._numbers, strict=True)]
        is_inside = np.all([need <= limit for need, limit in zip(needs, limits, strict=True)], axis=0)
        others = tuple(np.minimum(need, limit) for need, limit in zip(needs[:-1], limits[:-1], strict=True))
        fits = is_inside & (needs[-1] <= supply[others])
        return np.asarray(np.count_nonzero(fits, axis=-1) - 1)

    @staticmethod
    def _most(demand: Demand, numbers: _Numbers, limits: _Numbers) -> int:
        most = min(limit // number for number, limit in zip(numbers, limits, strict=True) if number)
        return most if demand.count is None else min(most, demand.count)

    def place(self, nodes: Sequence[_Array]) -> list[_Numbers]:
        """Return the best guests of each node.

        :raises _TooLargeError: there is too much to try
        """
        sums = _sums(nodes)
        if self._problem.is_counted:
            sums[-1] = self._no_more_than_wanted(sums[-1])
        guests = [*_indices([length - 1 for length in sums[-1].shape]), sums[-1]]
        best = sums[-1] >= 0
        for quality in self._qualities(guests):
            best &= quality == quality[best].max()
        others = tuple(np.argwhere(best)[0])
        return _split(nodes, sums, (*others, sums[-1][others]))

    def _no_more_than_wanted(self, total: _Array) -> _Array:
        counts = [demand.count or 0 for demand in self._demands]
        return np.minimum(total[tuple(slice(count + 1) for count in counts[:-1])], counts[-1])

    def _qualities(self, guests: Sequence[_Array]) -> Iterator[_Array]:
        """Yield what is to be as large as possible, the most important first."""
        if not self._problem.is_counted:
            weights = [demand.weight for demand in self._demands]
            yield np.min([number // weight for number, weight in zip(guests, weights, strict=True)], axis=0)
        fits = [
            number.max() > 0 for number in guests
        ]  # the size of a flavor that never fits may be too large for numpy
        yield _weighted([demand.value if fit else 0 for demand, fit in zip(self._demands, fits, strict=True)], guests)
        if self._problem.is_counted:
            yield -_weighted([sum(numbers) for numbers in self._numbers], guests)

    def solution(self, nodes: Sequence[_Node], guests: Sequence[_Numbers]) -> Solution:
        """Return the numbers in the order of the problem."""
        cuts = [_NOTHING] * len(self._problem.bins)
        for node, numbers in zip(nodes, guests, strict=True):
            columns = zip(*self._numbers, strict=True)
            needs = [sum(map(operator.mul, column, numbers)) for column in columns]
            for index, row in zip(node.bins, _split(node.parts, node.supplies, needs), strict=True):
                cuts[index] = _ordered(row, self._labels)
        totals = [sum(column) for column in zip(*guests, strict=True)]
        return Solution(tuple(cuts), _ordered(totals, self._flavors), 0.0)


def _ordered(numbers: Sequence[int], order: Sequence[int]) -> _Numbers:
    """Return the numbers by the indices that `order` has for them."""
    return tuple(number for _, number in sorted(zip(order, map(int, numbers), strict=True)))


def _weighted(factors: Sequence[int], numbers: Sequence[_Array] | _Array) -> _Array:
    """Return the sum of the products."""
    return np.tensordot(np.array(factors, dtype=np.int64), np.array(numbers), 1)


def _indices(most: Sequence[int]) -> _Array:
    """Return all numbers up to these, as an array for each.

    :raises _TooLargeError: there are too many
    """
    if math.prod(number + 1 for number in most) > _MOST_CELLS:
        raise _TooLargeError
    return np.indices([number + 1 for number in most])


def _sums(parts: Sequence[_Array]) -> list[_Array]:
    """Return what the parts up to each have together.

    :raises _TooLargeError: there is too much to try
    """
    return list(itertools.accumulate(parts, _sum))


def _sum(one: _Array, other: _Array) -> _Array:
    small, large = sorted((one, other), key=np.size)
    if small.size * large.size > _MOST_STEPS:
        raise _TooLargeError
    total = np.full([a + b - 1 for a, b in zip(small.shape, large.shape, strict=True)], -1)
    for index in np.argwhere(small >= 0):
        slices = (slice(start, start + length) for start, length in zip(index, large.shape, strict=True))
        place: tuple[typing.Any, ...] = (*slices, ...)  # a view, also if there is no axis
        np.maximum(total[place], np.where(large < 0, -1, large + small[tuple(index)]), out=total[place])
    return total


def _split(parts: Sequence[_Array], sums: Sequence[_Array], wanted: Sequence[int]) -> list[_Numbers]:
    """Return numbers of each part that together are those `wanted`, which must be possible.

    :param sums: those of :func:`_sums`
    """
    found: list[_Numbers] = []
    for part, before in zip(parts[:0:-1], sums[-2::-1], strict=True):
        tried = np.argwhere(part >= 0)
        rest = np.array(wanted[:-1], dtype=int) - tried
        inside = np.all((rest >= 0) & (rest < before.shape), axis=1)
        tried, rest = tried[inside], rest[inside]
        least = before[tuple(rest.T)]
        chosen = np.argmax((least >= 0) & (least + part[tuple(tried.T)] >= wanted[-1]))
        last = min(wanted[-1], part[tuple(tried[chosen])])
        found.append((*tried[chosen], last))
        wanted = (*rest[chosen], wanted[-1] - last)
    return [tuple(wanted), *reversed(found)]
