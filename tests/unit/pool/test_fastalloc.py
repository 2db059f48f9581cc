"""vpmem_driver._fastalloc against its plain Python model, and against what it promises."""

import copy
import random
import sys
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

OWNERS = [str(uuid.uuid4()) for _ in range(4)]
KINDS = [
    *((state, None) for state in (CLEAN, DIRTY, UNKNOWN, UNAVAILABLE)),
    *((state, owner) for state in (CLAIMED, DIRTY) for owner in OWNERS),
]
GIB = 2**30


def table_of(rows: Sequence[Row]) -> NamespaceTable:
    return NamespaceTable(
        [row.label for row in rows],
        [row.size for row in rows],
        [row.node for row in rows],
        [row.name for row in rows],
        [row.state for row in rows],
        [row.owner for row in rows],
    )


def snapshot(table: NamespaceTable) -> object:
    owners = [table.owner(index) for index in range(len(table))]
    return (
        [table.state(index) for index in range(len(table))],
        owners,
        {owner: table.held(owner) for owner in owners if owner is not None},
        [table.counts(label) for label in range(5)],
        [table.free(label) for label in range(5)],
    )


def model_snapshot(model: fastalloc_model.TableModel) -> object:
    owners = [row.owner for row in model.rows]
    return (
        [row.state for row in model.rows],
        owners,
        {owner: model.held(owner) for owner in owners if owner is not None},
        [model.counts(label) for label in range(5)],
        [sum(model.counts(label)[:CLAIMED]) for label in range(5)],
    )


def outcome(function: Callable[..., object], *arguments: object) -> object:
    """What it returns, or the class of what it raises."""
    try:
        return function(*arguments)
    except (ValueError, IndexError) as error:
        return type(error)


def clean(label: int = 0, *, size: int = GIB, node: int = 0, name: str = "ns", state: int = CLEAN) -> Row:
    return Row(label, size, node, name, state, None)


def rows_of(*, labels: int = 2, nodes: int = 3, sizes: int = 3) -> st.SearchStrategy[Row]:
    return st.builds(
        lambda label, size, node, name, kind: Row(label, size * GIB, node, name, *kind),
        st.integers(-1, labels),
        st.integers(1, sizes),
        st.integers(-1, nodes),
        st.sampled_from(["ns0", "ns1", "ns10", "ns2", "ñs"]),
        # Most are free, or there would be little to choose from.
        st.sampled_from(KINDS[:3]) | st.sampled_from(KINDS),
    )


class AgainstModel(RuleBasedStateMachine):
    """Whatever is done, table and model answer alike and are alike afterwards."""

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

    @rule(owner=st.sampled_from(OWNERS), labels=st.lists(st.integers(0, 3), max_size=5), node=st.integers(-1, 4))
    def claim(self, owner: str, labels: list[int], node: int) -> None:
        fresh = table_of(self.model.rows)
        assert self.table.shortage(labels) == self.model.shortage(labels)
        expected = self.same("claim", owner, labels, node)
        assert outcome(fresh.claim, owner, labels, node) == expected  # the way to a state does not matter

    @rule(owner=st.sampled_from(OWNERS), labels=st.permutations([0, 1, 2] * 2), data=st.data())
    def claim_most(self, owner: str, labels: list[int], data: st.DataObject) -> None:
        wanted = [label for label in labels if self.model.free_of(label)][: data.draw(st.integers(1, 6))]
        self.same("claim", owner, wanted, data.draw(st.integers(-1, 3)))

    @rule(owner=st.sampled_from(OWNERS), indices=st.lists(st.integers(-1, 11), max_size=3))
    def claim_exact(self, owner: str, indices: list[int]) -> None:
        self.same("claim_exact", owner, indices)

    @rule(owner=st.sampled_from(OWNERS), data=st.data())
    def claim_exact_free(self, owner: str, data: st.DataObject) -> None:
        free = [index for index in range(len(self.model.rows)) if self.model.is_free(index)]
        indices = data.draw(st.lists(st.sampled_from(free), max_size=3) if free else st.just([]))
        self.same("claim_exact", owner, indices)

    @rule(owner=st.sampled_from(OWNERS))
    def release(self, owner: str) -> None:
        self.same("release", owner)

    @rule(owner=st.sampled_from(OWNERS), indices=st.lists(st.integers(-1, 11), max_size=2))
    def release_exact(self, owner: str, indices: list[int]) -> None:
        self.same("release_exact", owner, indices)

    @rule(owner=st.sampled_from(OWNERS), data=st.data())
    def release_exact_held(self, owner: str, data: st.DataObject) -> None:
        held = self.model.held(owner)
        indices = data.draw(st.lists(st.sampled_from(held), max_size=4) if held else st.just([]))
        self.same("release_exact", owner, indices)

    @rule(index=st.integers(-1, 11), kind=st.sampled_from(KINDS))
    def put(self, index: int, kind: tuple[int, str | None]) -> None:
        self.same("put", index, *kind)

    @rule(index=st.integers(0, 11), state=st.integers(-1, 5), owner=st.sampled_from([None, *OWNERS]))
    def put_anything(self, index: int, state: int, owner: str | None) -> None:
        self.same("put", index, state, owner)

    @invariant()
    def alike(self) -> None:
        assert snapshot(self.table) == model_snapshot(self.model)


