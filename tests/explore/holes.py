"""Defects, most of which were in the package once, put in to see that the search finds them."""

import contextlib

from vpmem_driver.engine import Outcome
from vpmem_driver.ledger import Ledger
from vpmem_driver.model import State
from vpmem_driver.pool import claims, copy_recorders, reservations, wipes


def _settle_whatever_is_dirty(self, result, _run):
    with self._ledger.transaction():
        row = self._ledger.row(result.uuid)
        if row is not None and row.state is State.DIRTY:
            if result.outcome is Outcome.MEDIA:
                self._ledger.move(row, State.QUARANTINED, "x", reason=result.reason)
            elif row.owner is not None:
                reservations.claim(self._ledger, row)
            else:
                self._ledger.move(row, State.CLEAN, "x")
    return True


def _progress_of_whatever_is_dirty(self, uuid, _run, *, wiped=None, verified=None):
    with self.transaction():
        self._execute(
            "UPDATE namespace SET wiped = coalesce(?, wiped) WHERE uuid = ? AND state = 'dirty'", (wiped, uuid)
        )
    return True


def _take_clean_ones_at_once(self, owner, rows, reservation, hardware=None):
    return [
        reservations.claim(self._state.ledger, row) if row.state is State.CLEAN else row
        for row in _TAKE(self, owner, rows, reservation, hardware)
    ]


def _cancel_to_clean(self, owner, rows, why):
    with self._state.change():
        for before in rows:
            row = self._state.row(before.uuid)
            if row.owner == owner and row.state is State.CLAIMED:
                self._state.move(row, State.CLEAN, why)
    return _CANCEL(self, owner, rows, why)


def _record_whatever_was_copied(self, result):
    if result.outcome is Outcome.COPIED:
        with self._records.ledger.transaction():
            row = self._records.ledger.row(result.uuid)
            if row.state is not State.CLAIMED or row.owner != self._row.owner:
                self._records.ledger.move(
                    row, State.CLAIMED, "x", owner=self._row.owner, position=self._row.position, arrival=self.arrival
                )


_TAKE, _CANCEL = claims.Claims._take, claims.Claims._cancel

#: name -> what to replace, and the scenario that must find it
HOLES = {
    "a stalled parent records what its dead child said": (
        "Wipes",
        [
            (wipes._LedgerRecorder, "_settle", _settle_whatever_is_dirty),
            (Ledger, "progress", _progress_of_whatever_is_dirty),
        ],
    ),
    "a cancelled claim makes clean what its owner has written": (
        "CalledOff",
        [(claims.Claims, "_take", _take_clean_ones_at_once), (claims.Claims, "_cancel", _cancel_to_clean)],
    ),
    "a copy that was abandoned is recorded when its child says that it is complete": (
        "Abandoned",
        [(copy_recorders.Arrival, "finished", _record_whatever_was_copied)],
    ),
}


@contextlib.contextmanager
def put_back(name):
    """Have that defect for a while. :returns: the name of the scenario that must find it"""
    scenario, replacements = HOLES[name]
    kept = [(where, attribute, getattr(where, attribute)) for where, attribute, _ in replacements]
    try:
        for where, attribute, replacement in replacements:
            setattr(where, attribute, replacement)
        yield scenario
    finally:
        for where, attribute, original in kept:
            setattr(where, attribute, original)
