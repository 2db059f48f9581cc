"""vpmem_driver._fastalloc against its plain Python model, and against what it promises."""

import copy
import random
import tracemalloc
import uuid
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.pool import fastalloc_model
from tests.unit.pool.fastalloc_model import Row
from vpmem_driver import _fastalloc
from vpmem_driver._fastalloc import CLAIMED, CLEAN, DIRTY, UNAVAILABLE, UNKNOWN, NamespaceTable

RELAXED = settings(deadline=None)

GIB = 2**30


def table_of(rows: Sequence[Row]) -> NamespaceTable:
    return NamespaceTable(
        [row.label for row in rows],
        [row.size for row in rows],
        [row.node for row in rows],
        [row.name for row in rows],
        [row.state for row in rows],
    )


def snapshot(table: NamespaceTable) -> object:
    """All that a table tells: the counts, and the order in which it would hand out what is free of each label."""
    counts = [table.counts(label) for label in range(5)]
    return counts, [table.choose([label] * sum(count[:3])) for label, count in enumerate(counts) if sum(count[:3])]


def outcome(function: Callable[..., object], *arguments: object) -> object:
    """What it returns, or the class of what it raises."""
    try:
        return function(*arguments)
    except (ValueError, IndexError) as error:
        return type(error)


def clean(label: int = 0, *, size: int = GIB, node: int = 0, name: str = "ns", state: int = CLEAN) -> Row:
    return Row(label, size, node, name, state)


def rows_of(*, labels: int = 2, nodes: int = 3, sizes: int = 3) -> st.SearchStrategy[Row]:
    return st.builds(
        lambda label, size, node, name, state: Row(label, size * GIB, node, name, state),
        st.integers(-1, labels),
        st.integers(1, sizes),
        st.integers(-1, nodes),
        st.sampled_from(["ns0", "ns1", "ns10", "ns2", "ñs"]),
        # Most are free, or there would be little to choose from.
        st.integers(CLEAN, UNKNOWN) | st.integers(CLEAN, UNAVAILABLE),
    )


class AgainstModel(RuleBasedStateMachine):
    """Whatever is put, table and model choose alike."""

    table: NamespaceTable
    model: fastalloc_model.TableModel

    @initialize(rows=st.lists(rows_of(), max_size=11))
    def make(self, rows: list[Row]) -> None:
        self.table = table_of(rows)
        self.model = fastalloc_model.TableModel(rows)

    def same(self, method: str, *arguments: object) -> object:
        expected = outcome(getattr(self.model, method), *arguments)
        assert outcome(getattr(self.table, method), *arguments) == expected
        return expected

    @rule(labels=st.lists(st.integers(0, 3), max_size=5), node=st.integers(-1, 4))
    def choose(self, labels: list[int], node: int) -> None:
        fresh = table_of(self.model.rows)
        expected = self.same("choose", labels, node)
        assert outcome(fresh.choose, labels, node) == expected  # the way to a state does not matter

    @rule(labels=st.permutations([0, 1, 2] * 2), data=st.data())
    def claim_most(self, labels: list[int], data: st.DataObject) -> None:
        wanted = [label for label in labels if self.model.free_of(label)][: data.draw(st.integers(1, 6))]
        for index in self.same("choose", wanted, data.draw(st.integers(-1, 3))) or () if wanted else ():
            self.same("put", index, CLAIMED)

    @rule(index=st.integers(-1, 11), state=st.integers(-1, 5))
    def put(self, index: int, state: int) -> None:
        self.same("put", index, state)

    @invariant()
    def alike(self) -> None:
        for label in range(5):
            assert self.table.counts(label) == self.model.counts(label)


AgainstModel.TestCase.settings = settings(RELAXED, max_examples=400, stateful_step_count=40)
test_every_choice_as_in_the_model = AgainstModel.TestCase


@RELAXED
@given(
    rows=st.lists(rows_of(nodes=5), min_size=6, max_size=40),
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=20),
    node=st.integers(-1, 5),
)
def test_choose_as_in_the_model_of_node_sets(rows: list[Row], labels: list[int], node: int) -> None:
    model = fastalloc_model.ByNodeModel(rows)
    assert table_of(rows).choose(labels, node) == model.choose(labels, node)


