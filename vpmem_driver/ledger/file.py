"""The SQLite file of the ledger: create, open and check it, run transactions, and convert SQLite's errors.

The tables and all queries are in :mod:`vpmem_driver.ledger`.
"""

import contextlib
import os
import pathlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from vpmem_driver import exception
from vpmem_driver.ledger import check, lock, state_directory

FILE_NAME = "ledger.sqlite3"

#: The file that a process locks while it writes to the ledger. It is empty and is never deleted.
LOCK_NAME = "ledger.lock"

#: "vpme" in ASCII (PRAGMA application_id). It distinguishes a ledger from other databases, also for `file(1)`.
APPLICATION_ID = 0x76706D65

_CORRUPT_REMEDY = (
    "Restore a backup with 'vpmem ledger restore'. Or make a copy, then move the ledger away: every namespace is then "
    "unknown, and is wiped before it is claimed. Then run 'vpmem reconcile' before the next claim"
)
_MEDIUM_REMEDY = "Check the kernel log for media errors, and the disk quota of its user, then try again"
_PERMISSION_REMEDY = "Check that [vpmem] state_path is on a writable filesystem and belongs to this user"
_REMEDIES = {
    sqlite3.SQLITE_FULL: "Free space on its filesystem, then try again",
    sqlite3.SQLITE_IOERR: _MEDIUM_REMEDY,
    sqlite3.SQLITE_CONSTRAINT: "This is a bug in vpmem_driver; please report it",
}
#: This includes SQLITE_ERROR: the statements are correct, so the schema in the file must be wrong.
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})

Result = TypeVar("Result")


