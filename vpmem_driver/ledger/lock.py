"""The lock that a process holds while it writes to the ledger, and how other processes wait for it.

SQLite has its own write lock. This lock, on a file beside the ledger, is held around it for three reasons:

* SQLite's busy handler waits in C, which under eventlet stops the whole process. Here waiting is :func:`time.sleep`,
  which eventlet replaces.
* SQLite's busy handler waits longer and longer, and a process that releases the lock can take it again at once: of two
  busy processes, one gets almost all the time. Here every process waits for the same random time, and a process that
  had to wait sleeps before its next transactions, so that the other one gets a turn.
* SQLite 3.7.0 to 3.51.2 (except 3.44.6 and 3.50.7) can corrupt a database in WAL mode when a process commits while
  another one begins a checkpoint ("The WAL-reset bug", https://sqlite.org/wal.html). Python uses the host's SQLite, and
  every supported distribution had such a version. This lock covers a whole transaction, including the automatic
  checkpoint at the end of its COMMIT, which prevents the bug.

The lock is flock(2), not fcntl(2): a process that closes any descriptor of a file loses all its fcntl locks on it.
"""

import errno
import fcntl
import os
import pathlib
import random
import time

#: Time limit for another process. A transaction takes milliseconds; one that takes longer than this hangs.
TIMEOUT_SECONDS = 60

#: The mean time between two tries, in seconds: during the first second, and later, when the holder may hang.
_INTERVAL, _LONG_INTERVAL = 0.0005, 0.01

#: The number of transactions before which a process sleeps, after it had to wait for another one.
_YIELD_COUNT = 16

#: The byte of SQLite's shared memory file that a writer locks (WAL_WRITE_LOCK in wal.c, UNIX_SHM_BASE in os_unix.c).
_SQLITE_WRITE_LOCK = 120


class Patience:
    """A wait for another process, with a deadline."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def wait(self) -> bool:
        """Sleep before the next try. Return False when the deadline has passed."""
        waited = time.monotonic() - self._start
        if waited >= TIMEOUT_SECONDS:
            return False
        _sleep(_INTERVAL if waited < 1 else _LONG_INTERVAL)
        return True


class WriteLock:
    """A lock on an open file. It excludes other processes, and other ledgers in this one."""

    def __init__(self, path: pathlib.Path) -> None:
        """Open the file.

        :raises OSError: it does not exist, or cannot be opened
        """
        self._file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)
        self._yields_left = 0

    @property
    def descriptor(self) -> int:
        """File descriptor of the lock file."""
        return self._file.fileno()

    def acquire(self) -> None:
        """Take the lock.

        :raises TimeoutError: another process has held it for :data:`TIMEOUT_SECONDS`
        :raises OSError: the file is closed, or its filesystem does not support flock
        """
        if self._file.closed:
            raise OSError(errno.EBADF, "the ledger is closed")
        if self._yields_left > 0:
            self._yields_left -= 1
            _sleep(_INTERVAL)
        patience = None
        while True:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self._yields_left = _YIELD_COUNT
                patience = patience or Patience()
                if not patience.wait():
                    raise TimeoutError from error

    def release(self) -> None:
        """Release the lock."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, which releases the lock."""
        self._file.close()


def _sleep(mean_seconds: float) -> None:
    """Sleep for a random time, so that waiting processes do not retry at the same moment."""
    time.sleep(random.uniform(0.5, 1.5) * mean_seconds)  # noqa: S311  not for cryptography


def holder(lock_file: pathlib.Path) -> int | None:
    """Return the process that holds the lock; None if it is unknown."""
    return _holder("FLOCK", lock_file, 0)


def sqlite_writer(shared_memory: pathlib.Path) -> int | None:
    """Return the process that holds SQLite's own write lock; None if it is unknown."""
    return _holder("POSIX", shared_memory, _SQLITE_WRITE_LOCK)


def _holder(kind: str, path: pathlib.Path, offset: int) -> int | None:
    """Search /proc/locks, whose format is described in proc_locks(5).

    ``1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF``: number, kind, -, access, process, device and inode, first and
    last byte. ``->`` after the number marks a waiting process.
    """
    try:
        status = path.stat()
        lines = pathlib.Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        match line.split():
            case [_, found, _, "WRITE", process, found_file, first, last] if (found, found_file) == (kind, file):
                if int(first) <= offset and (last == "EOF" or offset <= int(last)) and int(process) > 0:
                    return int(process)
    return None