@settings(RELAXED, max_examples=15)
@given(seed=st.integers(0, 2**32), node=st.integers(-1, 25))
def test_choose_over_more_than_16_nodes_as_in_the_greedy_model(seed: int, node: int) -> None:
    chance = random.Random(seed)
    places = [(label, other) for label in range(3) for other in range(25) for _ in range(chance.randint(1, 3))]
    rows = [clean(label, size=chance.randint(1, 3), node=other) for label, other in places]
    for row in chance.sample(rows, 40):
        row.state = chance.choice([DIRTY, UNKNOWN])
    for row in chance.sample(rows, 7):
        row.state = UNAVAILABLE  # still at least 17 nodes have some of each label, besides the wanted one
    table, model = table_of(rows), fastalloc_model.GreedyModel(rows)
    for _ in range(3):  # one search leaves nothing behind that the next one sees
        labels = [chance.randrange(3) for _ in range(chance.randint(1, 30))]
        expected = model.choose(labels, node)
        assert table.choose(labels, node) == expected


@pytest.mark.parametrize(
    ("nodes", "times", "expected"),
    [(16, 1, {1, 2}), (17, 1, {0, 1, 2}), (16, 42, {1, 2}), (16, 43, {0, 1, 2})],
    ids=["16 nodes", "more nodes", "252 labels", "258 labels"],
)
def test_choose_looks_at_every_set_of_nodes_within_its_bounds(nodes: int, times: int, expected: set[int]) -> None:
    # The greedy way begins with node 0, which has most, and needs three nodes where two would do.
    spread = {0: [0, 0, 1, 1], 1: [0, 0, 0], 2: [1, 1, 1]}
    rows = [clean(label, node=node) for node, labels in spread.items() for label in labels * times]
    rows += [clean(0, node=node) for node in range(3, nodes)]
    chosen = table_of(rows).choose([0, 0, 0, 1, 1, 1] * times)
    assert chosen is not None
    assert {rows[index].node for index in chosen} == expected


def test_choose_prefers_any_number_of_dirty_to_one_unknown() -> None:
    rows = [clean(label, node=0, state=UNKNOWN if label == 0 else CLEAN) for label in range(3)]
    rows += [clean(label, node=1, state=DIRTY) for label in range(3)]
    assert table_of(rows).choose([0, 1, 2]) == (3, 4, 5)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (clean(node=1, state=UNKNOWN), clean(node=0)),
        (clean(state=CLEAN, size=3), clean(state=DIRTY, size=2)),
        (clean(state=DIRTY, size=3), clean(state=UNKNOWN, size=2)),
        (clean(size=2, name="ns1"), clean(size=3, name="ns0")),
        (clean(name="ns0"), clean(name="ns1")),
    ],
    ids=["wanted node", "clean before dirty", "dirty before unknown", "smallest", "name"],
)
@pytest.mark.parametrize("turned", [False, True])
def test_choose_prefers(better: Row, worse: Row, turned: bool) -> None:
    rows = [worse, better] if turned else [better, worse]
    assert table_of(rows).choose([0], 1) == (int(turned),)


def test_choose_prefers_fewest_nodes_to_clean() -> None:
    rows = [clean(0, node=0), clean(1, node=1), clean(0, node=2, state=UNKNOWN), clean(1, node=2, state=UNKNOWN)]
    assert table_of(rows).choose([1, 0]) == (3, 2)


def test_choose_counts_the_unknown_node_as_one() -> None:
    rows = [clean(0, node=-1, size=9), clean(1, node=-1, size=9), clean(0, node=0), clean(1, node=1)]
    assert table_of(rows).choose([0, 1]) == (0, 1)


def test_choose_goes_by_input_order_where_size_and_name_are_equal() -> None:
    assert table_of([clean() for _ in range(200)]).choose([0] * 3) == (0, 1, 2)


def test_choose_takes_nothing_and_put_does() -> None:
    table = table_of([clean(name="a"), clean(name="b", state=DIRTY), clean(name="c", state=UNKNOWN)])
    for index in range(3):
        assert table.choose([0]) == table.choose([0]) == (index,)
        assert table.choose([0] * (4 - index)) is None
        table.put(index, CLAIMED)
    assert table.choose([0]) is None
    assert table.counts(0) == (0, 0, 0, 3, 0)
    table.put(1, CLEAN)
    assert table.choose([0]) == (1,)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 4095, 4096, 4097, 262_145])
def test_choose_to_the_last_where_bitmaps_gain_a_level(count: int) -> None:
    table = NamespaceTable([0] * count, [1] * count, [0] * count, ["ns"] * count, [CLEAN] * count)
    assert table.choose([0] * count) == tuple(range(count))
    assert table.choose([0] * (count + 1)) is None
    for index in range(count - 1):
        table.put(index, CLAIMED)
    assert table.choose([0]) == (count - 1,)
    table.put(count - 1, UNAVAILABLE)
    assert table.choose([0]) is None
    table.put(0, UNKNOWN)
    assert table.choose([0]) == (0,)


