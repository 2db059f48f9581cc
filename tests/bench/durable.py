"""A claim or a release that survives a power loss."""

import collections
import functools
import pathlib
import sqlite3
import statistics
import time
import uuid
from collections.abc import Callable

from bench import hosts
from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver.discovery.ndctl import NdctlDiscovery
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import State
from vpmem_driver.pool import Pool

SIZE = 64
CLAIMS = 160
#: SQLite begins its log anew at 1000 pages (wal_autocheckpoint); a plain commit writes one.
LOG_FULL = 520
LABEL = hosts.LABELS[0]


def _pool(state_path: str) -> Pool:
    text = hosts.listing(SIZE)
    options = hosts.configured(SIZE, state_path)
    return Pool.from_conf(options, source=NdctlDiscovery(run=lambda: text), domains=Domains(None))


def _clean(pool: Pool) -> None:
    """As after all wipes."""
    with pool._state.ledger.transaction():
        for row in pool._state.ledger.rows():
            if row.state is not State.CLEAN:
                pool._state.ledger.move(row, State.CLEAN, "made so")


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
    """Claim, plain commit, release, plain commit: the disk is now faster, now slower. And how many commits each was.

    First on new logs, which grow, and are on disk only when their new sizes are; then, as a service has it that has
    been running for some time, on logs that are written over.
    """
    with hosts.on_disk() as state_path:
        pool, commit = _pool(state_path), _plain(state_path)
        _measure(measure, pool, commit, "{}, log grows")
        for _ in range(LOG_FULL):
            _turn(pool, commit, _untimed)
        before = _log_sizes(state_path)
        _measure(measure, pool, commit, "{}")
        assert _log_sizes(state_path) == before, "they are written over"
        _clean(pool)
        owner = str(uuid.uuid4())
        measure.values("durable commits of a claim", [_commits(pool, lambda: pool.claim(owner, [LABEL]))], "integer")
        measure.values("durable commits of a release", [_commits(pool, lambda: pool.release(owner))], "integer")
        pool.close()


def _measure(measure: Measure, pool: Pool, commit: Callable[[], None], case: str) -> None:
    seconds: dict[tuple[str, str], list[float]] = collections.defaultdict(list)

    def timed(name: str, kind: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        seconds[name, kind].append(time.perf_counter() - start)

    for _ in range(CLAIMS):
        _turn(pool, commit, timed)
    for (name, kind), values in seconds.items():
        measure.values(case.format(name), values, kind=kind)


def _untimed(_name: str, _kind: str, work: Callable[[], object]) -> None:
    work()


def _turn(pool: Pool, commit: Callable[[], None], act: Callable[[str, str, Callable[[], object]], None]) -> None:
    if pool.inventory()[0].clean == 0:
        _clean(pool)
    owner = str(uuid.uuid4())
    act("claim", "ours", functools.partial(pool.claim, owner, [LABEL]))
    act("claim", "limit", commit)
    act("release", "ours", functools.partial(pool.release, owner))
    act("release", "limit", commit)


def _log_sizes(state_path: str) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in pathlib.Path(state_path).glob("*-wal")}


def _commits(pool: Pool, act: Callable[[], object]) -> int:
    """How many commits wait for the disk in that. Those of a reservation do not: its claim's commit does for both."""
    said: list[str] = []
    connection = pool._state.ledger._db
    connection.set_trace_callback(said.append)
    act()
    connection.set_trace_callback(None)
    durable, commits = True, 0
    for statement in said:
        durable = "FULL" in statement if statement.startswith("PRAGMA synchronous") else durable
        commits += durable and statement.startswith("COMMIT")
    return commits


ROW = Row(
    name="durable",
    work="durable claim or release of one namespace; limit: one SQLite commit, synchronous=FULL",
    kinds={"ours": in_turn},
    statistic=statistics.median,
    targets=(
        Target(case="claim", against="limit", most=1.3),
        Target(case="release", against="limit", most=1.3),
        Target(case="durable commits of a claim", against=1.0, most=1),
        Target(case="durable commits of a release", against=1.0, most=1),
    ),
)
