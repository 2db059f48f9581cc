"""Put a checked file in the place of a ledger that is lost or damaged, and keep what was there.

Whatever interrupts it, no program finds a ledger with the write-ahead log of another one, or takes the place for a host
that never had a ledger: it finds the old file, or a log without its ledger, which it refuses, or the new file.
"""

import contextlib
import datetime
import os
import pathlib
from collections.abc import Iterator

from vpmem_driver import device_users, exception
from vpmem_driver.ledger import file, lock, state_directory
from vpmem_driver.ledger.reader import LedgerReader

_STOP = "Stop nova-compute and every other program that uses it, then try again"


def require_replaceable(directory: pathlib.Path) -> None:
    """Verify that the ledger in `directory` is missing or damaged. What can be read knows more than any backup.

    :raises LedgerError: it can be read, or it cannot be told whether it is damaged
    """
    try:
        with contextlib.closing(LedgerReader(directory)) as ledger:
            ledger.check_all()
            path = ledger.path
    except (FileNotFoundError, exception.LedgerCorrupt):
        return
    raise exception.LedgerError(
        path=path,
        reason="it is not damaged, and knows more than a backup",
        remedy="Keep it. If it must go, stop every program that uses it, and move it away together with its -wal file",
    )


@contextlib.contextmanager
def exclusive(directory: pathlib.Path) -> Iterator[None]:
    """Keep other programs from the ledger in `directory` during the body. The directory is created if necessary.

    :raises LedgerError: a program has it open, or the directory is not private to one user
    """
    path = directory / file.FILE_NAME
    lock_file = path.with_name(file.LOCK_NAME)
    try:
        status = state_directory.prepare(path)
        state_directory.make_file(lock_file, status)
        state_directory.check_file(path, lock_file, status)
        with contextlib.closing(lock.WriteLock(lock_file)) as held:
            held.acquire()
            if (user := _user(path, held.descriptor)) is not None:
                raise exception.LedgerError(path=path, reason=f"{user} has it open", remedy=_STOP)
            yield
    except TimeoutError as error:
        raise exception.LedgerError(path=path, reason="another process holds its lock", remedy=_STOP) from error
    except OSError as error:
        raise state_directory.error_of(path, error) from error


def _user(path: pathlib.Path, lock_file: int) -> str | None:
    """Return a process that has the ledger open, also if its files were deleted; None if there is none.

    :param lock_file: descriptor of the lock file, which every writer has open
    """
    with contextlib.suppress(exception.HostToolError):  # it cannot inspect all processes: the other way finds those
        if (user := device_users.mapped_by(lock_file)) is not None:
            return user
    return "another process" if lock.is_connected(path.with_name(file.FILE_NAME + "-shm")) else None


def replace(directory: pathlib.Path, draft: pathlib.Path) -> pathlib.Path | None:
    """Put `draft`, a database in one file, in the place of the ledger. Call it inside :func:`exclusive`.

    :param draft: on the same filesystem
    :returns: the file that has the ledger that was there; None if there was none
    :raises OSError: that failed; everything that was there is kept
    """
    path = directory / file.FILE_NAME
    log, memory = (path.with_name(file.FILE_NAME + suffix) for suffix in ("-wal", "-shm"))
    now = datetime.datetime.now(datetime.UTC)
    kept = path.with_name(f"{file.FILE_NAME}.replaced-{now:%Y%m%dT%H%M%S.%f}Z")
    status = directory.stat()
    if draft.stat().st_uid != status.st_uid:
        os.chown(draft, status.st_uid, status.st_gid)
    was_there = os.path.lexists(path) or (log.is_file() and log.stat().st_size > 0)
    state_directory.make_file(log, status)  # a log without its ledger: from here on, nothing creates a new ledger
    if os.path.lexists(path):
        path.rename(kept)
    if log.stat().st_size:
        kept.with_name(kept.name + "-wal").hardlink_to(log)
    empty = draft.with_name("empty")
    state_directory.make_file(empty, status)
    empty.rename(log)
    memory.unlink(missing_ok=True)
    draft.rename(path)
    _flush(directory)
    return kept if was_there else None


def _flush(directory: pathlib.Path) -> None:
    """Wait until the entries of a directory are on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
