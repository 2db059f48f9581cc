"""This host's durable record of namespaces, owners and states, in SQLite.

Everything that others rely on: a transaction is one commit, on disk when it returns (WAL, synchronous=FULL); a row
moves only when nobody has moved it since the caller saw it; every move leaves a line in the history, whose id orders
all moves of all processes. A ledger that cannot be read or written raises and changes nothing.
"""

import contextlib
import dataclasses
import datetime
import errno
import os
import pathlib
import sqlite3
import stat
import threading
from collections.abc import Iterator

import msgspec

from vpmem_driver import exception, model

FILE_NAME = "ledger.sqlite3"

#: "vpme" in ASCII; `file(1)` and we tell by it that a database is a ledger (SQLite: PRAGMA application_id).
APPLICATION_ID = 0x76706D65

#: One script per version; PRAGMA user_version counts those that were run. Append, never edit.
MIGRATIONS = (
    """
    CREATE TABLE namespace (
        uuid       TEXT PRIMARY KEY,
        name       TEXT,
        size       INTEGER NOT NULL CHECK (size > 0),
        align      INTEGER NOT NULL CHECK (align > 0),
        numa_node  INTEGER,
        mode       TEXT NOT NULL,
        device     TEXT,
        pmem       INTEGER NOT NULL CHECK (pmem IN (0, 1)),
        state      TEXT NOT NULL CHECK (state IN ('unknown', 'clean', 'dirty', 'claimed', 'quarantined')),
        owner      TEXT,
        position   INTEGER,
        label      TEXT,
        last_owner TEXT,
        begun      INTEGER NOT NULL DEFAULT 0 CHECK (begun IN (0, 1)),
        wiped      INTEGER NOT NULL DEFAULT 0 CHECK (wiped BETWEEN 0 AND size),
        reason     TEXT,
        changed    INTEGER NOT NULL,
        CHECK (state <> 'claimed' OR owner IS NOT NULL),
        CHECK (owner IS NULL OR state IN ('claimed', 'dirty')),
        CHECK ((owner IS NULL) = (position IS NULL))
    ) STRICT;
    CREATE INDEX namespace_changed ON namespace (changed);
    CREATE INDEX namespace_owner ON namespace (owner) WHERE owner IS NOT NULL;
    CREATE TABLE history (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        at         TEXT NOT NULL,
        uuid       TEXT NOT NULL,
        name       TEXT,
        from_state TEXT,
        to_state   TEXT NOT NULL,
        owner      TEXT,
        reason     TEXT NOT NULL
    ) STRICT;
    CREATE INDEX history_uuid ON history (uuid);
    CREATE INDEX history_owner ON history (owner) WHERE owner IS NOT NULL;
    """,
    # Every index, and the counter of AUTOINCREMENT, is one more page that each move writes durably.
    """
    DROP INDEX namespace_changed;
    CREATE TABLE moves (
        id         INTEGER PRIMARY KEY,
        at         TEXT NOT NULL,
        uuid       TEXT NOT NULL,
        name       TEXT,
        from_state TEXT,
        to_state   TEXT NOT NULL,
        owner      TEXT,
        reason     TEXT NOT NULL
    ) STRICT;
    INSERT INTO moves SELECT * FROM history;
    DROP TABLE history;
    ALTER TABLE moves RENAME TO history;
    """,
    # What is done once in the life of a ledger.
    """
    CREATE TABLE mark (
        name TEXT PRIMARY KEY,
        at   TEXT NOT NULL
    ) STRICT;
    """,
)

#: Another process holds the write lock for a few milliseconds; longer than this it hangs.
BUSY_TIMEOUT_SECONDS = 60