@pytest.mark.parametrize("nodes", [1, 3, 9, 40])
def test_choose_of_10000_labels(nodes: int) -> None:
    chance = random.Random(nodes)
    rows = [
        clean(index % 50, size=chance.randint(1, 9), node=chance.randrange(nodes), state=chance.randrange(3))
        for index in range(11_000)
    ]
    table = table_of(rows)
    labels = [index % 50 for index in range(10_000)]
    chance.shuffle(labels)
    assert table.choose([*labels, *([0] * 300)]) is None
    indices = table.choose(labels, nodes - 1)
    assert indices is not None
    assert [rows[index].label for index in indices] == labels
    assert len(set(indices)) == len(indices)


def test_choose_of_10000_labels_all_different() -> None:
    table = table_of([clean(label, node=label % 2) for label in range(10_000)])
    labels = list(reversed(range(10_000)))
    assert table.choose(labels) == tuple(labels)


@RELAXED
@given(
    rows=st.lists(rows_of(), max_size=30),
    requests=st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(-1, 3)), max_size=20),
)
def test_choices_are_free_and_all_or_nothing(rows: list[Row], requests: list[tuple[list[int], int]]) -> None:
    table = table_of(rows)
    taken = {index for index, row in enumerate(rows) if row.state > UNKNOWN}
    for labels, node in requests:
        before = snapshot(table)
        indices = table.choose(labels, node)
        assert snapshot(table) == before
        assert (indices is None) == any(sum(table.counts(label)[:3]) < labels.count(label) for label in labels)
        for index in indices or ():
            table.put(index, CLAIMED)
        assert taken.isdisjoint(indices or ())
        taken.update(indices or ())
        assert indices is None or [rows[index].label for index in indices] == labels


def test_many_come_and_go() -> None:
    chance = random.Random(1)
    rows = [clean(index % 2, node=index % 4) for index in range(300)]
    table, model = table_of(rows), fastalloc_model.ByNodeModel(rows)
    held: list[tuple[int, ...]] = []
    for _ in range(1500):
        if chance.random() < 0.55 or not held:
            labels = chance.choices([0, 1], k=chance.randint(1, 3))
            chosen = table.choose(labels, 1)
            assert chosen == model.choose(labels, 1)
            held.append(chosen or ())
            changes = [(index, CLAIMED) for index in chosen or ()]
        else:
            changes = [(index, DIRTY) for index in held.pop(chance.randrange(len(held)))]
        for change in changes:
            table.put(*change)
            model.put(*change)
    assert snapshot(table) == snapshot(table_of(model.rows))


@pytest.mark.parametrize(
    ("error", "method", "arguments"),
    [
        *((ValueError, "choose", (labels,)) for labels in ([], [-1], [0, -1])),
        (ValueError, "choose", ([0], -2)),
        (OverflowError, "choose", ([0, 2**40],)),
        (OverflowError, "choose", ([0], 2**40)),
        (TypeError, "choose", (["0"],)),
        (TypeError, "choose", ([0] * 30 + [None],)),
        (TypeError, "choose", (None,)),
        (ValueError, "put", (0, -1)),
        (ValueError, "put", (0, 5)),
        (TypeError, "put", (0, None)),
        (IndexError, "put", (4, CLEAN)),
        (IndexError, "put", (-1, CLEAN)),
        (OverflowError, "put", (2**40, CLEAN)),
        (ValueError, "counts", (-1,)),
    ],
)
def test_errors_leave_everything_unchanged(error: type[Exception], method: str, arguments: tuple[object, ...]) -> None:
    table = table_of([clean(), clean(), clean(state=CLAIMED), clean(state=UNAVAILABLE)])
    before = snapshot(table)
    with pytest.raises(error):
        getattr(table, method)(*arguments)
    assert snapshot(table) == before


@pytest.mark.parametrize(
    ("error", "column", "value"),
    [
        (ValueError, 0, -2),
        (ValueError, 0, 2**40),
        (ValueError, 1, 0),
        (ValueError, 1, 2**63),
        (OverflowError, 1, 2**63 - 1),
        (ValueError, 2, -2),
        (TypeError, 2, "0"),
        (TypeError, 3, None),
        (ValueError, 4, 5),
        (ValueError, 4, -1),
    ],
)
def test_table_refuses(error: type[Exception], column: int, value: object) -> None:
    columns: list[list[object]] = [[0, 0], [1, 1], [0, 0], ["ns0", "ns1"], [CLEAN, CLEAN]]
    columns[column][1] = value
    with pytest.raises(error):
        NamespaceTable(*columns)  # type: ignore[arg-type]