AgainstModel.TestCase.settings = settings(RELAXED, max_examples=400, stateful_step_count=40)
test_every_change_as_in_the_model = AgainstModel.TestCase


@RELAXED
@given(
    rows=st.lists(rows_of(nodes=5), min_size=6, max_size=40),
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=20),
    node=st.integers(-1, 5),
)
def test_claim_as_in_the_model_of_node_sets(rows: list[Row], labels: list[int], node: int) -> None:
    model = fastalloc_model.ByNodeModel(rows)
    assert table_of(rows).claim(OWNERS[0], labels, node) == model.choose(labels, node)


@settings(RELAXED, max_examples=15)
@given(seed=st.integers(0, 2**32), node=st.integers(-1, 25))
def test_claim_over_more_than_16_nodes_as_in_the_greedy_model(seed: int, node: int) -> None:
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
        assert table.claim(OWNERS[0], labels, node) == expected
        for index in expected or ():
            table.put(index, rows[index].state, None)


@pytest.mark.parametrize(
    ("nodes", "times", "expected"),
    [(16, 1, {1, 2}), (17, 1, {0, 1, 2}), (16, 42, {1, 2}), (16, 43, {0, 1, 2})],
    ids=["16 nodes", "more nodes", "252 labels", "258 labels"],
)
def test_claim_looks_at_every_set_of_nodes_within_its_bounds(nodes: int, times: int, expected: set[int]) -> None:
    # The greedy way begins with node 0, which has most, and needs three nodes where two would do.
    spread = {0: [0, 0, 1, 1], 1: [0, 0, 0], 2: [1, 1, 1]}
    rows = [clean(label, node=node) for node, labels in spread.items() for label in labels * times]
    rows += [clean(0, node=node) for node in range(3, nodes)]
    chosen = table_of(rows).claim(OWNERS[0], [0, 0, 0, 1, 1, 1] * times)
    assert chosen is not None
    assert {rows[index].node for index in chosen} == expected


def test_claim_prefers_any_number_of_dirty_to_one_unknown() -> None:
    rows = [clean(label, node=0, state=UNKNOWN if label == 0 else CLEAN) for label in range(3)]
    rows += [clean(label, node=1, state=DIRTY) for label in range(3)]
    assert table_of(rows).claim(OWNERS[0], [0, 1, 2]) == (3, 4, 5)


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
def test_claim_prefers(better: Row, worse: Row, turned: bool) -> None:
    rows = [worse, better] if turned else [better, worse]
    assert table_of(rows).claim(OWNERS[0], [0], 1) == (int(turned),)


def test_claim_prefers_fewest_nodes_to_clean() -> None:
    rows = [clean(0, node=0), clean(1, node=1), clean(0, node=2, state=UNKNOWN), clean(1, node=2, state=UNKNOWN)]
    assert table_of(rows).claim(OWNERS[0], [1, 0]) == (3, 2)


