"""Namespaces that need a person."""

import datetime
from collections.abc import Iterator

from vpmem_driver import model
from vpmem_driver.checkup import finding
from vpmem_driver.checkup.finding import Finding
from vpmem_driver.faults import namespaces as faults
from vpmem_driver.model import State
from vpmem_driver.pool import Row
from vpmem_driver.pool.snapshot import Snapshot

#: A wipe or copy without progress is given this time: its process may look for devices, or wait for another wipe.
PATIENCE = datetime.timedelta(minutes=5)


def check(snapshot: Snapshot, now: datetime.datetime | None = None) -> list[Finding]:
    """Return a finding for each namespace that needs a person, and for each thing that could not be read.

    :param now: UTC
    """
    now = now or datetime.datetime.now(datetime.UTC)
    found = [finding.of_error("configuration and ledger", error) for error in snapshot.errors]
    waiting = _Waiting(snapshot, now)
    for record in snapshot.records:
        found += _of_record(snapshot, record, waiting)
    return found


def _of_record(snapshot: Snapshot, record: model.Record, waiting: "_Waiting") -> Iterator[Finding]:
    check = f"namespace {record.name or record.uuid}"
    row = snapshot.rows.get(record.uuid or "")
    match record.state:
        case "missing":
            yield finding.failure(check, faults.MISSING, record.reason or "it is not on this host now")
        case "unusable" if record.label is not None:
            yield finding.failure(check, faults.UNUSABLE, record.reason or "it cannot be given to a guest")
        case State.QUARANTINED:
            yield finding.failure(check, faults.QUARANTINED, record.reason or "its wipe failed")
    if row is None or record.state == "missing" or not waiting.is_stuck(row):
        return
    since = waiting.since(row)
    if row.owner is not None and row.state in {State.DIRTY, State.CLEAN}:
        yield finding.failure(check, faults.UNFINISHED, f"reserved for {row.owner}; {since}")
    elif row.state is State.DIRTY:
        yield finding.failure(check, faults.NOT_WIPED, f"{row.reason or 'nothing wipes it'}; {since}")
    else:
        yield finding.failure(check, faults.COPY_STOPPED, f"{since}; owner {row.owner}")


class _Waiting:
    """Finds the namespaces that wait for a wipe or a copy on which nothing works."""

    def __init__(self, snapshot: Snapshot, now: datetime.datetime) -> None:
        self._snapshot = snapshot
        self._now = now
        #: ids of the claims and copies that make progress: their other namespaces wait for their turn
        self._active = {_group(snapshot.rows[uuid]) for uuid in snapshot.active}

    def is_stuck(self, row: Row) -> bool:
        """Whether it waits, makes no progress, and has waited for longer than the patience."""
        waits = row.state in {State.DIRTY, State.RECEIVING} or row.reservation is not None or row.departure is not None
        if not waits or row.uuid in self._snapshot.active or (_group(row) in self._active and row.reason is None):
            return False
        moved_at = self._snapshot.moved_at.get(row.uuid)
        return moved_at is None or self._now - moved_at >= PATIENCE

    def since(self, row: Row) -> str:
        """Return since when it waits."""
        moved_at = self._snapshot.moved_at.get(row.uuid)
        return "no progress" if moved_at is None else f"no progress, {row.state} since {moved_at:%Y-%m-%d %H:%M} UTC"


def _group(row: Row) -> str:
    """Return what works on a namespace: its claim, its copy, or any wipe of unowned namespaces, one after the other."""
    return row.reservation or row.arrival or row.departure or "wipe"
