"""A claim and its release, with a history of a million lines and with none."""

from bench import claim, hosts
from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver.pool import Pool

SIZE = 64
LINES = 1_000_000


def ours(measure: Measure) -> None:
    """``Pool.claim`` of what is clean, and ``Pool.release``."""
    for lines in (0, LINES):
        with hosts.in_memory() as state_path:
            pool = hosts.half_taken(SIZE, state_path)
            _add_lines(pool, lines)
            measure.timed(lines, 16, claim.in_pool(pool))
            pool.close()


def _add_lines(pool: Pool, lines: int) -> None:
    """Add moves of the host's namespaces to the history, as years of claims and releases would."""
    with pool._state.ledger.transaction():
        pool._state.ledger._execute(
            "WITH RECURSIVE number (n) AS (SELECT 1 WHERE ? > 0 UNION ALL SELECT n + 1 FROM number WHERE n < ?) "
            "INSERT INTO history (at, uuid, name, from_state, to_state, owner, reason) "
            "SELECT at, uuid, name, 'clean', 'claimed', uuid, 'claimed' FROM number JOIN "
            "(SELECT row_number() OVER () AS place, at, uuid, name FROM history LIMIT ?) ON place = n % ? + 1",
            (lines, lines, SIZE, SIZE),
        )


ROW = Row(
    name="history",
    work="the same on a host of 64, with so many lines in the history",
    kinds={"ours": ours},
    targets=(Target(case=str(LINES), against="history/0/ours", most=1.1),),
)