def test_claim_counts_the_unknown_node_as_one() -> None:
    rows = [clean(0, node=-1, size=9), clean(1, node=-1, size=9), clean(0, node=0), clean(1, node=1)]
    assert table_of(rows).claim(OWNERS[0], [0, 1]) == (0, 1)


def test_claim_goes_by_input_order_where_size_and_name_are_equal() -> None:
    assert table_of([clean() for _ in range(200)]).claim(OWNERS[0], [0] * 3) == (0, 1, 2)


def test_claim_of_clean_is_claimed_and_of_others_is_reserved() -> None:
    table = table_of([clean(0), clean(1, state=DIRTY), clean(2, state=UNKNOWN)])
    assert table.claim(OWNERS[0], [0, 1, 2]) == (0, 1, 2)
    assert [table.state(index) for index in range(3)] == [CLAIMED, DIRTY, DIRTY]
    assert [table.owner(index) for index in range(3)] == [OWNERS[0]] * 3
    assert table.counts(1) == (0, 0, 0, 1, 0)
    assert table.claim(OWNERS[1], [1]) is None


@pytest.mark.parametrize("count", [1, 63, 64, 65, 4095, 4096, 4097, 262_145])
def test_claim_to_the_last_where_bitmaps_gain_a_level(count: int) -> None:
    table = NamespaceTable([0] * count, [1] * count, [0] * count, ["ns"] * count, [CLEAN] * count, [None] * count)
    for _ in range(2):
        assert table.claim(OWNERS[0], [0] * count) == tuple(range(count))
        assert table.claim(OWNERS[1], [0]) is None
        table.release_exact(OWNERS[0], [count - 1])
        assert table.claim(OWNERS[1], [0]) == (count - 1,)
        table.release(OWNERS[0])
        table.release(OWNERS[1])


@pytest.mark.parametrize("nodes", [1, 3, 9, 40])
def test_claim_of_10000_labels(nodes: int) -> None:
    chance = random.Random(nodes)
    rows = [
        clean(index % 50, size=chance.randint(1, 9), node=chance.randrange(nodes), state=chance.randrange(3))
        for index in range(11_000)
    ]
    table = table_of(rows)
    labels = [index % 50 for index in range(10_000)]
    chance.shuffle(labels)
    before = snapshot(table)
    assert table.claim(OWNERS[0], [*labels, *([0] * 300)]) is None
    assert snapshot(table) == before
    indices = table.claim(OWNERS[0], labels, nodes - 1)
    assert indices is not None
    assert [rows[index].label for index in indices] == labels
    assert table.release(OWNERS[0]) == indices
    assert len(set(indices)) == len(indices)


def test_claim_of_10000_labels_all_different() -> None:
    table = table_of([clean(label, node=label % 2) for label in range(10_000)])
    labels = list(reversed(range(10_000)))
    assert table.claim(OWNERS[0], labels) == tuple(labels)
    assert table.free(9_999) == 0


@RELAXED
@given(
    rows=st.lists(rows_of(), max_size=30),
    requests=st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(-1, 3)), max_size=20),
)
def test_claims_are_exclusive_and_all_or_nothing(rows: list[Row], requests: list[tuple[list[int], int]]) -> None:
    table = table_of(rows)
    given_out = {index for index, row in enumerate(rows) if row.owner is not None}
    for labels, node in requests:
        before, short = snapshot(table), table.shortage(labels)
        indices = table.claim(str(uuid.uuid4()), labels, node)
        assert (indices is None) == bool(short)
        if indices is None:
            assert snapshot(table) == before
            continue
        assert [rows[index].label for index in indices] == labels
        assert given_out.isdisjoint(indices)
        assert not any(rows[index].state == UNAVAILABLE for index in indices)
        given_out.update(indices)


def test_many_owners_come_and_go() -> None:
    chance = random.Random(1)
    rows = [clean(index % 2, node=index % 4) for index in range(300)]
    table, model = table_of(rows), fastalloc_model.ByNodeModel(rows)
    owners = [str(uuid.uuid4()) for _ in range(200)]
    for _ in range(1500):
        owner = chance.choice(owners)
        if chance.random() < 0.55:
            labels = chance.choices([0, 1], k=chance.randint(1, 3))
            assert table.claim(owner, labels, 1) == model.claim(owner, labels, 1)
        else:
            assert table.release(owner) == model.release(owner)
    assert snapshot(table) == model_snapshot(model)


