"""The lock that a process holds while it writes to the ledger, and how the others wait for it.

SQLite has a write lock of its own. This lock is held around it, on a file beside the ledger, for three reasons:

* SQLite's busy handler waits inside C, so that under eventlet the whole process stops. Here waiting is
  :func:`time.sleep`, which eventlet replaces.
* SQLite's busy handler waits longer the longer it has waited, and a process that releases the lock can take it again at
  once: of two busy processes one gets nearly everything. Here every process waits for the same random time, and one
  that has met another gives way to it before its next transactions.
* SQLite 3.7.0 to 3.51.2 (but not 3.44.6 and 3.50.7) can corrupt a database in WAL mode when a process commits while
  another one begins a checkpoint ("The WAL-reset bug", https://sqlite.org/wal.html). Python uses the host's SQLite, and
  every distribution that we support had such a version. The lock is held over a whole transaction, including the
  automatic checkpoint at the end of its COMMIT, so that this cannot happen.

flock(2) and not fcntl(2), because a process that closes any descriptor of a file loses all its fcntl locks on it.
"""

import errno
import fcntl
import os
import pathlib
import random
import time

#: How long to wait for another process. A transaction takes milliseconds; one that takes longer than this hangs.
TIMEOUT_SECONDS = 60

#: The mean time between two tries, in seconds: of the first tries, and after a second, when the holder hangs.
_INTERVAL, _LONG_INTERVAL = 0.0005, 0.01

#: Before how many transactions a process gives way to the one that it has waited for.
_GIVE_WAY = 16

#: The byte of SQLite's shared memory file that a writer locks (WAL_WRITE_LOCK in wal.c, UNIX_SHM_BASE in os_unix.c).
_SQLITE_WRITE_LOCK = 120


class Patience:
    """A wait for another process, with a deadline."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def wait(self) -> bool:
        """Sleep before the next try; False when the time is over."""
        waited = time.monotonic() - self._start
        if waited >= TIMEOUT_SECONDS:
            return False
        _sleep(_INTERVAL if waited < 1 else _LONG_INTERVAL)
        return True


class WriteLock:
    """A lock on an open file. It excludes other processes, and other ledgers in this one."""

    def __init__(self, path: pathlib.Path) -> None:
        """Open the file.

        :raises OSError: it is not there, or may not be opened
        """
        self._file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)
        self._give_way = 0

    @property
    def descriptor(self) -> int:
        """The number of the open file."""
        return self._file.fileno()

    def acquire(self) -> None:
        """Take the lock.

        :raises TimeoutError: another process holds it for too long
        :raises OSError: it is closed, or its filesystem does not have such locks
        """
        if self._file.closed:
            raise OSError(errno.EBADF, "it is closed")
        if self._give_way > 0:
            self._give_way -= 1
            _sleep(_INTERVAL)
        patience = None
        while True:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self._give_way = _GIVE_WAY
                patience = patience or Patience()
                if not patience.wait():
                    raise TimeoutError from error

    def release(self) -> None:
        """Let others take the lock."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, which releases the lock."""
        self._file.close()


def _sleep(mean_seconds: float) -> None:
    """Let others run for a random time, which differs from that of the others that wait."""
    time.sleep(random.uniform(0.5, 1.5) * mean_seconds)  # noqa: S311  chance, not secrecy


def holder(lock_file: pathlib.Path) -> int | None:
    """The process that holds the lock; None when the kernel does not tell."""
    return _holder("FLOCK", lock_file, 0)


def sqlite_writer(shared_memory: pathlib.Path) -> int | None:
    """The process that holds SQLite's own write lock; None when the kernel does not tell."""
    return _holder("POSIX", shared_memory, _SQLITE_WRITE_LOCK)


def _holder(kind: str, path: pathlib.Path, offset: int) -> int | None:
    """Look in /proc/locks, whose lines are described in proc_locks(5).

    ``1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF``: number, kind, -, access, process, device and inode, first and
    last byte. ``->`` after the number marks a process that waits.
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
