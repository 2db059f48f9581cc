"""The ledger on a real SQLite file: durable, private, strict, and clear about what is wrong with it."""

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import uuid

import pytest

from vpmem_driver import exception, ledger, model
from vpmem_driver.model import State


def namespace(**changes):
    values = {
        "uuid": str(uuid.uuid4()),
        "name": f"ns-{uuid.uuid4().hex[:6]}",
        "size": 8192,
        "align": 4096,
        "numa_node": 1,
        "mode": "file",
        "device": "/dev/null",
        "pmem": False,
    }
    return model.Namespace(**values | changes)


@pytest.fixture
def records(tmp_path):
    opened = ledger.Ledger(tmp_path / "state")
    yield opened
    opened.close()


def insert(records, **changes):
    seen = namespace(**changes)
    with records.transaction():
        records.insert(seen)
    return records.row(seen.uuid)


def test_a_new_namespace_is_unknown_and_in_the_history(records):
    row = insert(records, name="ns0")
    assert (row.name, row.state, row.owner, row.size, row.wiped, row.begun) == ("ns0", "unknown", None, 8192, 0, False)
    (move,) = records.history()
    assert (move.uuid, move.from_state, move.to_state, move.reason) == (row.uuid, None, "unknown", "first seen")


def test_a_claim_is_there_for_the_next_process(records, tmp_path):
    row = insert(records)
    with records.transaction():
        moved = records.move(row, State.CLAIMED, "claimed", owner="me", position=0, label="L", device="/dev/dax9.9")
    other = ledger.Ledger(tmp_path / "state")
    (held,) = other.held("me")
    other.close()
    assert (held.uuid, held.state, held.label, held.device) == (row.uuid, State.CLAIMED, "L", "/dev/dax9.9")
    assert held == moved


_OPEN_AND_CLOSE = """
import sys
from vpmem_driver import ledger
opened = ledger.Ledger(sys.argv[1])
print(*[row.uuid for row in opened.rows()])
opened.close()
"""


def test_open_twice_in_a_process_it_still_keeps_what_is_committed(records, tmp_path):
    """All locks that a process has on a file go with the first descriptor of that file that it closes (POSIX)."""

    def seen_by_another_process():
        command = [sys.executable, "-c", _OPEN_AND_CLOSE, str(tmp_path / "state")]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()

    first = insert(records)
    second = ledger.Ledger(tmp_path / "state")
    # Without locks of ours it takes itself for the last, and removes the write-ahead log when it closes.
    assert seen_by_another_process() == [first.uuid]
    later = insert(records)
    assert sorted(seen_by_another_process()) == sorted([first.uuid, later.uuid])
    assert second.rows() == records.rows()
    second.close()


def test_an_exception_leaves_nothing(records):
    row = insert(records)
    with pytest.raises(RuntimeError), records.transaction():
        records.move(row, State.DIRTY, "x")
        raise RuntimeError
    assert records.row(row.uuid) == row
    assert len(records.history()) == 1


def test_a_move_from_what_is_no_longer_so_is_refused(records):
    row = insert(records)
    with records.transaction():
        records.move(row, State.DIRTY, "x")
    with pytest.raises(exception.LedgerError, match="was moved since"), records.transaction():
        records.move(row, State.CLEAN, "stale")
    assert records.row(row.uuid).state is State.DIRTY


def test_a_move_to_where_it_was_before_is_seen(records):
    """Clean then and clean now is not enough: in between it was somebody's."""
    row = insert(records)
    with records.transaction():
        back = records.move(records.move(row, State.DIRTY, "x"), row.state, "and back")
    assert (back.state, back.owner) == (row.state, row.owner)
    with pytest.raises(exception.LedgerError, match="was moved since"), records.transaction():
        records.move(row, State.CLEAN, "stale")
    assert records.row(row.uuid) == back


@pytest.mark.parametrize(
    "change",
    [
        {"state": State.CLAIMED},
        {"state": State.CLEAN, "owner": "me", "position": 0},
        {"state": State.QUARANTINED, "owner": "me", "position": 0},
        {"state": State.DIRTY, "wiped": 8193},
        {"state": State.DIRTY, "wiped": -1},
    ],
)
def test_the_schema_itself_forbids_what_cannot_be(records, change):
    row = insert(records)
    with pytest.raises(exception.LedgerError, match="CHECK constraint"), records.transaction():
        records.move(row, change.pop("state"), "impossible", **change)
    assert records.row(row.uuid) == row


def test_last_owner_is_the_last_that_had_it_not_one_that_waited_for_it(records):
    row = insert(records)
    for state, owner in [(State.CLAIMED, "a"), (State.DIRTY, None), (State.DIRTY, "b"), (State.DIRTY, None)]:
        with records.transaction():
            records.move(records.row(row.uuid), state, "x", owner=owner, position=None if owner is None else 0)
    assert records.row(row.uuid).last_owner == "a"


def test_begin_wipe_is_refused_when_it_is_no_longer_dirty_or_has_got_further(records):
    row = insert(records)
    assert not records.begin_wipe(row.uuid, 0)
    with records.transaction():
        records.move(row, State.DIRTY, "x")
    assert not records.begin_wipe(row.uuid, 4096)
    assert records.begin_wipe(row.uuid, 0)
    assert records.row(row.uuid).begun
    records.progress(row.uuid, 4096)
    assert records.row(row.uuid).wiped == 4096


def test_a_new_size_ends_the_progress_of_a_wipe(records):
    row = insert(records)
    with records.transaction():
        records.move(row, State.DIRTY, "x", wiped=4096)
    row = records.row(row.uuid)
    with records.transaction():
        records.describe(row, namespace(uuid=row.uuid, size=12288))
    assert (records.row(row.uuid).wiped, records.row(row.uuid).size) == (0, 12288)