def test_equal_owners_are_one_owner_and_none_is_kept() -> None:
    first = str(uuid.uuid4())
    second = first[:1] + first[1:]
    assert first is not second
    references = sys.getrefcount(first), sys.getrefcount(second)
    table = table_of([clean(), clean(), clean()])
    table.claim(first, [0])
    table.claim(second, [0])
    table.claim_exact(second, [2])
    assert table.held(first) == (0, 1, 2)
    table.release_exact(second, [0, 2])
    assert table.release(second) == (1,)
    assert (sys.getrefcount(first), sys.getrefcount(second)) == references
    table.claim(first, [0, 0, 0])
    table.put(0, DIRTY, second)
    table.put(1, CLEAN, None)
    table.put(2, CLAIMED, OWNERS[0])
    del table
    assert (sys.getrefcount(first), sys.getrefcount(second)) == references


def test_put_keeps_the_place_of_what_the_owner_held_before() -> None:
    table = table_of([clean(state=UNKNOWN, name=f"ns{index}") for index in range(3)])
    assert table.claim(OWNERS[0], [0, 0, 0]) == (0, 1, 2)
    table.put(0, CLAIMED, OWNERS[0])
    table.put(1, UNAVAILABLE, None)
    table.put(1, CLAIMED, OWNERS[0])
    assert table.held(OWNERS[0]) == (0, 2, 1)


@pytest.mark.parametrize(
    ("error", "method", "arguments"),
    [
        *((ValueError, "claim", (OWNERS[0], labels)) for labels in ([], [-1], [0, -1])),
        (ValueError, "claim", (OWNERS[0], [0], -2)),
        (OverflowError, "claim", (OWNERS[0], [0, 2**40])),
        (OverflowError, "claim", (OWNERS[0], [0], 2**40)),
        (TypeError, "claim", (OWNERS[0], ["0"])),
        (TypeError, "claim", (OWNERS[0], [0] * 30 + [None])),
        (TypeError, "claim", (None, [0])),
        (TypeError, "claim", (7, [0])),
        (ValueError, "claim_exact", (OWNERS[0], [0, 0])),
        (ValueError, "claim_exact", (OWNERS[0], [0, 2])),
        (ValueError, "claim_exact", (OWNERS[0], [0, 3])),
        (IndexError, "claim_exact", (OWNERS[0], [0, 4])),
        (IndexError, "claim_exact", (OWNERS[0], [-1])),
        (OverflowError, "claim_exact", (OWNERS[0], [2**40])),
        (ValueError, "release_exact", (OWNERS[2], [2, 2])),
        (ValueError, "release_exact", (OWNERS[2], [2, 0])),
        (ValueError, "release_exact", (OWNERS[1], [2])),
        (IndexError, "release_exact", (OWNERS[2], [2, 4])),
        (ValueError, "put", (0, CLAIMED, None)),
        (ValueError, "put", (0, UNAVAILABLE, OWNERS[0])),
        (ValueError, "put", (0, 5, None)),
        (TypeError, "put", (0, CLAIMED, 7)),
        (IndexError, "put", (4, CLEAN, None)),
        (IndexError, "state", (-1,)),
        (IndexError, "owner", (4,)),
        (ValueError, "free", (-1,)),
        (ValueError, "counts", (-1,)),
        (ValueError, "shortage", ([-1],)),
    ],
)
def test_errors_leave_everything_unchanged(error: type[Exception], method: str, arguments: tuple[object, ...]) -> None:
    table = table_of([clean(), clean(), Row(0, 1, 0, "ns", CLAIMED, OWNERS[2]), clean(state=UNAVAILABLE)])
    before = snapshot(table)
    with pytest.raises(error):
        getattr(table, method)(*arguments)
    assert snapshot(table) == before


