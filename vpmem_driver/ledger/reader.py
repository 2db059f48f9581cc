"""Read the ledger without a lock and without a change, for status and checks.

A reader of a database in WAL mode waits for nobody, and nobody waits for it. It must be able to read the file, and to
open or create SQLite's shared memory file beside it.
"""

import contextlib
import os
import pathlib
import re
import sqlite3
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

from vpmem_driver import exception
from vpmem_driver.ledger import check, file, migrations
from vpmem_driver.ledger.ledger import Ledger
from vpmem_driver.ledger.rows import Move

#: How long to retry while SQLite recovers the write-ahead log or the sqlite3 program holds its lock, in seconds.
_PATIENCE_SECONDS = 1.0
_POLL_SECONDS = 0.02

#: Number of history lines read at a time.
_CHUNK = 1000

_CREATE = re.compile(r'\ACREATE TABLE "?namespace"?')

_Result = TypeVar("_Result")


class LedgerReader(Ledger):
    """A ledger that is open for reading only. Methods that write fail."""

    def __init__(self, state_path: str | os.PathLike[str]) -> None:
        """Open the ledger in `state_path` and check it.

        :raises FileNotFoundError: there is no ledger yet
        :raises LedgerError: it cannot be read, or an older version wrote it
        :raises LedgerCorrupt: it is not a ledger, or damaged
        :raises LedgerVersion: a newer version of this package wrote it
        """
        self.path = pathlib.Path(state_path) / file.FILE_NAME
        self._lock = threading.RLock()
        try:
            self.path.stat()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from error
        with contextlib.ExitStack() as opened:
            address = f"file:{urllib.parse.quote(str(self.path.absolute()))}?mode=ro"
            self._db = self._retry(
                lambda: sqlite3.connect(address, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
            )
            opened.callback(self._db.close)
            self._check()
            self._opened = opened.pop_all()

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[NoReturn]:  # noqa: ARG002
        """Refuse to write."""
        raise AssertionError("a LedgerReader does not write")
        yield

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads of the body see the ledger at one moment."""
        with self._lock:
            self._execute("BEGIN")
            try:
                yield
            finally:
                self._db.rollback()

    def moved_at(self) -> dict[str, str]:
        """Return the time of each namespace's last move (UTC, ISO 8601), by uuid."""
        with self._lock:
            return dict(
                self._fetch(
                    "SELECT namespace.uuid, history.at FROM namespace JOIN history ON history.id = namespace.changed"
                )
            )

    def check_all(self) -> int:
        """Check every page of the file, and not only the table of namespaces as at each opening.

        :returns: the number of history lines
        :raises LedgerCorrupt: it is damaged
        """
        with self._lock:
            self._refuse(self._fetch("PRAGMA integrity_check"))
            ((lines,),) = self._fetch("SELECT count(*) FROM history")
        return int(lines)

    def backup(self, path: pathlib.Path) -> None:
        """Write a copy to the new file `path`, as of one moment, also while others use the ledger.

        It is one file, private to this user, checked, and on disk when this returns.

        :raises FileExistsError: `path` exists; it is unchanged
        :raises OSError: it cannot be written
        :raises LedgerError: the ledger cannot be read
        """
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as copy:
                self._retry(lambda: self._db.backup(copy))
                copy.execute("PRAGMA journal_mode = DELETE")  # otherwise a part may be in a second file
                self._refuse(copy.execute("PRAGMA integrity_check").fetchall())
            _flush(draft)
            path.hardlink_to(draft)  # unlike a rename, it never replaces a file
        except sqlite3.Error as error:
            raise OSError(None, str(error), str(path)) from error
        finally:
            draft.unlink()
        _flush(path.parent)

    def newest(self) -> Iterator[Move]:
        """Yield the history, newest line first, in bounded memory."""
        columns = ", ".join(Move.__slots__)
        before = self.last_move() + 1
        while lines := self._fetch(
            f"SELECT {columns} FROM history WHERE id < ? ORDER BY id DESC LIMIT ?",  # noqa: S608  names of fields
            (before, _CHUNK),
        ):
            yield from (Move(*line) for line in lines)
            before = lines[-1][0]

    def _check(self) -> None:
        version, known = self._version(), len(migrations.SCRIPTS)
        if version > known:
            raise exception.LedgerVersion(
                path=self.path,
                reason=f"it has version {version}; this program supports versions up to {known}",
                remedy="Use the newer vpmem_driver that wrote it",
            )
        if version < known:
            raise exception.LedgerError(
                path=self.path,
                reason=f"an older vpmem_driver wrote it: it has version {version}, this program needs {known}",
                remedy="Restart nova-compute, or run 'vpmem namespace list' as the user of the ledger; both convert it",
            )
        self._refuse(self._fetch(check.STRUCTURE))
        self._check_constraints()
        self._refuse(self._fetch(check.CONTENT))

    def _check_constraints(self) -> None:
        """Check the constraints of the table with a copy of it in memory: SQLite knows none where it may only read."""
        definition = self._fetch("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'namespace'")[0][0]
        self._execute("ATTACH ':memory:' AS copy")
        try:
            self._execute(_CREATE.sub("CREATE TABLE copy.namespace", definition))
            self._execute("INSERT INTO copy.namespace SELECT * FROM main.namespace")
        except exception.LedgerError as error:
            if isinstance(error.__cause__, sqlite3.IntegrityError):
                raise self._corrupt(str(error.__cause__)) from error
            raise
        finally:
            self._execute("DETACH copy")

    def _retry(self, call: Callable[[], _Result]) -> _Result:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return call()
            except (sqlite3.Error, UnicodeDecodeError, MemoryError) as error:
                code = getattr(error, "sqlite_errorcode", None) or 0
                if code & 0xFF in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
                    raise self._unreadable(str(error)) from error
                if code & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise self._error(error) from error
                time.sleep(_POLL_SECONDS)

    def _unreadable(self, reason: str) -> exception.LedgerError:
        return exception.LedgerError(
            path=self.path, reason=f"this user cannot read it: {reason}", remedy="Run this as root or as its user"
        )


def _flush(path: pathlib.Path) -> None:
    """Wait until a file or a directory is on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
