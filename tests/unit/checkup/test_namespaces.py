"""Which namespaces need a person."""

import datetime
import types

import pytest

from vpmem_driver import exception
from vpmem_driver.checkup import namespaces
from vpmem_driver.model import State

NOW = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
OWNER = "11111111-1111-4111-8111-111111111111"


def row(uuid, state, **values):
    known = {"owner": None, "reason": None, "reservation": None, "arrival": None, "departure": None}
    return types.SimpleNamespace(uuid=uuid, state=state, **(known | values))


def snapshot(*rows, age=3600, active=(), states=None, errors=()):
    records = [
        types.SimpleNamespace(
            uuid=row.uuid,
            name=row.uuid,
            label="L",
            state=(states or {}).get(row.uuid, str(row.state)),
            reason=row.reason,
        )
        for row in rows
    ]
    moved_at = {row.uuid: NOW - datetime.timedelta(seconds=age) for row in rows}
    return types.SimpleNamespace(
        records=records,
        rows={row.uuid: row for row in rows},
        moved_at=moved_at,
        active=frozenset(active),
        errors=errors,
    )


def ids(*rows, **values):
    return [(finding.check, finding.id) for finding in namespaces.check(snapshot(*rows, **values), NOW)]


@pytest.mark.parametrize("state", [State.UNKNOWN, State.CLEAN, State.CLAIMED])
def test_what_needs_nobody(state):
    assert ids(row("a", state)) == []


def test_states_that_need_a_person():
    assert ids(row("a", State.QUARANTINED)) == [("namespace a", "VPMEM-N01")]
    assert ids(row("a", State.CLAIMED), states={"a": "missing"}) == [("namespace a", "VPMEM-N02")]
    assert ids(row("a", State.UNKNOWN), states={"a": "unusable"}) == [("namespace a", "VPMEM-N03")]


def test_what_cannot_be_read():
    error = exception.LedgerError(path="/x", reason="it is full", remedy="Free space")
    (found,) = namespaces.check(snapshot(errors=[error]), NOW)
    assert (found.id, found.message) == ("VPMEM-E15", str(error))


def test_a_dirty_namespace_that_nothing_wipes():
    assert ids(row("a", State.DIRTY)) == [("namespace a", "VPMEM-N04")]
    (found,) = namespaces.check(snapshot(row("a", State.DIRTY, reason="the running domain db1")), NOW)
    assert found.message == "the running domain db1; no progress, dirty since 2026-01-31 11:00 UTC"


@pytest.mark.parametrize("age", [0, 299])
def test_a_wipe_has_some_minutes_to_begin(age):
    assert ids(row("a", State.DIRTY), age=age) == []


def test_a_wipe_that_makes_progress_needs_nobody_and_neither_do_those_behind_it():
    assert ids(row("a", State.DIRTY), row("b", State.DIRTY), active=["a"]) == []


def test_one_that_was_refused_needs_a_person_although_others_are_wiped():
    rows = [row("a", State.DIRTY), row("b", State.DIRTY, reason="in use by process 7")]
    assert ids(*rows, active=["a"]) == [("namespace b", "VPMEM-N04")]


def test_a_claim_whose_process_has_ended():
    rows = [
        row("a", State.DIRTY, owner=OWNER, reservation="r"),
        row("b", State.CLEAN, owner=OWNER, reservation="r"),
    ]
    assert ids(*rows) == [("namespace a", "VPMEM-N05"), ("namespace b", "VPMEM-N05")]
    assert ids(*rows, active=["a"]) == []
    assert ids(*rows, age=10) == []


def test_a_copy_whose_process_has_ended():
    receiving = row("a", State.RECEIVING, owner=OWNER, arrival="c")
    departing = row("b", State.CLAIMED, owner=OWNER, departure="d")
    assert ids(receiving, departing) == [("namespace a", "VPMEM-N06"), ("namespace b", "VPMEM-N06")]
    assert ids(receiving, departing, active=["a", "b"]) == []
    assert ids(row("a", State.CLAIMED, owner=OWNER, arrival="c")) == [], "a copy that is complete"


def test_a_missing_namespace_is_reported_once():
    assert ids(row("a", State.DIRTY), states={"a": "missing"}) == [("namespace a", "VPMEM-N02")]
