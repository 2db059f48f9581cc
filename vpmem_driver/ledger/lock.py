"""The lock that a process holds while it writes to the ledger, and how other processes wait for it.

SQLite has its own write lock. This lock, on a file beside the ledger, is held around it for three reasons:

* SQLite's busy handler waits inside C, so that under eventlet the whole process stops. Here waiting is
  :func:`time.sleep`, which eventlet replaces.
* SQLite's busy handler waits longer the longer it has waited, and a process that releases the lock can take it again at
  once: of two busy processes one gets nearly everything. Here one that has had the lock goes behind all that wait.
* SQLite 3.7.0 to 3.51.2 (but not 3.44.6 and 3.50.7) can corrupt a database in WAL mode when a process commits while
  another one begins a checkpoint ("The WAL-reset bug", https://sqlite.org/wal.html). Python uses the host's SQLite, and
  every supported distribution had such a version. This lock covers a whole transaction, including the automatic
  checkpoint at the end of its COMMIT, which prevents the bug.

flock(2) and not fcntl(2), because a process that closes any descriptor of a file loses all its fcntl locks on it.

A process that waits has a place in the queue: it holds a shared lock on one byte of the file, whose offset is the time
of its arrival. Whoever finds no lock before its own is the first. These are open file description locks (fcntl(2)),
which end with the process, too. The queue is only for fairness. A process that is stopped, or gets no processor, while
it is the first must not stop the others: who has waited for a while tries out of turn.
"""

import errno
import fcntl
import os
import pathlib
import random
import struct
import time

#: Time limit for another process. A transaction takes milliseconds; one that takes longer than this hangs.
TIMEOUT_SECONDS = 60

#: The least and the greatest mean time between two tries, in seconds.
_INTERVAL, _LONG_INTERVAL = 0.0005, 0.01

#: For how long a process may take the lock again while others wait, in seconds: to change takes longer than a
#: transaction may.
_TURN_SECONDS = 0.002

#: After how long a process that waits tries out of turn, in seconds. On a busy machine it takes as long until the first
#: one runs, and strict order would leave the ledger unused for half of the time.
_OVERDUE_SECONDS = 0.05

#: Who waits for long tries less often, this share of what it has waited: the holder may hang.
_SHARE_OF_WAIT = 0.002

#: Of about how many transactions the mean duration is taken.
_MEAN_OF = 16

#: struct flock of fcntl(2) on 64-bit Linux: type, whence, start, length, process.
_FLOCK = struct.Struct("@hhqqi4x")
_END_OF_QUEUE = (1 << 63) - 1

#: The byte of SQLite's shared memory file that a writer locks (WAL_WRITE_LOCK in wal.c, UNIX_SHM_BASE in os_unix.c).
_SQLITE_WRITE_LOCK = 120

#: The byte of the same file on which every open connection holds a shared lock (UNIX_SHM_DMS in os_unix.c).
_SQLITE_CONNECTED = 128


class Patience:
    """A wait for another process, with a deadline."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def is_overdue(self) -> bool:
        """Whether it is time to try out of turn."""
        return time.monotonic() - self._start >= _OVERDUE_SECONDS

    def wait(self, interval: float = _INTERVAL) -> bool:
        """Sleep before the next try, for `interval` seconds or so; False when the time is over."""
        waited = time.monotonic() - self._start
        if waited >= TIMEOUT_SECONDS:
            return False
        mean = min(max(interval, waited * _SHARE_OF_WAIT, _INTERVAL), _LONG_INTERVAL)
        time.sleep(random.uniform(0.5, 1.5) * mean)  # noqa: S311  chance, not secrecy
        return True


class WriteLock:
    """A lock on an open file. It excludes other processes, and other ledgers in this one."""

    def __init__(self, path: pathlib.Path) -> None:
        """Open the file.

        :raises OSError: it does not exist, or cannot be opened
        """
        self._file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)
        self._held = False
        self._turn_began = self._acquired = -_TURN_SECONDS
        self._transaction_seconds = 0.0  # the mean of the last ones

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
        if time.monotonic() - self._turn_began < _TURN_SECONDS and self._try():
            return
        if self._is_preceded(_END_OF_QUEUE) or not self._try():
            self._wait_in_queue()
        self._turn_began = self._acquired

    def _wait_in_queue(self) -> None:
        place = time.monotonic_ns()
        self._queue(fcntl.F_OFD_SETLK, fcntl.F_RDLCK, place, 1)
        try:
            patience = Patience()
            while (self._is_preceded(place) and not patience.is_overdue) or not self._try():
                # Each look takes processor time that the holder may need. Half a transaction is soon enough to move up.
                if not patience.wait(self._transaction_seconds / 2 if self._is_preceded(place) else _INTERVAL):
                    raise TimeoutError
        finally:
            self._queue(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, place, 1)

    def _try(self) -> bool:
        self._held = True  # before it is true: Ctrl-C can arrive just after flock
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._held = False
            if isinstance(error, BlockingIOError):
                return False
            raise
        self._acquired = time.monotonic()
        return True

    def _is_preceded(self, place: int) -> bool:
        """Whether anybody waits before `place`."""
        return self._queue(fcntl.F_OFD_GETLK, fcntl.F_WRLCK, 0, place)[0] != fcntl.F_UNLCK

    def _queue(self, command: int, kind: int, start: int, length: int) -> tuple[int, ...]:
        return _FLOCK.unpack(fcntl.fcntl(self._file, command, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0)))

    def release(self) -> None:
        """Let others take the lock, if it is held."""
        if not self._held:
            return
        self._transaction_seconds += (time.monotonic() - self._acquired - self._transaction_seconds) / _MEAN_OF
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._held = False

    def close(self) -> None:
        """Close the file, which releases the lock."""
        self._file.close()


def holder(lock_file: pathlib.Path) -> int | None:
    """Return the process that holds the lock; None if it is unknown."""
    return _holder("FLOCK", lock_file, 0)


def sqlite_writer(shared_memory: pathlib.Path) -> int | None:
    """Return the process that holds SQLite's own write lock; None if it is unknown."""
    return _holder("POSIX", shared_memory, _SQLITE_WRITE_LOCK)


def is_connected(shared_memory: pathlib.Path) -> bool:
    """Whether any process has the database open, also one of another container.

    This process must not have it open: to close the file would release SQLite's locks.

    :raises OSError: the file cannot be opened, or its filesystem does not support fcntl
    """
    try:
        descriptor = os.open(shared_memory, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _SQLITE_CONNECTED, 1, 0)
        return bool(_FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question))[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)


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
