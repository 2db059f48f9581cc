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
from vpmem_driver.ledger import migrations
from vpmem_driver.model import State

OWNER = str(uuid.uuid4())


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
    assert (move.uuid, move.from_state, move.to_state, move.reason) == (row.uuid, None, "unknown", "discovered")


def test_a_claim_is_there_for_the_next_process(records, tmp_path):
    row = insert(records)
    with records.transaction():
        moved = records.move(row, State.CLAIMED, "claimed", owner=OWNER, position=0, label="L", device="/dev/dax9.9")
    other = ledger.Ledger(tmp_path / "state")
    (held,) = other.held(OWNER)
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
    assert len(list(records.history())) == 1


def test_a_move_from_what_is_no_longer_so_is_refused(records):
    row = insert(records)
    with records.transaction():
        records.move(row, State.DIRTY, "x")
    with pytest.raises(exception.LedgerError, match="has changed since"), records.transaction():
        records.move(row, State.CLEAN, "stale")
    assert records.row(row.uuid).state is State.DIRTY


def test_a_move_to_where_it_was_before_is_seen(records):
    """Clean then and clean now is not enough: in between it was somebody's."""
    row = insert(records)
    with records.transaction():
        back = records.move(records.move(row, State.DIRTY, "x"), row.state, "and back")
    assert (back.state, back.owner) == (row.state, row.owner)
    with pytest.raises(exception.LedgerError, match="has changed since"), records.transaction():
        records.move(row, State.CLEAN, "stale")
    assert records.row(row.uuid) == back


@pytest.mark.parametrize(
    "change",
    [
        {"state": State.CLAIMED},
        {"state": State.CLEAN, "owner": "me", "position": 0},
        {"state": State.DIRTY, "owner": "me", "position": 0},
        {"state": State.CLAIMED, "owner": "me", "position": 0, "reservation": "r"},
        {"state": State.CLEAN, "reservation": "r"},
        {"state": State.QUARANTINED, "owner": "me", "position": 0, "reservation": "r"},
    ],
)
def test_the_schema_itself_forbids_what_cannot_be(records, change):
    row = insert(records)
    with pytest.raises(exception.LedgerError, match="CHECK constraint"), records.transaction():
        records.move(row, change.pop("state"), "impossible", **change)
    assert records.row(row.uuid) == row


@pytest.mark.parametrize("wiped", [8193, -1])
def test_the_schema_itself_forbids_progress_beyond_the_size(records, wiped):
    row = insert(records)
    with records.transaction():
        records.move(row, State.DIRTY, "x")
    run = records.begin_wipe(row.uuid, 0)
    with pytest.raises(exception.LedgerError, match="CHECK constraint"):
        records.progress(row.uuid, run, wiped=wiped)


def test_last_owner_is_the_last_that_had_it_not_one_that_waited_for_it(records):
    row = insert(records)
    for state, owner in [(State.CLAIMED, "a"), (State.DIRTY, None), (State.DIRTY, "b"), (State.DIRTY, None)]:
        with records.transaction():
            place = {} if owner is None else {"position": 0, "reservation": "r" if state is State.DIRTY else None}
            records.move(records.row(row.uuid), state, "x", owner=owner, **place)
    assert records.row(row.uuid).last_owner == "a"


def test_begin_wipe_is_refused_when_it_is_no_longer_dirty_or_has_got_further(records):
    row = insert(records)
    assert not records.begin_wipe(row.uuid, 0)
    with records.transaction():
        records.move(row, State.DIRTY, "x")
    assert not records.begin_wipe(row.uuid, 4096)
    assert records.begin_wipe(row.uuid, 0)
    assert records.row(row.uuid).begun


def test_only_the_wipe_whose_token_the_ledger_has_reports(records):
    row = insert(records)
    with records.transaction():
        records.move(row, State.DIRTY, "x")
    old = records.begin_wipe(row.uuid, 0)
    new = records.begin_wipe(row.uuid, 0)
    assert not records.progress(row.uuid, old, wiped=8192)
    records.explain(records.row(row.uuid), old, "a stale reason")
    assert (records.row(row.uuid).wiped, records.row(row.uuid).reason) == (0, None)
    assert records.progress(row.uuid, new, wiped=4096)
    assert records.progress(row.uuid, new, verified=4096)
    assert (records.row(row.uuid).wiped, records.row(row.uuid).verified) == (4096, 4096)


@pytest.mark.parametrize("keep_wipe", [True, False])
def test_a_move_invalidates_a_wipe_unless_the_namespace_stays_dirty(records, keep_wipe):
    row = insert(records)
    with records.transaction():
        records.move(row, State.DIRTY, "x")
    run = records.begin_wipe(row.uuid, 0)
    with records.transaction():
        reserved = {"owner": "me", "position": 0, "reservation": "r"}
        records.move(records.row(row.uuid), State.DIRTY, "reserved", keep_wipe=keep_wipe, **reserved)
    assert records.progress(row.uuid, run, wiped=4096) is keep_wipe