def test_table_refuses_columns_that_differ_in_length() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        NamespaceTable([0], [1], [0], ["ns"], [])


def test_table_is_not_copied() -> None:
    table = table_of([clean()])
    with pytest.raises(TypeError):
        copy.copy(table)


def test_an_empty_table_has_nothing() -> None:
    table = table_of([])
    assert table.choose([0]) is None
    assert table.counts(0) == (0,) * 5


def test_table_takes_at_most_40_bytes_per_namespace_and_gives_them_back() -> None:
    count, chance = 100_000, random.Random(1)
    columns = (
        [chance.randrange(100) for _ in range(count)],
        [chance.randrange(1, GIB) for _ in range(count)],
        [chance.randrange(16) for _ in range(count)],
        [f"ns{index}" for index in range(count)],
        [CLAIMED] * count,
    )
    tracemalloc.start()
    try:
        table = NamespaceTable(*columns)
        taken, _ = tracemalloc.get_traced_memory()
        del table
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count < taken <= 40 * count
    assert left < taken / 10  # other parts of the process allocate a little, too


@pytest.fixture
def testcapi() -> Iterator[ModuleType]:
    """CPython's module of its own tests: its set_nomemory(n, n + 1) makes the n-th allocation from now on fail."""
    module = pytest.importorskip("_testcapi", reason="this Python comes without its test modules")
    yield module
    module.remove_mem_hooks()


def test_memory_that_runs_out_leaves_everything_unchanged(testcapi: ModuleType) -> None:
    table = table_of([clean(name=f"{index:04}") for index in range(1400)])
    before, labels = snapshot(table), [0] * 1400
    failed = 0
    for number in range(60):
        testcapi.set_nomemory(number, number + 1)
        try:
            table.choose(labels)
        except MemoryError:
            failed += 1
        testcapi.remove_mem_hooks()
        assert snapshot(table) == before
    assert failed


def test_memory_that_runs_out_leaves_no_table(testcapi: ModuleType) -> None:
    rows = [clean(name=f"{index:04}", state=CLAIMED) for index in range(300)]
    failed = 0
    for number in range(200):
        testcapi.set_nomemory(number, number + 1)
        try:
            table_of(rows)
        except MemoryError:
            failed += 1
        testcapi.remove_mem_hooks()
    assert failed


@RELAXED
@given(data=st.data())
def test_match_as_in_the_model(data: st.DataObject) -> None:
    texts = st.sampled_from(["ns0", "ns1", "NS1", "ns2", "0e-a", "0E-A", "0e-b"])
    count = data.draw(st.integers(0, 6))
    names = data.draw(st.lists(st.none() | texts, min_size=count, max_size=count))
    uuids = data.draw(st.lists(st.none() | texts, min_size=count, max_size=count))
    entries = data.draw(st.lists(st.tuples(st.integers(0, 2), texts), max_size=8))
    assert _fastalloc.match(names, uuids, entries) == fastalloc_model.match(names, uuids, entries)


def test_match_names_each_problem() -> None:
    uuids = [str(uuid.uuid4()) for _ in range(4)]
    entries = [(0, "a"), (0, "same"), (1, "nowhere"), (0, uuids[0].upper()), (1, uuids[0]), (1, uuids[1]), (1, "b")]
    labels, problems = _fastalloc.match(["a", "same", "same", "b"], uuids, entries)
    assert labels == [0, 1, -1, 1]
    assert problems == [
        (_fastalloc.AMBIGUOUS, 1),
        (_fastalloc.NOT_FOUND, 2),
        (_fastalloc.REPEATED, 3),
        (_fastalloc.TWO_LABELS, 4),
    ]


def test_match_prefers_a_uuid_to_a_name() -> None:
    wanted = str(uuid.uuid4())
    assert _fastalloc.match([wanted, "ns"], [None, wanted.upper()], [(3, wanted)]) == ([-1, 3], [])


def test_match_refuses_what_is_no_configuration() -> None:
    with pytest.raises(ValueError, match="1 names and 2 uuids"):
        _fastalloc.match(["ns"], [None, None], [])
    with pytest.raises(ValueError, match="negative"):
        _fastalloc.match(["ns"], [None], [(-1, "ns")])
