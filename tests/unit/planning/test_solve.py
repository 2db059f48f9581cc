"""The numbers of the solver, and those that are found without it, against trying everything."""

import itertools
import sys
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from vpmem_driver import exception
from vpmem_driver.planning import frontiers, solve
from vpmem_driver.planning.solve import Bin, Demand, Problem

MOST = 6


def supplies(problem):
    """All that can be cut: for each node, the numbers of namespaces of each label."""
    labels = range(len(problem.kept[0]))
    ways = []
    for box in problem.bins:
        ranges = [range(box.room // raw + 1 if raw else 1) for raw in box.raw]
        ways.append(
            [
                row
                for row in itertools.product(*ranges)
                if sum(n * (raw or 0) for n, raw in zip(row, box.raw, strict=True)) <= box.room
            ]
        )
    for cuts in itertools.product(*ways):
        supply = [list(row) for row in problem.kept]
        for box, row in zip(problem.bins, cuts, strict=True):
            for label in labels:
                supply[box.node][label] += row[label]
        yield cuts, supply


def fits(problem, supply, guests):
    """Whether guests can be placed: each flavor that takes one node on every split of its guests."""
    splits = []
    for demand, number in zip(problem.demands, guests, strict=True):
        nodes = len(supply) if demand.one_node else 1
        splits.append([split for split in itertools.product(range(number + 1), repeat=nodes) if sum(split) == number])
    labels = range(len(supply[0]))
    for chosen in itertools.product(*splits):
        left = [list(row) for row in supply]
        others = [0] * len(labels)
        for demand, split in zip(problem.demands, chosen, strict=True):
            for label in labels:
                if demand.one_node:
                    for node, number in enumerate(split):
                        left[node][label] -= number * demand.numbers[label]
                else:
                    others[label] += split[0] * demand.numbers[label]
        if all(value >= 0 for row in left for value in row) and all(
            sum(row[label] for row in left) >= others[label] for label in labels
        ):
            return True
    return False


def quality(problem, guests):
    """What is to be largest: sets first if there are weights, then bytes."""
    if any(demand.count is not None for demand in problem.demands):
        if any(number > demand.count for demand, number in zip(problem.demands, guests, strict=True)):
            return (-1, 0)
        sets = 0
    else:
        sets = min(number // demand.weight for demand, number in zip(problem.demands, guests, strict=True))
    return (sets, sum(demand.value * number for demand, number in zip(problem.demands, guests, strict=True)))


@st.composite
def problems(draw, *, most=2, room=9, most_kept=1):
    """Small problems: up to `most` nodes, labels, regions and flavors."""
    nodes, labels = draw(st.integers(1, most)), draw(st.integers(1, most))
    raw = st.one_of(st.none(), st.integers(3, 5))
    bins = [
        Bin(draw(st.integers(0, nodes - 1)), draw(st.integers(0, room)), tuple(draw(raw) for _ in range(labels)))
        for _ in range(draw(st.integers(1, most)))
    ]
    kept = tuple(tuple(draw(st.integers(0, most_kept)) for _ in range(labels)) for _ in range(nodes))
    numbers = st.tuples(*[st.integers(0, 2)] * labels).filter(any)
    counted = draw(st.booleans())
    demands = []
    for _ in range(draw(st.integers(1, most))):
        taken = draw(numbers)
        count, weight = (draw(st.integers(0, 3)), 1) if counted else (None, draw(st.integers(1, 2)))
        demands.append(Demand(taken, sum(taken) * draw(st.integers(1, 3)), count, weight, draw(st.booleans())))
    return Problem(tuple(bins), kept, tuple(demands))


def check(problem, found):
    """Check that regions have room for what is cut, and nodes for the guests."""
    assert found.gap == 0
    supply = [list(row) for row in problem.kept]
    for box, row in zip(problem.bins, found.cuts, strict=True):
        assert sum(number * (raw or 0) for number, raw in zip(row, box.raw, strict=True)) <= box.room
        assert not any(number for number, raw in zip(row, box.raw, strict=True) if raw is None)
        for label, number in enumerate(row):
            supply[box.node][label] += number
    assert fits(problem, supply, found.guests)


@settings(max_examples=60)
@given(problems())
def test_nothing_is_better(problem):
    found = solve.solve(problem)
    check(problem, found)
    choices = list(itertools.product(range(MOST + 1), repeat=len(problem.demands)))
    best = max(
        quality(problem, guests)
        for supply in {tuple(map(tuple, supply)) for _, supply in supplies(problem)}
        for guests in choices
        if fits(problem, supply, guests)
    )
    assert quality(problem, found.guests) == best


@settings(max_examples=200)
@given(problems(most=3, room=14, most_kept=0))
def test_without_the_solver_the_result_is_as_good(problem):
    found = frontiers.Frontiers().solve(problem)
    some_may_be_anywhere = {demand.one_node for demand in problem.demands if sum(demand.numbers) > 1} == {False, True}
    assert (found is None) == some_may_be_anywhere
    if found is not None:
        check(problem, found)
        solved = solve.solve(problem)
        assert quality(problem, found.guests) == quality(problem, solved.guests)
        if problem.is_counted:
            assert sum(map(sum, found.cuts)) == sum(map(sum, solved.cuts))


@given(st.lists(problems(most_kept=0), min_size=2, max_size=4))
def test_a_result_does_not_depend_on_hosts_before(several):
    for problem in several:
        shared = frontiers.Frontiers()
        first = [shared.solve(other) for other in several]
        assert shared.solve(problem) == frontiers.Frontiers().solve(problem)
        assert [shared.solve(other) for other in several] == first


def test_what_is_too_large_is_left_to_the_solver():
    demand = Demand((1, 1, 1), 3, None, 1, True)
    assert frontiers.Frontiers().solve(Problem((Bin(0, 10**9, (1, 2, 3)),), ((0, 0, 0),), (demand,))) is None


def test_existing_namespaces_are_left_to_the_solver():
    assert frontiers.Frontiers().solve(Problem((Bin(0, 9, (3,)),), ((1,),), (Demand((1,), 1, 1, 1, True),))) is None


def test_numbers_beyond_32_bits():
    tib = 1 << 40
    problem = Problem(
        tuple(Bin(node, 4000 * tib, (900 * tib, 300 * tib)) for node in range(2)),
        ((0, 0), (0, 0)),
        (Demand((1, 1), 1200 * tib, None, 1, True), Demand((0, 1), 300 * tib, None, 1, True)),
    )
    found = frontiers.Frontiers().solve(problem)
    check(problem, found)
    assert found.guests == (5, 6)


@pytest.mark.parametrize("one_node", [True, False])
@pytest.mark.parametrize("kept", [((2, 0), (0, 0)), ((0, 0), (2, 0))])
def test_guests_take_existing_namespaces_first(one_node, kept):
    bins = (Bin(0, 100, (10, 7)), Bin(1, 100, (10, 7)))
    found = solve.solve(Problem(bins, kept, (Demand((1, 0), 10, 3, 1, one_node),)))
    assert found.guests == (3,)
    assert sum(map(sum, found.cuts)) == 1


def test_real_sizes():
    gib, mib = 1 << 30, 1 << 20
    raw = (4 * gib + 16 * mib, 512 * mib + 16 * mib)
    problem = Problem(
        tuple(Bin(node, 512 * gib, raw) for node in range(2)),
        ((0, 0), (0, 0)),
        (Demand((1, 2), 5 * gib, None, 1, True), Demand((0, 1), gib // 2, None, 4, True)),
    )
    found = frontiers.Frontiers().solve(problem)
    assert found.gap == 0
    assert quality(problem, found.guests) == quality(problem, solve.solve(problem).guests)
    assert found.guests[1] >= 4 * found.guests[0]
    for row in found.cuts:
        assert 512 * gib - sum(n * size for n, size in zip(row, raw, strict=True)) < raw[1]


def test_without_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(exception.InstallationError, match=r"vpmem_driver\[plan\]"):
        solve.solve(Problem((Bin(0, 10, (5,)),), ((0,),), (Demand((1,), 5, 1, 1, True),)))
    monkeypatch.setitem(sys.modules, "vpmem_driver.planning.frontiers", None)
    with pytest.raises(exception.InstallationError, match=r"vpmem_driver\[plan\]"):
        solve.frontiers()


def test_a_solver_that_finds_nothing_in_time(monkeypatch):
    problem = Problem(
        (Bin(0, 1000, (7, 11)),), ((0, 0),), (Demand((2, 1), 5, None, 1, True), Demand((1, 3), 7, None, 2, True))
    )
    monkeypatch.setattr(optimize, "milp", lambda *_, **__: types.SimpleNamespace(x=None, message="time limit"))
    with pytest.raises(exception.HostToolError, match="time limit"):
        solve.solve(problem)


def test_the_gap_of_a_solver_that_ended_early(monkeypatch):
    milp = optimize.milp

    def ended_early(*words, **values):
        result = milp(*words, **values)
        result.mip_gap = 0.25
        return result

    monkeypatch.setattr(optimize, "milp", ended_early)
    assert solve.solve(Problem((Bin(0, 10, (5,)),), ((0,),), (Demand((1,), 5, 1, 1, True),))).gap == 0.25