def test_a_new_size_ends_the_progress_of_a_wipe(records):
    row = insert(records)
    with records.transaction():
        records.move(row, State.DIRTY, "x")
    run = records.begin_wipe(row.uuid, 0)
    records.progress(row.uuid, run, wiped=4096)
    row = records.row(row.uuid)
    with records.transaction():
        records.describe(row, namespace(uuid=row.uuid, size=12288))
    assert (records.row(row.uuid).wiped, records.row(row.uuid).size) == (0, 12288)
    assert not records.progress(row.uuid, run, wiped=8192), "the wipe knows the old size"


def test_history_by_namespace_owner_and_length(records):
    first, second = insert(records), insert(records)
    with records.transaction():
        records.move(first, State.CLAIMED, "mine", owner="me", position=0)
    with records.transaction():
        records.move(records.row(first.uuid), State.DIRTY, "released")
    assert [move.reason for move in records.history(uuid=first.uuid)] == ["discovered", "mine", "released"]
    assert [move.reason for move in records.history(owner="me")] == ["mine", "released"]
    assert [move.uuid for move in records.history(limit=3)] == [second.uuid, first.uuid, first.uuid]


def test_history_is_read_in_pieces_without_a_transaction_that_stays_open(records, tmp_path, monkeypatch):
    monkeypatch.setattr("vpmem_driver.ledger.queries._HISTORY_CHUNK", 2)
    rows = [insert(records) for _ in range(5)]
    lines = records.history()
    assert next(lines).uuid == rows[0].uuid
    insert(records)  # it is newer than the listing
    other = sqlite3.connect(tmp_path / "state" / ledger.FILE_NAME)
    assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, "a reader would be in its way"
    other.close()
    assert [line.uuid for line in lines] == [row.uuid for row in rows[1:]]
    for limit in range(8):
        assert list(records.history(limit=limit)) == list(records.history())[6 - min(limit, 6) :]
    assert list(records.history(owner="nobody")) == []


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
    assert len(modes) == 4, "the database, its write-ahead log, its shared memory and the lock"
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


_OWNER = str(uuid.uuid4())
#: Namespaces as version 1 has them: state, owner, position, begun, wiped.
_OLD = {
    "unknown": ("unknown", None, None, 0, 0),
    "claimed": ("claimed", _OWNER, 0, 0, 0),
    "reserved": ("dirty", _OWNER, 1, 1, 4096),
    "dirty": ("dirty", None, None, 1, 4096),
}


@pytest.mark.parametrize("version", [1, 2])
def test_a_ledger_of_an_older_version_is_carried_over(tmp_path, monkeypatch, version):
    monkeypatch.setattr(migrations, "SCRIPTS", migrations.SCRIPTS[:version])
    old = ledger.Ledger(tmp_path)
    uuids = {name: str(uuid.uuid4()) for name in _OLD}
    with old.transaction():
        for name, values in _OLD.items():
            old.insert(namespace(uuid=uuids[name], name=name))
            change = "UPDATE namespace SET state = ?, owner = ?, position = ?, begun = ?, wiped = ? WHERE name = ?"
            old._execute(change, (*values, name))
            old._execute("UPDATE history SET to_state = ?, owner = ? WHERE name = ?", (*values[:2], name))
    moves, last = list(old.history()), old.last_move()
    old.close()
    monkeypatch.undo()
    new = ledger.Ledger(tmp_path)
    rows = {row.name: row for row in new.rows()}
    assert {name: (row.state, row.owner, row.position, row.begun, row.wiped) for name, row in rows.items()} == _OLD
    assert {name: row.uuid for name, row in rows.items()} == uuids
    assert {name for name, row in rows.items() if row.reservation is not None} == {"reserved"}
    owned = {"claimed": model.IN_TREE, "reserved": model.IN_TREE}
    assert {name: row.hardware for name, row in rows.items() if row.hardware is not None} == owned
    assert list(new.history()) == moves
    assert [row.name for row in new.changed_since(last - 1)] == ["dirty"]
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


