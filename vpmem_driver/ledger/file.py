"""The SQLite file of the ledger: how it is made, opened and checked, transactions, and SQLite's errors.

What it contains, and every query, is in :mod:`vpmem_driver.ledger`.
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

#: The file whose lock a process holds while it writes to the ledger. It is empty, and stays where it is.
LOCK_NAME = "ledger.lock"

#: "vpme" in ASCII; `file(1)` and we recognise a ledger among other databases by it (PRAGMA application_id).
APPLICATION_ID = 0x76706D65

_CORRUPT_REMEDY = (
    "Keep a copy, then move it away: every namespace is then unknown, and is wiped before it is handed out; "
    "what guests have must be adopted first. Or restore a backup, if nothing was claimed or released after it."
)
_MEDIUM_REMEDY = "Look for errors of its medium in the kernel log, and at the disk quota of its user; then try again."
_PERMISSION_REMEDY = "Check that [vpmem] state_path is on a writable filesystem and belongs to this user."
_REMEDIES = {
    sqlite3.SQLITE_FULL: "Make room on its filesystem, then try again.",
    sqlite3.SQLITE_IOERR: _MEDIUM_REMEDY,
    sqlite3.SQLITE_CONSTRAINT: "This is a defect of the program: please report it.",
}
#: SQLITE_ERROR, too: our statements are right, so the schema in the file is not ours.
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})

Result = TypeVar("Result")


class LedgerFile:
    """An open ledger without its queries. One connection, used under a lock."""

    def __init__(self, state_path: str | os.PathLike[str], migrations: Sequence[str]) -> None:
        """Open the ledger below `state_path`, or make it, private to one user; see :mod:`.state_directory`.

        :param migrations: SQL scripts; the ledger's version is how many of them were run
        :raises LedgerError: it cannot be made, opened or read, or another user can change it
        :raises LedgerCorrupt: it is no ledger, or damaged
        :raises LedgerVersion: a newer version of this package wrote it
        """
        self.path = pathlib.Path(state_path) / FILE_NAME
        self._migrations = migrations
        self._lock = threading.RLock()
        with contextlib.ExitStack() as opened:
            directory, self._write_lock = self._open_lock()
            opened.callback(self._write_lock.close)
            self._acquire()  # no process finds a ledger that is half made
            self._db = self._open_database(directory)
            opened.callback(self._db.close)
            self._prepare()
            self._write_lock.release()
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the connection; what was committed stays."""
        self._opened.close()

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All that is done inside is one commit, durable on leaving, or nothing if an exception passes.

        Only one transaction of all threads and processes runs at a time. An automatic checkpoint is a part of it.

        :param durable: False leaves it to the next durable commit to write this one to the disk. For what may be lost
            at a power loss because nobody has been told of it, such as a reservation.
        :raises LedgerError: it could not be begun or committed; nothing was changed
        """
        with self._lock:
            self._acquire()
            try:
                with contextlib.nullcontext() if durable else self._not_durable(), self._atomic():
                    yield
            finally:
                self._write_lock.release()

    @contextlib.contextmanager
    def _not_durable(self) -> Iterator[None]:
        self._execute("PRAGMA synchronous = NORMAL")
        try:
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
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            # SQLite may have rolled back already (disk full, I/O error).
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _open_lock(self) -> tuple[os.stat_result, lock.WriteLock]:
        """Make the directory and the lock's file, if they are not there; the directory's status and the lock."""
        lock_file = self.path.with_name(LOCK_NAME)
        try:
            directory = state_directory.prepare(self.path)
            state_directory.make_file(lock_file, directory)
            state_directory.check_file(self.path, lock_file, directory)
            return directory, lock.WriteLock(lock_file)
        except OSError as error:
            raise state_directory.error_of(self.path, error) from error

    def _open_database(self, directory: os.stat_result) -> sqlite3.Connection:
        """Open the database, or make it. SQLite gives its -wal and -shm the owner and the mode of the database."""
        self._require_room()
        try:
            if not os.path.lexists(self.path):
                self._make(directory)
            state_directory.check_file(self.path, self.path, directory)
        except OSError as error:
            raise state_directory.error_of(self.path, error) from error
        return self._connect(self.path)

    def _make(self, directory: os.stat_result) -> None:
        """Make a new ledger under another name first: one that is empty was not left so by us, but is damaged."""
        log = self.path.with_name(FILE_NAME + "-wal")
        if log.is_file():
            raise exception.LedgerCorrupt(
                path=self.path,
                reason="it is not there, but its write-ahead log is",
                remedy=f"Bring it back. Or move {log} away, too: every namespace is then unknown.",
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
                reason=f"it has version {version}; this program knows versions up to {len(self._migrations)}",
                remedy="Use the newer vpmem_driver that wrote it.",
            )
        self._refuse(self._fetch(check.STRUCTURE))
        self._execute("PRAGMA journal_mode = WAL")
        self._execute("PRAGMA synchronous = FULL")
        if version < len(self._migrations):
            self._migrate(version)
        self._refuse(self._fetch(check.CONTENT))

    def _version(self) -> int:
        """The number of migrations that were run. Refuses a database that is not a ledger, whatever its version."""
        ((version, application, tables),) = self._fetch(
            "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_user_version, pragma_application_id"
        )
        if application != APPLICATION_ID:
            raise self._corrupt("it is a database, but not a ledger" if tables else "it is empty")
        return int(version)

    def _migrate(self, version: int) -> None:
        """Run the migrations after `version`, all in one commit."""
        with self._atomic():
            for number, script in list(enumerate(self._migrations, start=1))[version:]:
                for statement in script.split(";\n"):
                    self._execute(statement)
                self._execute(f"PRAGMA user_version = {number}")
            self._execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _refuse(self, faults: list[tuple[Any, ...]]) -> None:
        """Refuse a ledger in which a check has found `faults`."""
        if faults and faults != check.NO_FAULT:
            raise self._corrupt(str(faults[0][0]))

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Run a statement that returns no rows."""
        return self._retry(lambda: self._db.execute(statement, values))

    def _fetch(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a query; all its rows. A damaged row shows only when it is fetched."""
        return self._retry(lambda: self._db.execute(statement, values).fetchall())

    def _retry(self, call: Callable[[], Result]) -> Result:
        """Call SQLite again for as long as another process, such as the sqlite3 program, is in the way."""
        patience = None
        while True:
            try:
                return call()
            except (sqlite3.Error, UnicodeDecodeError) as error:
                if _code(error) != sqlite3.SQLITE_BUSY:
                    raise self._error(error) from error
                patience = patience or lock.Patience()
                if self._db.in_transaction or not patience.wait():
                    writer = lock.sqlite_writer(self.path.with_name(FILE_NAME + "-shm"))
                    raise self._busy_error(writer) from error

    def _error(self, error: sqlite3.Error | UnicodeDecodeError) -> exception.LedgerError:
        """What SQLite reports, as an error with a remedy."""
        code = _code(error)
        if code in _CORRUPT:
            return self._corrupt(str(error))
        return exception.LedgerError(path=self.path, reason=str(error), remedy=_REMEDIES.get(code, _PERMISSION_REMEDY))

    def _corrupt(self, reason: str) -> exception.LedgerCorrupt:
        return exception.LedgerCorrupt(path=self.path, reason=reason, remedy=_CORRUPT_REMEDY)

    def _busy_error(self, process: int | None) -> exception.LedgerError:
        who = "another process" if process is None else f"process {process}"
        return exception.LedgerError(
            path=self.path,
            reason=f"{who} has held its lock for more than {lock.TIMEOUT_SECONDS} s",
            remedy="Let that process continue if it is stopped ('kill -CONT'), or end it; then try again.",
        )


def _code(error: Exception) -> int:
    """SQLite's primary result code, which is the low byte.

    Text that is not UTF-8 is reported by Python without a code: in a column as OperationalError, in one of SQLite's
    messages, which repeats a name from the file, as UnicodeDecodeError.
    """
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None and isinstance(error, sqlite3.OperationalError | UnicodeDecodeError):
        return sqlite3.SQLITE_CORRUPT
    return (code or 0) & 0xFF
