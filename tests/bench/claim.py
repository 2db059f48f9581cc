"""Claim of two labels and their release, on a host of which half is taken: in the pool, and in the bare table."""

import sqlite3
import time
import uuid
from collections.abc import Callable

from bench import hosts
from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver import _fastalloc
from vpmem_driver.pool import Pool

SIZES = (8, 64, 512, 4096)
TABLE_SIZES = (8, 64, 512, 4096, 100_000, 1_000_000)
NUMA_SIZES = (64, 512, 4096, 100_000)
NODES = 8
LOOPS = 8_000
GIB = 1 << 30


def ours(measure: Measure) -> None:
    """``Pool.claim`` of what is clean, and ``Pool.release``."""
    for size in SIZES:
        with hosts.in_memory() as state_path:
            pool = hosts.half_taken(size, state_path)
            measure.timed(size, 16, in_pool(pool))
            pool.close()


def in_pool(pool: Pool) -> Callable[[int], float]:
    """Return the timed claims and releases of a pool."""
    labels = list(hosts.LABELS)

    def run(loops: int) -> float:
        seconds = 0.0
        for _ in range(loops):
            hosts.have_clean(pool)
            owner = str(uuid.uuid4())
            start = time.perf_counter()
            pool.claim(owner, labels)
            pool.release(owner)
            seconds += time.perf_counter() - start
        return seconds

    return run


def limit(measure: Measure) -> None:
    """Two commits of one line each into a table of SQLite."""
    for size in SIZES:
        with hosts.in_memory() as state_path:
            connection = sqlite3.connect(f"{state_path}/plain.sqlite3", isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE line (id INTEGER PRIMARY KEY, text TEXT)")

            def commits(connection: sqlite3.Connection = connection) -> None:
                for _ in range(2):
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute("INSERT INTO line (text) VALUES ('claim')")
                    connection.execute("COMMIT")

            measure.calls(size, 64, commits)
            connection.close()


def table(count: int, nodes: int = 1) -> _fastalloc.NamespaceTable:
    """Two labels in turn, half of each taken, the rest as a release leaves it; of mixed sizes on several nodes."""
    places = range(count)
    taken = [place // (2 * nodes) % 2 == 0 for place in places]
    return _fastalloc.NamespaceTable(
        [place % 2 for place in places],
        [(1 + (place // 7) % 4 if nodes > 1 else 4) * GIB for place in places],
        [place // 2 % nodes for place in places],
        [f"ns{place}" for place in places],
        [_fastalloc.CLAIMED if is_taken else _fastalloc.DIRTY for is_taken in taken],
    )


def _in_table(made: _fastalloc.NamespaceTable, nodes: list[int]) -> Callable[[int], float]:
    """Choose, claim and release, with each of the wanted nodes in turn."""
    choose, put, labels = made.choose, made.put, [0, 1]

    def run(loops: int) -> float:
        start = time.perf_counter()
        for _ in range(loops // len(nodes)):
            for node in nodes:
                one, two = choose(labels, node) or (0, 1)
                put(one, _fastalloc.CLAIMED)
                put(two, _fastalloc.CLAIMED)
                put(one, _fastalloc.DIRTY)
                put(two, _fastalloc.DIRTY)
        return time.perf_counter() - start

    return run


def bare(measure: Measure) -> None:
    """The compiled table."""
    for size in TABLE_SIZES:
        measure.timed(size, LOOPS, _in_table(table(size), [-1]))


def numa(measure: Measure) -> None:
    """A wanted node, each of the eight in turn; and none, so that one node for the whole request is looked for."""
    for size in NUMA_SIZES:
        made = table(size, NODES)
        measure.timed(size, LOOPS, _in_table(made, list(range(NODES))))
        measure.timed(f"{size}, any node", LOOPS, _in_table(made, [-1]))


ROW = Row(
    name="claim",
    work="Pool.claim of 2 clean namespaces + Pool.release, ledger on tmpfs, half taken; limit: 2 SQLite commits",
    kinds={"ours": ours, "limit": limit},
    targets=(Target(case="4096", against="claim/64/ours", most=2),),
)

TABLE_ROW = Row(
    name="table",
    work="the part of it that is the compiled table's: choose 2, and put 4 states",
    kinds={"ours": bare},
    targets=(Target(case="1000000", against="table/64/ours", most=2),),
)

NUMA_ROW = Row(
    name="numa",
    work="the same with a wanted NUMA node of 8, and mixed sizes",
    kinds={"ours": numa},
    targets=(*(Target(case=str(size), against=f"table/{size}/ours", most=2) for size in NUMA_SIZES),),
)