_UNOWNED = "owner = NULL, position = NULL, device_model = NULL, label_size = NULL"


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

    def edit(self, tmp_path, statement):
        with contextlib.closing(sqlite3.connect(tmp_path / ledger.FILE_NAME)) as database, database:
            database.execute("PRAGMA writable_schema = ON")
            database.execute(statement)

    def test_not_a_database(self, tmp_path):
        (tmp_path / ledger.FILE_NAME).write_bytes(os.urandom(4096))
        assert "move the ledger away" in self.refused(tmp_path, exception.LedgerCorrupt)

    def test_another_database(self, tmp_path):
        with sqlite3.connect(tmp_path / ledger.FILE_NAME) as database:
            database.execute("CREATE TABLE other (x)")
        database.close()
        assert "not a ledger" in self.refused(tmp_path, exception.LedgerCorrupt)

    def test_of_a_newer_version(self, tmp_path):
        opened = ledger.Ledger(tmp_path)
        opened._db.execute(f"PRAGMA user_version = {len(migrations.SCRIPTS) + 1}")
        opened.close()
        assert "Use the newer vpmem_driver" in self.refused(tmp_path, exception.LedgerVersion)

    def test_an_empty_file_is_no_new_ledger(self, tmp_path):
        """It would say of all that guests have that it is unknown."""
        (tmp_path / ledger.FILE_NAME).touch(mode=0o600)
        assert "it is empty" in self.refused(tmp_path, exception.LedgerCorrupt)

    def test_a_log_without_its_ledger(self, tmp_path):
        """SQLite would take a new ledger for the one that the log belongs to."""
        with contextlib.closing(ledger.Ledger(tmp_path)) as records:
            insert(records)
            log = (tmp_path / "ledger.sqlite3-wal").read_bytes()
        (tmp_path / ledger.FILE_NAME).unlink()
        (tmp_path / "ledger.sqlite3-wal").write_bytes(log)
        assert "its write-ahead log exists" in self.refused(tmp_path, exception.LedgerCorrupt)
        (tmp_path / "ledger.sqlite3-wal").unlink()
        ledger.Ledger(tmp_path).close()

    def test_half_made_by_a_process_that_was_killed_it_is_made_anew(self, tmp_path):
        with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite3.new")) as draft:
            draft.execute(migrations.SCRIPTS[0].split(";\n")[0])
            draft.commit()
        with contextlib.closing(ledger.Ledger(tmp_path)) as records:
            insert(records)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.lock", "ledger.sqlite3"]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (f"UPDATE namespace SET state = 'clean', {_UNOWNED}", "newest history line"),  # noqa: S608
            ("UPDATE namespace SET owner = '2c5a4c1e-0000-4000-8000-000000000001'", "newest history line"),
            ("UPDATE namespace SET uuid = '2c5a4c1e-0000-4000-8000-000000000002'", "newest history line"),
            ("UPDATE namespace SET changed = changed - 1", "newest history line"),
            ("UPDATE namespace SET changed = changed + 1", "newest history line"),
            ("DELETE FROM history", "newest history line"),
            ("UPDATE history SET owner = NULL", "newest history line"),
            ("UPDATE namespace SET uuid = upper(uuid)", "its uuid is malformed"),
            ("UPDATE namespace SET owner = owner || '0'", "its owner is not a uuid"),
            ("UPDATE namespace SET last_owner = 'me'", "its last owner is not a uuid"),
            ("UPDATE namespace SET state = 'lost'", "CHECK constraint failed"),
            ("UPDATE namespace SET position = NULL", "CHECK constraint failed"),
            ("UPDATE namespace SET wiped = size + 1", "CHECK constraint failed"),
            ("UPDATE namespace SET size = 0", "CHECK constraint failed"),
            ("UPDATE namespace SET device_model = 'dimm'", "CHECK constraint failed"),
            ("UPDATE namespace SET device_model = 'virtio-pmem'", "CHECK constraint failed"),
            ("UPDATE namespace SET device_model = NULL", "CHECK constraint failed"),
            ("UPDATE namespace SET label_size = NULL", "CHECK constraint failed"),
            ("UPDATE namespace SET label_size = -1", "CHECK constraint failed"),
        ],
    )
    def test_a_row_that_cannot_be(self, tmp_path, change, said):
        with contextlib.closing(ledger.Ledger(tmp_path)) as records:
            row = insert(records)
            with records.transaction():
                records.move(row, State.CLAIMED, "claimed", owner=OWNER, position=0)
            records._db.execute("PRAGMA ignore_check_constraints = ON")
            records._db.execute(change)
        assert said in self.refused(tmp_path, exception.LedgerCorrupt)

    def test_an_index_that_lacks_a_row(self, tmp_path):
        """What an owner holds is looked up there."""
        with contextlib.closing(ledger.Ledger(tmp_path)) as records:
            row = insert(records)
            with records.transaction():
                records.move(row, State.CLAIMED, "claimed", owner=OWNER, position=0)
        schema = "UPDATE sqlite_master SET sql = replace(sql, 'IS {}NULL', 'IS {}NULL') WHERE name = 'namespace_owner'"
        self.edit(tmp_path, schema.format("NOT ", ""))
        self.edit(tmp_path, "REINDEX namespace_owner")  # with the rows that have no owner
        self.edit(tmp_path, schema.format("", "NOT "))
        assert "namespace_owner" in self.refused(tmp_path, exception.LedgerCorrupt)

    def test_text_that_is_not_utf_8(self, records):
        row = insert(records)
        records._db.execute("UPDATE namespace SET name = CAST(x'ff' AS TEXT) WHERE uuid = ?", (row.uuid,))
        records._db.execute("UPDATE history SET name = CAST(x'ff' AS TEXT) WHERE uuid = ?", (row.uuid,))
        for read in (records.rows, lambda: list(records.history())):
            with pytest.raises(exception.LedgerCorrupt, match="UTF-8"):
                read()

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
        with pytest.raises(exception.LedgerError, match="full.*Free space"), records.transaction():
            for _ in range(1000):
                records.insert(namespace())
        assert records.rows() == [row]
        assert not records._db.in_transaction