def test_exact_errors_name_the_namespace() -> None:
    table = table_of([clean(), clean(state=UNAVAILABLE)])
    with pytest.raises(ValueError, match="namespace 1 is not free"):
        table.claim_exact(OWNERS[0], [0, 1])
    with pytest.raises(ValueError, match=f"namespace 1 is not held by {OWNERS[0]}"):
        table.release_exact(OWNERS[0], [1])


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
        (ValueError, 4, CLAIMED),
        (ValueError, 5, OWNERS[0]),
        (TypeError, 5, 7),
    ],
)
def test_table_refuses(error: type[Exception], column: int, value: object) -> None:
    columns: list[list[object]] = [[0, 0], [1, 1], [0, 0], ["ns0", "ns1"], [CLEAN, CLEAN], [None, None]]
    columns[column][1] = value
    with pytest.raises(error):
        NamespaceTable(*columns)  # type: ignore[arg-type]


def test_table_refuses_columns_that_differ_in_length() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        NamespaceTable([0], [1], [0], ["ns"], [CLEAN], [])


def test_table_is_not_copied() -> None:
    table = table_of([clean()])
    with pytest.raises(TypeError):
        copy.copy(table)


def test_an_empty_table_has_nothing() -> None:
    table = table_of([])
    assert len(table) == 0
    assert table.claim(OWNERS[0], [0]) is None
    assert table.release(OWNERS[0]) == table.held(OWNERS[0]) == ()
    assert table.counts(0) == (0,) * 5
    assert table.shortage([0, 1, 0]) == {0: (2, 0), 1: (1, 0)}
    table.claim_exact(OWNERS[0], [])
    table.release_exact(OWNERS[0], [])


def test_table_takes_at_most_100_bytes_per_namespace() -> None:
    count = 100_000
    chance = random.Random(1)
    table = NamespaceTable(
        [chance.randrange(100) for _ in range(count)],
        [chance.randrange(1, GIB) for _ in range(count)],
        [chance.randrange(16) for _ in range(count)],
        [f"ns{index}" for index in range(count)],
        [CLAIMED] * count,
        [str(index) for index in range(count)],
    )
    assert 0 < table.nbytes() <= 100 * count


@pytest.fixture
def testcapi() -> Iterator[ModuleType]:
    """CPython's module of its own tests: its set_nomemory(n, n + 1) makes the n-th allocation from now on fail."""
    module = pytest.importorskip("_testcapi", reason="this Python comes without its test modules")
    yield module
    module.remove_mem_hooks()


@pytest.mark.parametrize("method", ["claim", "claim_exact", "release", "release_exact", "put"])
def test_memory_that_runs_out_leaves_everything_unchanged(method: str, testcapi: ModuleType) -> None:
    held = list(range(1000, 1400))
    arguments: dict[str, tuple[object, ...]] = {
        "claim": (OWNERS[0], [0] * 40),
        "claim_exact": (OWNERS[0], list(range(300, 400))),
        "release": (OWNERS[1],),
        "release_exact": (OWNERS[1], held),
        "put": (400, CLAIMED, OWNERS[1]),
    }
    failed = 0
    for number in range(60):
        table = table_of([clean(name=f"{index:04}") for index in range(1400)])
        table.claim_exact(OWNERS[1], held)
        table.claim_exact(OWNERS[2], list(range(300)))
        before = snapshot(table)
        call, given_to = getattr(table, method), arguments[method]
        testcapi.set_nomemory(number, number + 1)
        try:
            call(*given_to)
        except MemoryError:
            testcapi.remove_mem_hooks()
            assert snapshot(table) == before
            failed += 1
        testcapi.remove_mem_hooks()
    assert failed or method == "put"  # which needs no memory


def test_memory_that_runs_out_leaves_no_table(testcapi: ModuleType) -> None:
    rows = [Row(0, GIB, 0, "ns", CLAIMED, owner) for owner in OWNERS * 75]
    references = [sys.getrefcount(owner) for owner in OWNERS]
    failed = 0
    for number in range(200):
        testcapi.set_nomemory(number, number + 1)
        try:
            table_of(rows)
        except MemoryError:
            failed += 1
        testcapi.remove_mem_hooks()
    assert failed
    assert [sys.getrefcount(owner) for owner in OWNERS] == references


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