_PERMISSION_REMEDY = "Check that [vpmem] state_path is on a writable filesystem and belongs to this user."
_CORRUPT_REMEDY = (
    "Keep a copy, then move it away: every namespace is then unknown, and is wiped before it is handed out; "
    "what guests have must be adopted first. Or restore a backup, if nothing was claimed or released after it."
)
_REMEDIES = {
    sqlite3.SQLITE_FULL: "Make room on its filesystem, then try again.",
    sqlite3.SQLITE_BUSY: "Another process holds it; end that one, or try again.",
    sqlite3.SQLITE_CONSTRAINT: "This is a defect of the program: please report it.",
}


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One namespace as the ledger has it. Sizes are bytes.

    :ivar owner: who holds it (claimed), or will when its wipe is done (dirty)
    :ivar position: its place among the owner's devices
    :ivar label: under which it was claimed last
    :ivar last_owner: whose bytes may be in it: the last to have held it, claimed
    :ivar begun: whether a wipe has overwritten any of it since it became dirty
    :ivar wiped: how many bytes from the start that wipe has durably zeroed
    :ivar reason: why it is quarantined, or not wiped yet
    :ivar changed: id of the history line that last moved it
    """

    uuid: str
    name: str | None
    size: int
    align: int
    numa_node: int | None
    mode: str
    device: str | None
    pmem: bool
    state: model.State
    owner: str | None
    position: int | None
    label: str | None
    last_owner: str | None
    begun: bool
    wiped: int
    reason: str | None
    changed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Move:
    """One line of the history: when, which, from and to which state, for whom, why. ``at`` is UTC, ISO 8601."""

    id: int
    at: str
    uuid: str
    name: str | None
    from_state: str | None
    to_state: str
    owner: str | None
    reason: str


_ROW_COLUMNS = ", ".join(Row.__struct_fields__)
_MOVE_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Move))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


class Ledger:
    """An open ledger. One connection, used under a lock; any number of processes may have the same file open."""

    def __init__(self, state_path: str | os.PathLike[str]) -> None:
        """Open the ledger below `state_path`, or make it, private to this user.

        :raises LedgerError: it cannot be made, opened or read
        :raises LedgerCorrupt: it is no ledger, or damaged
        :raises LedgerVersion: a newer version of this package wrote it
        """
        self.path = pathlib.Path(state_path) / FILE_NAME
        self._lock = threading.RLock()
        self._make_private()
        try:
            self._db = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._error(error) from error
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the connection; what was committed stays."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is done inside is one commit, durable on leaving, or nothing if an exception passes.

        Only one transaction of all threads and processes runs at a time.

        :raises LedgerError: it could not be begun or committed; nothing was changed
        """
        with self._lock:
            self._execute("BEGIN IMMEDIATE")
            try:
                yield
                self._execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back already (disk full, I/O error).
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def rows(self) -> list[Row]:
        """Every namespace ever seen, by name and uuid."""
        return self._select("ORDER BY name, uuid")

    def row(self, uuid: str) -> Row | None:
        """The row of one namespace."""
        return next(iter(self._select("WHERE uuid = ?", uuid)), None)

    def held(self, owner: str) -> list[Row]:
        """What `owner` holds or has reserved, in the order of its devices."""
        return self._select("WHERE owner = ? ORDER BY position", owner)

    def next_position(self, owner: str) -> int:
        """The place of the next device of `owner`: after all that it holds or has reserved."""
        with self._lock:
            found = self._execute("SELECT coalesce(max(position), -1) + 1 FROM namespace WHERE owner = ?", (owner,))
            return int(found.fetchone()[0])

    def changed_since(self, move_id: int) -> list[Row]:
        """The rows that were moved after history line `move_id`."""
        return self._select("WHERE uuid IN (SELECT uuid FROM history WHERE id > ?)", move_id)

    def last_move(self) -> int:
        """The id of the newest history line, 0 when there is none."""
        with self._lock:
            return int(self._execute("SELECT coalesce(max(id), 0) FROM history").fetchone()[0])

    def history(self, *, uuid: str | None = None, owner: str | None = None, limit: int | None = None) -> list[Move]:
        """The newest `limit` lines (all when None), oldest first, of one namespace or owner if given."""
        with self._lock:
            found = self._execute(
                f"SELECT {_MOVE_COLUMNS} FROM history WHERE (? IS NULL OR uuid = ?) AND (? IS NULL OR owner = ?) "  # noqa: S608
                "ORDER BY id DESC LIMIT ?",
                (uuid, uuid, owner, owner, -1 if limit is None else limit),
            )
            return [Move(*line) for line in reversed(found.fetchall())]

    def insert(self, namespace: model.Namespace) -> int:
        """Record a namespace that was never seen, as unknown. Inside a transaction.

        :returns: the id of its history line
        """
        assert namespace.uuid is not None  # noqa: S101  discovery gives every usable namespace one
        move_id = self._note(
            namespace.uuid, namespace.name, before=None, after=model.State.UNKNOWN, owner=None, why="first seen"
        )
        self._execute(
            "INSERT INTO namespace (uuid, name, size, align, numa_node, mode, device, pmem, state, changed) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                namespace.uuid,
                namespace.name,
                namespace.size,
                namespace.align,
                namespace.numa_node,
                namespace.mode,
                namespace.device,
                namespace.pmem,
                model.State.UNKNOWN,
                move_id,
            ),
        )
        return move_id

    def describe(self, row: Row, namespace: model.Namespace) -> None:
        """Take over what discovery says of a known namespace; state and owner stay. Inside a transaction.

        The device of a held namespace stays as it was granted: what the guest's domain XML may still say. A wipe
        begins anew where the size has changed.
        """
        self._execute(
            "UPDATE namespace SET name = ?, wiped = CASE WHEN size = ? THEN wiped ELSE 0 END, size = ?, align = ?, "
            "numa_node = ?, mode = ?, pmem = ?, device = ? WHERE uuid = ?",
            (
                namespace.name,
                namespace.size,
                namespace.size,
                namespace.align,
                namespace.numa_node,
                namespace.mode,
                namespace.pmem,
                row.device if row.owner is not None else namespace.device,
                row.uuid,
            ),
        )

    def move(
        self,
        row: Row,
        state: model.State,
        why: str,
        *,
        owner: str | None = None,
        position: int | None = None,
        label: str | None = None,
        device: str | None = None,
        begun: bool = False,
        wiped: int = 0,
        reason: str | None = None,
    ) -> Row:
        """Move one namespace to `state`, for `owner`, and write down `why`.

        Inside the transaction that `row` was read in. `label` and `device` are kept when not given.

        :returns: the row as it is now
        :raises LedgerError: the namespace was moved since it was read
        """
        move_id = self._note(
            row.uuid, row.name, before=row.state, after=state, owner=owner if owner is not None else row.owner, why=why
        )
        moved = msgspec.structs.replace(
            row,
            state=state,
            owner=owner,
            position=position,
            label=row.label if label is None else label,
            device=row.device if device is None else device,
            last_owner=row.owner if row.state is model.State.CLAIMED else row.last_owner,
            begun=begun,
            wiped=wiped,
            reason=reason,
            changed=move_id,
        )
        done = self._execute(
            "UPDATE namespace SET state = ?, owner = ?, position = ?, label = ?, device = ?, last_owner = ?, "
            "begun = ?, wiped = ?, reason = ?, changed = ? WHERE uuid = ? AND changed = ?",
            (
                *(state, owner, position, moved.label, moved.device, moved.last_owner),
                *(begun, wiped, reason, move_id, row.uuid, row.changed),
            ),
        )
        if done.rowcount != 1:
            raise exception.LedgerError(
                path=self.path,
                reason=f"namespace {row.name} ({row.uuid}) was moved since it was read, {row.state}",
                remedy="Try again.",
            )
        return moved

    def begin_wipe(self, uuid: str, wiped: int) -> bool:
        """Note that a wipe overwrites a dirty namespace from byte `wiped` on. A transaction of its own.

        :returns: False when it is no longer dirty, or its progress is another: then nothing may be overwritten
        """
        with self.transaction():
            done = self._execute(
                "UPDATE namespace SET begun = 1, reason = NULL WHERE uuid = ? AND state = 'dirty' AND wiped = ?",
                (uuid, wiped),
            )
            return done.rowcount == 1

    def progress(self, uuid: str, wiped: int) -> None:
        """Note that the first `wiped` bytes of a dirty namespace are durably zero. A transaction of its own."""
        with self.transaction():
            self._execute("UPDATE namespace SET wiped = ? WHERE uuid = ? AND state = 'dirty'", (wiped, uuid))

    def explain(self, uuid: str, reason: str) -> None:
        """Note why a dirty namespace could not be wiped yet. A transaction of its own."""
        with self.transaction():
            self._execute("UPDATE namespace SET reason = ? WHERE uuid = ? AND state = 'dirty'", (reason, uuid))

    def marked(self, name: str) -> bool:
        """Whether :meth:`mark` has recorded `name`."""
        with self._lock:
            return self._execute("SELECT 1 FROM mark WHERE name = ?", (name,)).fetchone() is not None

    def mark(self, name: str) -> None:
        """Record durably that something is done which is done once for each ledger. A transaction of its own."""
        with self.transaction():
            self._execute("INSERT INTO mark (name, at) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, _now()))

    def _note(self, uuid: str, name: str | None, *, before: str | None, after: str, owner: str | None, why: str) -> int:
        done = self._execute(
            "INSERT INTO history (at, uuid, name, from_state, to_state, owner, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (_now(), uuid, name, before, after, owner, why),
        )
        assert done.lastrowid is not None  # noqa: S101  an INSERT into a rowid table has one
        return done.lastrowid

    def _select(self, rest: str, *values: object) -> list[Row]:
        with self._lock:
            found = self._execute(f"SELECT {_ROW_COLUMNS} FROM namespace {rest}", values).fetchall()  # noqa: S608
        try:
            return msgspec.convert(found, list[Row], strict=False)  # SQLite's 0 and 1 are bool
        except msgspec.ValidationError as error:
            raise exception.LedgerCorrupt(path=self.path, reason=str(error), remedy=_CORRUPT_REMEDY) from error

    def _make_private(self) -> None:
        """The file is made here, not by SQLite, so that nobody else can ever open it; -wal and -shm copy its mode.

        It is not opened here: to close it would take away all locks that this process has on it, those of another
        open ledger too. Then the next process to close it would remove the write-ahead log that is still written.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mknod(self.path, 0o600)
            mode = self.path.lstat().st_mode
            if not stat.S_ISREG(mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            if mode & 0o077:
                self.path.chmod(0o600)
        except OSError as error:
            raise exception.LedgerError(
                path=self.path, reason=error.strerror or str(error), remedy=_PERMISSION_REMEDY
            ) from error

    def _prepare(self) -> None:
        version = self._version()
        if version > len(MIGRATIONS):
            raise exception.LedgerVersion(
                path=self.path,
                reason=f"it has version {version}; this program knows versions up to {len(MIGRATIONS)}",
                remedy="Use the newer vpmem_driver that wrote it.",
            )
        self._execute("PRAGMA journal_mode = WAL")
        self._execute("PRAGMA synchronous = FULL")
        if version < len(MIGRATIONS):
            self._migrate()

    def _version(self) -> int:
        """The number of migrations that were run. Refuses a database that is not a ledger, whatever its version."""
        # One statement, so that all three are of one moment: another process may be making the ledger right now.
        version, application, tables = self._execute(
            "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_user_version, pragma_application_id"
        ).fetchone()
        if application != APPLICATION_ID and (version, application, tables) != (0, 0, 0):
            raise exception.LedgerCorrupt(
                path=self.path, reason="it is a database, but not a ledger", remedy=_CORRUPT_REMEDY
            )
        return int(version)

    def _migrate(self) -> None:
        """Run what is missing, all in one commit. Another process may have been faster: look again under the lock."""
        with self.transaction():
            for number, script in list(enumerate(MIGRATIONS, start=1))[self._version() :]:
                for statement in script.split(";\n"):
                    self._execute(statement)
                self._execute(f"PRAGMA user_version = {number}")
            self._execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> exception.LedgerError:
        """What SQLite says, as an error that tells what to do."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary result code
        kind = exception.LedgerError
        remedy = _REMEDIES.get(code, _PERMISSION_REMEDY)
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            kind, remedy = exception.LedgerCorrupt, _CORRUPT_REMEDY
        return kind(path=self.path, reason=str(error), remedy=remedy)
