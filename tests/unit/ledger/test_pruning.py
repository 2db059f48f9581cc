"""The history does not grow without limit, and what explains the state of a namespace stays."""

import contextlib
import datetime
import sqlite3
import uuid

import pytest

from tests.unit.ledger.test_ledger import OWNER, insert
from vpmem_driver import exception, ledger
from vpmem_driver.ledger import pruning
from vpmem_driver.ledger.reader import LedgerReader
from vpmem_driver.model import State

OTHER = str(uuid.uuid4())


@pytest.fixture
def records(tmp_path):
    opened = ledger.Ledger(tmp_path / "state")
    yield opened
    opened.close()


def move(records, row, *states, owner=OWNER):
    """Move a row through states; claimed ones for `owner`."""
    for state in states:
        held = {"owner": owner, "position": 0} if state is State.CLAIMED else {}
        with records.transaction():
            row = records.move(row, state, str(state), **held)
    return row


def make_older(records, days):
    """Make everything in the ledger older, as if so much time had passed."""
    with contextlib.closing(sqlite3.connect(records.path)) as database, database:
        for table in ("history", "mark"):
            for rowid, at in database.execute(f"SELECT rowid, at FROM {table}").fetchall():  # noqa: S608
                moved = datetime.datetime.fromisoformat(at) - datetime.timedelta(days=days)
                text = moved.isoformat(timespec="milliseconds")
                database.execute(f"UPDATE {table} SET at = ? WHERE rowid = ?", (text, rowid))  # noqa: S608


def states(records, row):
    return [str(line.to_state) for line in records.history(uuid=row.uuid)]


def test_old_lines_go_and_those_since_the_last_owner_got_it_stay(records):
    held, released, unused = (insert(records) for _ in range(3))
    held = move(records, held, State.CLAIMED, State.DIRTY, State.CLEAN)
    released = move(records, released, State.CLAIMED, State.DIRTY, State.CLEAN)
    move(records, held, State.CLAIMED, owner=OTHER)
    move(records, released, State.CLAIMED, State.DIRTY, State.CLEAN)
    before = records.rows()
    make_older(records, 401)
    assert records.prune_history(400) == 8
    assert states(records, held) == ["claimed"]
    assert states(records, released) == ["claimed", "dirty", "clean"]
    assert states(records, unused) == ["unknown"]
    assert records.rows() == before


def test_a_departure_does_not_hide_how_its_owner_got_it(records):
    row = move(records, insert(records), State.CLAIMED, State.DIRTY, State.CLEAN, State.CLAIMED)
    for departure in ("0a", None):
        with records.transaction():
            row = records.depart(row, departure)
    make_older(records, 401)
    assert records.prune_history(400) == 4
    assert [line.reason for line in records.history()] == ["claimed", "copied away: 0a", "kept: copy 0a ended"]


def test_lines_that_are_not_old_stay(records):
    row = move(records, insert(records), State.CLAIMED, State.DIRTY, State.CLEAN)
    make_older(records, 300)
    row = move(records, row, State.CLAIMED, State.DIRTY, State.CLEAN, State.CLAIMED)
    make_older(records, 101)
    assert records.prune_history(400) == 4
    assert states(records, row) == ["claimed", "dirty", "clean", "claimed"]


def test_a_line_with_a_wrong_time_keeps_what_is_behind_it(records):
    row = insert(records)
    make_older(records, -500)  # the clock was ahead
    row = move(records, row, State.CLAIMED, State.DIRTY, State.CLEAN, State.CLAIMED)
    make_older(records, 401)
    assert records.prune_history(400) == 0
    assert len(states(records, row)) == 5


def test_once_a_day(records):
    row = move(records, insert(records), State.CLAIMED, State.DIRTY, State.CLEAN, State.CLAIMED)
    make_older(records, 401)
    assert records.prune_history(400) == 4
    row = move(records, row, State.DIRTY, State.CLEAN, State.CLAIMED)
    with records.transaction():
        records._execute("UPDATE history SET at = '2001-01-01T00:00:00.000+00:00'")
    assert records.prune_history(400) == 0
    make_older(records, 1)
    assert records.prune_history(400) == 3


def test_many_lines_go_in_small_transactions_and_ids_are_not_used_again(records, monkeypatch):
    monkeypatch.setattr(pruning, "_BATCH", 10)
    row = insert(records)
    for _ in range(30):
        row = move(records, row, State.CLAIMED, State.DIRTY, State.CLEAN)
    make_older(records, 401)
    last, sizes = records.last_move(), []
    transaction = records.transaction

    @contextlib.contextmanager
    def counted(**arguments):
        with transaction(**arguments):
            before = records._fetch("SELECT count(*) FROM history")[0][0]
            yield
            sizes.append(before - records._fetch("SELECT count(*) FROM history")[0][0])

    monkeypatch.setattr(records, "transaction", counted)
    assert records.prune_history(400) == 88
    assert max(sizes) <= 10
    monkeypatch.undo()
    assert (records.last_move(), states(records, row)) == (last, ["claimed", "dirty", "clean"])
    assert move(records, row, State.CLAIMED).changed == last + 1


def test_what_another_process_claims_meanwhile_stays(records, tmp_path, monkeypatch):
    """The lines to remove were chosen before."""
    row = move(records, insert(records), State.CLAIMED, State.DIRTY, State.CLEAN)
    make_older(records, 401)
    explained_from = records._explained_from

    def interrupted():
        found = explained_from()
        other = ledger.Ledger(tmp_path / "state")
        move(other, other.row(row.uuid), State.CLAIMED)
        other.close()
        return found

    monkeypatch.setattr(records, "_explained_from", interrupted)
    assert records.prune_history(400) == 1
    assert states(records, row) == ["claimed", "dirty", "clean", "claimed"]
    reader = LedgerReader(tmp_path / "state")
    assert reader.check_all() == 4
    reader.close()


def test_a_reader_in_the_middle_of_the_history_goes_on(records, monkeypatch):
    monkeypatch.setattr(ledger.queries, "_HISTORY_CHUNK", 2)
    row = move(records, insert(records), State.CLAIMED, State.DIRTY, State.CLEAN, State.CLAIMED)
    make_older(records, 401)
    reading = records.history()
    first = next(reading)
    assert records.prune_history(400) == 4
    assert [line.id for line in reading][-1] == row.changed > first.id


def test_a_full_disk_leaves_everything(records, monkeypatch):
    row = move(records, insert(records), State.CLAIMED, State.DIRTY, State.CLEAN, State.CLAIMED)
    make_older(records, 401)
    remove = records._remove

    def full(*arguments):
        def refuse():
            raise exception.LedgerError(path=records.path, reason="disk full", remedy="Free space")

        monkeypatch.setattr(records, "_require_room", refuse)
        return remove(*arguments)

    monkeypatch.setattr(records, "_remove", full)
    with pytest.raises(exception.LedgerError):
        records.prune_history(400)
    assert len(states(records, row)) == 5
