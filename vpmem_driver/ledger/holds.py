"""What ends with a process, however that ends: a file beside the ledger that it keeps locked.

An export keeps the guest from starting while it reads. If its process dies, nobody ends the departure in the ledger.
Any other process that finds the file unlocked ends the departure instead. A move keeps others from moving the same
domain.
"""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from vpmem_driver.ledger import state_directory

_PREFIX, _SUFFIX = "departure-", ".lock"


@contextlib.contextmanager
def hold(directory: pathlib.Path, departure: str) -> Iterator[None]:
    """Keep the departure alive during the body. End it in the ledger before that ends, then :func:`forget` it.

    :raises OSError: the file cannot be made or locked
    """
    path = _path(directory, departure)
    draft = path.with_name(path.name + ".new")
    state_directory.make_file(draft, directory.stat())
    fd = os.open(draft, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        draft.rename(path)  # it is locked when others see it
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def alone(directory: pathlib.Path, owner: str) -> Iterator[None]:
    """Keep others from moving what `owner` holds during the body.

    :raises BlockingIOError: another process, or another thread of this one, moves it
    :raises OSError: the file cannot be made or locked
    """
    path = directory / f"move-{owner}{_SUFFIX}"
    with contextlib.ExitStack() as stack:
        while True:
            state_directory.make_file(path, directory.stat())
            with contextlib.suppress(FileNotFoundError):  # whoever had it has ended, and removed it
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), path.stat()):
                    break
        stack.callback(path.unlink, missing_ok=True)  # before it is unlocked
        yield


def stale(directory: pathlib.Path) -> list[str]:
    """Return the departures whose process has died. :raises OSError: a file cannot be read."""
    found = []
    for name in os.listdir(directory):
        if not (name.startswith(_PREFIX) and name.endswith(_SUFFIX)):
            continue
        with contextlib.suppress(FileNotFoundError):  # that process has ended it meanwhile
            fd = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(name.removeprefix(_PREFIX).removesuffix(_SUFFIX))
            except BlockingIOError:
                pass
            finally:
                os.close(fd)
    return found


def forget(directory: pathlib.Path, departure: str) -> None:
    """Remove the file of a departure that has ended in the ledger. :raises OSError: that failed."""
    _path(directory, departure).unlink(missing_ok=True)


def _path(directory: pathlib.Path, departure: str) -> pathlib.Path:
    return directory / f"{_PREFIX}{departure}{_SUFFIX}"
