"""A claim or a release that survives a power loss."""

import collections
import functools
import sqlite3
import statistics
import time
import uuid
from collections.abc import Callable

from bench import hosts
from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver.discovery.ndctl import NdctlDiscovery
from vpmem_driver.domains import Domains
from vpmem_driver.model import State
from vpmem_driver.pool import Pool

SIZE = 64
CLAIMS = 160
LABEL = hosts.LABELS[0]


def _pool(state_path: str) -> Pool:
    text = hosts.listing(SIZE)
    options = hosts.configured(SIZE, state_path)
    return Pool.from_conf(options, source=NdctlDiscovery(run=lambda: text), domains=Domains(None))


def _clean(pool: Pool) -> None:
    """As after all wipes."""
    with pool.ledger.transaction():
        for row in pool.ledger.rows():
            if row.state is not State.CLEAN:
                pool.ledger.move(row, State.CLEAN, "made so")


def _plain(state_path: str) -> Callable[[], None]:
    """One commit of one line into a table, with the settings of the ledger."""
    connection = sqlite3.connect(f"{state_path}/plain.sqlite3", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE line (id INTEGER PRIMARY KEY, text TEXT)")

    def commit() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO line (text) VALUES (?)", (LABEL,))
        connection.execute("COMMIT")

    return commit


def in_turn(measure: Measure) -> None:
    """Claim, plain commit, release, plain commit: the disk is now faster, now slower. And how many commits each was."""
    with hosts.on_disk() as state_path:
        pool, commit = _pool(state_path), _plain(state_path)
        seconds: dict[tuple[str, str], list[float]] = collections.defaultdict(list)

        def timed(case: str, kind: str, work: Callable[[], object]) -> None:
            start = time.perf_counter()
            work()
            seconds[case, kind].append(time.perf_counter() - start)

        for number in range(CLAIMS):
            if number % (SIZE // 4) == 0:
                _clean(pool)
            owner = str(uuid.uuid4())
            timed("claim", "ours", functools.partial(pool.claim, owner, [LABEL]))
            timed("claim", "limit", commit)
            timed("release", "ours", functools.partial(pool.release, owner))
            timed("release", "limit", commit)
        for (case, kind), values in seconds.items():
            measure.values(case, values, kind=kind)
        _clean(pool)
        owner = str(uuid.uuid4())
        measure.values("commits of a claim", [_commits(pool, lambda: pool.claim(owner, [LABEL]))], "integer")
        measure.values("commits of a release", [_commits(pool, lambda: pool.release(owner))], "integer")
        pool.close()


def _commits(pool: Pool, act: Callable[[], object]) -> int:
    """How many commits SQLite is asked for by that."""
    said: list[str] = []
    connection = pool.ledger._db
    connection.set_trace_callback(said.append)
    act()
    connection.set_trace_callback(None)
    return sum(statement.startswith("COMMIT") for statement in said)


ROW = Row(
    name="durable",
    work="durable claim or release of one namespace; limit: one SQLite commit, synchronous=FULL",
    kinds={"ours": in_turn},
    statistic=statistics.median,
    targets=(
        Target(case="claim", against="limit", most=1.3),
        Target(case="release", against="limit", most=1.3),
        Target(case="commits of a claim", against=1.0, most=1),
        Target(case="commits of a release", against=1.0, most=1),
    ),
)