class LedgerFile:
    """An open ledger file: one connection, used under a lock."""

    def __init__(self, state_path: str | os.PathLike[str], migrations: Sequence[str]) -> None:
        """Open the ledger in `state_path`, or create it, private to one user (:mod:`.state_directory`).

        :param migrations: SQL scripts; the version of the ledger is the number of scripts that were run
        :raises LedgerError: it cannot be created, opened or read, or another user can change it
        :raises LedgerCorrupt: it is not a ledger, or damaged
        :raises LedgerVersion: a newer version of this package wrote it
        """
        self.path = pathlib.Path(state_path) / FILE_NAME
        self._migrations = migrations
        self._lock = threading.RLock()
        with contextlib.ExitStack() as opened:
            directory, self._write_lock = self._open_lock()
            opened.callback(self._write_lock.close)
            self._acquire()  # no other process sees an incomplete ledger
            self._db = self._open_database(directory)
            opened.callback(self._db.close)
            self._prepare()
            self._write_lock.release()
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the connection. Commits are kept."""
        self._opened.close()

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Run the body as one transaction: commit durably at its end, or roll back on an exception.

        Only one transaction of all threads and processes runs at a time. It includes an automatic checkpoint.

        :param durable: False leaves it to the next durable commit to write this one to disk. Use it for changes that
            may be lost in a power failure because no caller has seen them, such as a reservation.
        :raises LedgerError: it could not be started or committed; nothing was changed
        """
        with self._lock:
            try:
                self._acquire()
                with contextlib.nullcontext() if durable else self._not_durable(), self._atomic():
                    yield
            finally:
                self._write_lock.release()

    @contextlib.contextmanager
    def _not_durable(self) -> Iterator[None]:
        try:
            self._execute("PRAGMA synchronous = NORMAL")
            yield
        finally:
            self._execute("PRAGMA synchronous = FULL")

    def _acquire(self) -> None:
        try:
            self._write_lock.acquire()
        except TimeoutError as error:
            raise self._busy_error(lock.holder(self.path.with_name(LOCK_NAME))) from error
        except OSError as error:
            raise state_directory.error_of(self.path, error) from error

    @contextlib.contextmanager
    def _atomic(self) -> Iterator[None]:
        self._require_room()
        try:
            self._execute("BEGIN IMMEDIATE")  # inside: Ctrl-C can arrive just after it
            yield
            self._execute("COMMIT")
        except BaseException:
            # SQLite may have rolled back already (disk full, I/O error).
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _open_lock(self) -> tuple[os.stat_result, lock.WriteLock]:
        """Create the directory and the lock file if necessary. Return the directory's status and the lock."""
        lock_file = self.path.with_name(LOCK_NAME)
        try:
            directory = state_directory.prepare(self.path)
            state_directory.make_file(lock_file, directory)
            state_directory.check_file(self.path, lock_file, directory)
            return directory, lock.WriteLock(lock_file)
        except OSError as error:
            raise state_directory.error_of(self.path, error) from error

    def _open_database(self, directory: os.stat_result) -> sqlite3.Connection:
        """Open or create the database. SQLite gives its -wal and -shm files the owner and mode of the database."""
        self._require_room()
        try:
            if not os.path.lexists(self.path):
                self._create(directory)
            state_directory.check_file(self.path, self.path, directory)
        except OSError as error:
            raise state_directory.error_of(self.path, error) from error
        return self._connect(self.path)

    def _create(self, directory: os.stat_result) -> None:
        """Create a new ledger under a temporary name, so that an empty file always means damage."""
        log = self.path.with_name(FILE_NAME + "-wal")
        if log.is_file():
            raise exception.LedgerCorrupt(
                path=self.path,
                reason="it is missing, but its write-ahead log exists",
                remedy=f"Run 'vpmem ledger restore'. Or also move {log} away: every namespace is then unknown",
            )
        draft = self.path.with_name(FILE_NAME + ".new")
        draft.unlink(missing_ok=True)
        state_directory.make_file(draft, directory)
        self._db = self._connect(draft)
        try:
            self._execute("PRAGMA journal_mode = MEMORY")
            self._migrate(0)
        finally:
            self._db.close()
        self.path.hardlink_to(draft)  # unlike a rename, it never replaces a file
        draft.unlink()

    def _connect(self, path: pathlib.Path) -> sqlite3.Connection:
        try:
            return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _require_room(self) -> None:
        try:
            state_directory.require_room(self._write_lock.descriptor)
        except OSError as error:
            raise state_directory.error_of(self.path, error) from error

    def _prepare(self) -> None:
        version = self._version()
        if version > len(self._migrations):
            raise exception.LedgerVersion(
                path=self.path,
                reason=f"it has version {version}; this program supports versions up to {len(self._migrations)}",
                remedy="Use the newer vpmem_driver that wrote it",
            )
        # SQLite knows no constraints where it may only read, also because a byte of the file says so: this fails then.
        self._execute("DELETE FROM namespace WHERE 0")
        self._refuse(self._fetch(check.STRUCTURE))
        self._execute("PRAGMA journal_mode = WAL")
        self._execute("PRAGMA synchronous = FULL")
        if version < len(self._migrations):
            self._migrate(version)
        self._refuse(self._fetch(check.CONTENT))

    def _version(self) -> int:
        """Return the number of migrations that were run. Refuse a database that is not a ledger."""
        ((version, application, tables),) = self._fetch(
            "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_user_version, pragma_application_id"
        )
        if application != APPLICATION_ID:
            raise self._corrupt("it is a database, but not a ledger" if tables else "it is empty")
        return int(version)

    def _migrate(self, version: int) -> None:
        """Run the migrations after `version` in one transaction."""
        with self._atomic():
            for number, script in list(enumerate(self._migrations, start=1))[version:]:
                for statement in script.split(";\n"):
                    self._execute(statement)
                self._execute(f"PRAGMA user_version = {number}")
            self._execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _refuse(self, faults: list[tuple[Any, ...]]) -> None:
        """Refuse the ledger if a check returned `faults`."""
        if faults and faults != check.NO_FAULT:
            raise self._corrupt(str(faults[0][0]))

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Run a statement that returns no rows."""
        return self._retry(lambda: self._db.execute(statement, values))

    def _fetch(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a query and return all its rows. Fetching a damaged row raises an error."""
        return self._retry(lambda: self._db.execute(statement, values).fetchall())

    def _retry(self, call: Callable[[], Result]) -> Result:
        """Retry a call to SQLite while another process, such as the sqlite3 program, holds SQLite's lock."""
        patience = None
        while True:
            try:
                return call()
            except (sqlite3.Error, UnicodeDecodeError, MemoryError) as error:
                if _code(error) != sqlite3.SQLITE_BUSY:
                    raise self._error(error) from error
                patience = patience or lock.Patience()
                if self._db.in_transaction or not patience.wait():
                    writer = lock.sqlite_writer(self.path.with_name(FILE_NAME + "-shm"))
                    raise self._busy_error(writer) from error

    def _error(self, error: sqlite3.Error | UnicodeDecodeError | MemoryError) -> exception.LedgerError:
        """Convert an error of SQLite, and add a remedy."""
        code = _code(error)
        if code in _CORRUPT:
            return self._corrupt(str(error) or "SQLite would need more memory than there is")
        return exception.LedgerError(path=self.path, reason=str(error), remedy=_REMEDIES.get(code, _PERMISSION_REMEDY))

    def _corrupt(self, reason: str) -> exception.LedgerCorrupt:
        return exception.LedgerCorrupt(path=self.path, reason=reason, remedy=_CORRUPT_REMEDY)

    def _busy_error(self, process: int | None) -> exception.LedgerError:
        who = "another process" if process is None else f"process {process}"
        return exception.LedgerError(
            path=self.path,
            reason=f"{who} has held the lock for more than {lock.TIMEOUT_SECONDS} s",
            remedy="If that process is stopped, continue it ('kill -CONT') or end it, then try again",
        )


def _code(error: Exception) -> int:
    """Return SQLite's primary result code, which is the low byte.

    Python reports text that is not UTF-8 without a code: as OperationalError in a column, as UnicodeDecodeError in a
    message of SQLite that repeats a name from the file. A damaged length can ask for more memory than there is.
    """
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None and isinstance(error, sqlite3.OperationalError | UnicodeDecodeError | MemoryError):
        return sqlite3.SQLITE_CORRUPT
    return (code or 0) & 0xFF