def test_history_by_namespace_owner_and_length(records):
    first, second = insert(records), insert(records)
    with records.transaction():
        records.move(first, State.CLAIMED, "mine", owner="me", position=0)
    with records.transaction():
        records.move(records.row(first.uuid), State.DIRTY, "released")
    assert [move.reason for move in records.history(uuid=first.uuid)] == ["first seen", "mine", "released"]
    assert [move.reason for move in records.history(owner="me")] == ["mine", "released"]
    assert [move.uuid for move in records.history(limit=3)] == [second.uuid, first.uuid, first.uuid]


def test_changed_since_tells_what_others_moved(records):
    first, _second = insert(records), insert(records)
    seen = records.last_move()
    with records.transaction():
        records.move(first, State.DIRTY, "x")
    assert [row.uuid for row in records.changed_since(seen)] == [first.uuid]


def test_it_is_durable_and_private(records, tmp_path):
    insert(records)
    assert records._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert records._db.execute("PRAGMA synchronous").fetchone()[0] == 2, "2 is FULL"
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}
    assert len(modes) == 3, "the database, its write-ahead log and its shared memory"
    assert set(modes.values()) == {0o600}


def test_a_ledger_that_others_could_read_is_made_private(records, tmp_path):
    records.path.chmod(0o644)
    ledger.Ledger(tmp_path / "state").close()
    assert stat.S_IMODE(records.path.stat().st_mode) == 0o600


def test_two_that_make_it_at_once_both_get_it(tmp_path):
    barrier, opened, errors = threading.Barrier(8), [], []

    def work():
        barrier.wait()
        try:
            opened.append(ledger.Ledger(tmp_path / "state"))
        except exception.VPMEMError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {one.last_move() for one in opened} == {0}
    for one in opened:
        one.close()


def test_a_ledger_of_an_older_version_is_carried_over(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "MIGRATIONS", ledger.MIGRATIONS[:1])
    old = ledger.Ledger(tmp_path)
    rows, moves, last = [insert(old), insert(old)], old.history(), old.last_move()
    old.close()
    monkeypatch.undo()
    new = ledger.Ledger(tmp_path)
    assert {row.uuid: row for row in new.rows()} == {row.uuid: row for row in rows}
    assert new.history() == moves
    assert new.changed_since(last - 1) == [rows[1]]
    insert(new)
    assert new.last_move() == last + 1
    new.close()


def test_a_mark_stays(tmp_path):
    opened = ledger.Ledger(tmp_path)
    assert not opened.marked("done")
    opened.mark("done")
    opened.mark("done")
    opened.close()
    again = ledger.Ledger(tmp_path)
    assert again.marked("done")
    assert not again.marked("something else")
    again.close()


class TestUnusable:
    """Each with a message that tells what to do; the file stays as it is."""

    def refused(self, tmp_path, kind):
        path = tmp_path / ledger.FILE_NAME
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(kind) as caught:
            ledger.Ledger(tmp_path)
        assert caught.value.exit_code == 5
        assert str(path) in str(caught.value)
        assert before is None or path.read_bytes() == before
        return str(caught.value)

    def test_not_a_database(self, tmp_path):
        (tmp_path / ledger.FILE_NAME).write_bytes(os.urandom(4096))
        assert "move it away" in self.refused(tmp_path, exception.LedgerCorrupt)

    def test_another_database(self, tmp_path):
        with sqlite3.connect(tmp_path / ledger.FILE_NAME) as database:
            database.execute("CREATE TABLE other (x)")
        database.close()
        assert "not a ledger" in self.refused(tmp_path, exception.LedgerCorrupt)

    def test_of_a_newer_version(self, tmp_path):
        opened = ledger.Ledger(tmp_path)
        opened._db.execute(f"PRAGMA user_version = {len(ledger.MIGRATIONS) + 1}")
        opened.close()
        assert "Use the newer vpmem_driver" in self.refused(tmp_path, exception.LedgerVersion)

    def test_damaged_pages(self, tmp_path):
        opened = ledger.Ledger(tmp_path)
        with opened.transaction():
            for _ in range(200):
                opened.insert(namespace())
        opened.close()
        path = tmp_path / ledger.FILE_NAME
        content = bytearray(path.read_bytes())
        content[4096 : len(content)] = os.urandom(len(content) - 4096)
        path.write_bytes(content)
        with pytest.raises(exception.LedgerCorrupt), contextlib.closing(ledger.Ledger(tmp_path)) as damaged:
            damaged.rows()

    def test_a_state_that_nobody_knows(self, records):
        row = insert(records)
        records._db.execute("PRAGMA ignore_check_constraints = ON")
        records._db.execute("UPDATE namespace SET state = 'lost' WHERE uuid = ?", (row.uuid,))
        with pytest.raises(exception.LedgerCorrupt, match="lost"):
            records.rows()

    def test_state_path_is_a_file(self, tmp_path):
        (tmp_path / "state").touch()
        with pytest.raises(exception.LedgerError, match="state_path"):
            ledger.Ledger(tmp_path / "state")

    def test_the_ledger_is_a_symlink(self, tmp_path):
        (tmp_path / "elsewhere").touch()
        (tmp_path / ledger.FILE_NAME).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(exception.LedgerError):
            ledger.Ledger(tmp_path)
        assert (tmp_path / "elsewhere").read_bytes() == b""

    def test_full(self, records):
        row = insert(records)
        pages = records._db.execute("PRAGMA page_count").fetchone()[0]
        records._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(exception.LedgerError, match="full.*Make room"), records.transaction():
            for _ in range(1000):
                records.insert(namespace())
        assert records.rows() == [row]
        assert not records._db.in_transaction
