"""Wraps what the package does to the outside: each act is announced before and after, and waiting is the controller's.

Installed once, before the package is imported. A process without an open link notices nothing.
"""

import errno
import fcntl
import functools
import json
import mmap
import os
import re
import select
import sqlite3
import stat
import subprocess
import threading
import time
import typing
from collections.abc import Callable

from tests.torture import link, spawn

_real_monotonic = time.monotonic
_real_sleep = time.sleep
_real_select = select.select
_real_poll = select.poll
_real_read = os.read
_real_write = os.write
_real_kill = os.kill
_real_nice = os.nice
_real_waitpid = os.waitpid
_real_flock = fcntl.flock
_real_connect = sqlite3.connect
_real_event_wait = threading.Event.wait


def wait(open_link: link.Link, name: str, ready: Callable[[], typing.Any], timeout: float | None) -> typing.Any:
    """What `ready` returns as soon as that is not None, or None when the controller's time is up."""
    until = None if timeout is None else open_link.now + timeout
    while (found := ready()) is None:
        if until is not None and open_link.now >= until:
            return None
        open_link.tell("wait", name, until=until)
    return found


def describe(data: bytes) -> tuple[str, str | None]:
    """What a piece of the protocol says, in a word, and the namespace that it names."""
    words, uuid = [], None
    for line in data.split(b"\n")[:-1] or [data]:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if isinstance(message, dict):
            uuid = message.get("uuid", uuid)
            words.append(" ".join(str(message[key]) for key in ("event", "phase", "kind") if key in message) or "task")
        else:
            words.append(line[:12].decode("ascii", "replace") or "nothing")
    return "+".join(dict.fromkeys(words)), uuid


# Time


def monotonic() -> float:
    current = link.current
    if current is None:
        return _real_monotonic()
    current.now += link.CLOCK_SECONDS
    return current.now


def sleep(seconds: float) -> None:
    open_link = link.active()
    if open_link is None:
        _real_sleep(seconds)
    else:
        wait(open_link, "sleep", lambda: None, seconds)


def event_wait(event: threading.Event, timeout: float | None = None) -> bool:
    open_link = link.active()
    if open_link is None or timeout is None:  # nobody but a thread of this process can set it
        return _real_event_wait(event, timeout)
    return bool(wait(open_link, "sleep", lambda: event.is_set() or None, timeout))


# Pipes


def wait_select(readers: list, writers: list, others: list, timeout: float | None = None) -> typing.Any:
    open_link = link.active()
    if open_link is None:
        return _real_select(readers, writers, others, timeout)

    def ready() -> typing.Any:
        found = _real_select(readers, writers, others, 0)
        return found if any(found) else None

    return wait(open_link, "pipe", ready, timeout) or ([], [], [])


class Poll:
    """select.poll()."""

    def __init__(self) -> None:
        self._poll = _real_poll()
        self.register, self.unregister, self.modify = self._poll.register, self._poll.unregister, self._poll.modify

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        open_link = link.active()
        if open_link is None:
            return self._poll.poll(timeout)
        seconds = None if timeout is None or timeout < 0 else timeout / 1000
        return wait(open_link, "pipe", lambda: self._poll.poll(0) or None, seconds) or []


def _is_pipe(fd: int) -> bool:
    return stat.S_ISFIFO(os.fstat(fd).st_mode)


def read(fd: int, length: int) -> bytes:
    open_link = link.active()
    if open_link is None or not _is_pipe(fd):
        return _real_read(fd, length)
    wait(open_link, "pipe", lambda: _real_select([fd], [], [], 0)[0] or None, None)
    open_link.tell("point", "before read")
    data = _real_read(fd, length)
    word, uuid = describe(data)
    open_link.tell("point", f"after read {word}", uuid=uuid)
    return data


def write(fd: int, data: bytes) -> int:
    open_link = link.active()
    if open_link is None or not _is_pipe(fd):
        return _real_write(fd, data)
    return _around(f"write {describe(bytes(data))[0]}", _real_write, fd, data)


class Stdin:
    """What a parent writes to its child."""

    def __init__(self, file: typing.IO[bytes]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> typing.Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        return _around(f"write {describe(bytes(data))[0]}", self._file.write, data)

    def close(self) -> None:
        if not self._file.closed:
            _around("close stdin", self._file.close)


# Acts


def _around(name: str, act: Callable[..., typing.Any], *values: typing.Any, **info: typing.Any) -> typing.Any:
    """Announce `act` before and after it."""
    open_link = link.active()
    if open_link is None:
        return act(*values)
    open_link.tell("point", f"before {name}", **info)
    result = act(*values)
    open_link.tell("point", f"after {name}", **info)
    return result


def _announced(name: str, act: Callable[..., typing.Any]) -> Callable[..., typing.Any]:
    @functools.wraps(act)
    def announced(fd: int, *values: typing.Any) -> typing.Any:
        return _around(name, act, fd, *values, inode=_inode(fd)) if link.active() else act(fd, *values)

    return announced


def _inode(fd: typing.Any) -> int | None:
    return os.fstat(fd).st_ino if isinstance(fd, int) else None


def flock(file: typing.Any, operation: int) -> None:
    """Of a device, or of a lock file: that is held for a moment only, and who wants it waits for it."""
    fd = file if isinstance(file, int) else file.fileno()
    open_link = link.active()
    if open_link is None:
        _real_flock(fd, operation)
    elif not os.readlink(f"/proc/self/fd/{fd}").endswith(".lock"):
        _flock_device(open_link, fd, operation)
    elif operation & fcntl.LOCK_UN:
        _real_flock(fd, operation)
        open_link.locked = False
        open_link.tell("point", "after unlock", holds_lock=False)
    else:
        open_link.tell("point", "before lock", takes_lock=True)
        _real_flock(fd, operation)
        open_link.locked = True
        open_link.tell("point", "after lock", holds_lock=True)


def _flock_device(open_link: link.Link, fd: int, operation: int) -> None:
    open_link.tell("point", "before flock")

    def locked() -> bool | None:
        try:
            _real_flock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if operation & fcntl.LOCK_NB:
                raise
            return None
        return True

    try:
        wait(open_link, "flock", locked, None)
    except BlockingIOError:
        open_link.tell("point", "after flock refused")
        raise
    open_link.tell("point", "after flock")


class Mmap(mmap.mmap):
    """A mapping. What is stored to it is seen at the next point."""

    def __new__(cls, fd: int, length: int, *values: typing.Any, **options: typing.Any) -> typing.Self:
        open_link = link.active()
        make = functools.partial(super().__new__, cls, fd, length, *values, **options)
        if open_link is None or fd < 0:
            return make()
        kind = "write" if options.get("prot", mmap.PROT_WRITE) & mmap.PROT_WRITE else "read"
        return _around(f"mmap {kind}", make, inode=_inode(fd))


def kill(pid: int, number: int) -> None:
    _real_kill(pid, number)
    open_link = link.active()
    if open_link is not None and number:
        open_link.tell("signalled", f"signal {int(number)}", pid=pid, signal=int(number))


def nice(increment: int) -> int:
    """Others wait for each step: it is no slower than theirs."""
    return _real_nice(increment if link.current is None else 0)


def waitpid(pid: int, options: int) -> tuple[int, int]:
    open_link = link.active()
    if open_link is None or options & os.WNOHANG:
        return _real_waitpid(pid, options)

    def ended() -> tuple[int, int] | None:
        found = _real_waitpid(pid, options | os.WNOHANG)
        return found if found[0] else None

    return wait(open_link, "pipe", ended, None)


# Processes


class Popen(subprocess.Popen):
    """A child process; its stdin is announced."""

    def __init__(self, *values: typing.Any, **options: typing.Any) -> None:
        open_link = link.active()
        if open_link is None:
            super().__init__(*values, **options)
            return
        open_link.tell("point", "before start of a process")
        with open_link.quiet():
            super().__init__(*values, **options)
        spawn.announce(open_link, self.pid)
        if self.stdin is not None:
            self.stdin = Stdin(self.stdin)


# SQLite

_TABLE = re.compile(r"(?:FROM|INTO|UPDATE|TABLE)\s+(\w+)", re.IGNORECASE)
#: PRAGMA synchronous: a commit is on the disk when it returns.
_FULL = 2
#: Pragmas that change the file.
_LASTING = ("journal_mode", "user_version", "application_id")
_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "ALTER", "DROP")


def _named(statement: str) -> tuple[str, str]:
    """The first word of a statement, and that with what it is about."""
    words = statement.split()
    verb = words[0].upper() if words else ""
    if verb == "BEGIN":
        return verb, " ".join(words[:2]).upper()
    if verb == "PRAGMA":
        return verb, f"PRAGMA {words[1]}"
    table = _TABLE.search(statement)
    return verb, f"{verb} {table[1]}" if table else verb


class Connection(sqlite3.Connection):
    """A connection whose statements are announced, those that can be noticed elsewhere."""

    def execute(self, statement: str, *values: typing.Any) -> sqlite3.Cursor:
        return _statement(self, statement, functools.partial(super().execute, statement, *values))

    def executemany(self, statement: str, *values: typing.Any) -> sqlite3.Cursor:
        return _statement(self, statement, functools.partial(super().executemany, statement, *values))

    def executescript(self, script: str) -> sqlite3.Cursor:
        return _statement(self, script, functools.partial(super().executescript, script))

    def commit(self) -> None:
        _statement(self, "COMMIT", super().commit)

    def rollback(self) -> None:
        _statement(self, "ROLLBACK", super().rollback)


def _statement(database: sqlite3.Connection, statement: str, run: Callable[[], typing.Any]) -> typing.Any:
    open_link = link.active()
    if open_link is None:
        return run()
    verb, name = _named(statement)
    if verb == "PRAGMA" and not name.endswith(_LASTING):
        return run()
    inside = database.in_transaction
    takes_lock = not inside and (verb in _WRITES or name in {"BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"})
    if takes_lock or verb == "COMMIT" or (verb == "PRAGMA" and "=" in statement):
        open_link.tell("point", f"before {name}", takes_lock=takes_lock, holds_lock=inside or open_link.locked)
    (synchronous,) = sqlite3.Connection.execute(database, "PRAGMA synchronous").fetchone()
    result = run()
    if verb != "SELECT" or not inside:
        committed = verb in {"COMMIT", *_WRITES} and not database.in_transaction
        holds = database.in_transaction or open_link.locked
        durable = committed and synchronous >= _FULL
        open_link.tell("point", f"after {name}", holds_lock=holds, committed=committed, durable=durable)
    return result


def connect(*values: typing.Any, **options: typing.Any) -> sqlite3.Connection:
    if link.active() is not None:
        options.setdefault("factory", Connection)
    return _real_connect(*values, **options)


def install() -> None:
    """Wrap everything. Before the package is imported."""
    time.monotonic, time.sleep = monotonic, sleep
    subprocess._time = monotonic
    threading.Event.wait = event_wait
    select.select, select.poll = wait_select, Poll
    os.read, os.write, os.kill, os.waitpid = read, write, kill, waitpid
    for name in ("fsync", "fdatasync", "posix_fadvise", "posix_fallocate", "ftruncate"):
        setattr(os, name, _announced(name, getattr(os, name)))
    os.nice = nice
    fcntl.flock = flock
    mmap.mmap = Mmap
    subprocess.Popen = Popen
    subprocess._fork_exec = spawn.fork_exec
    sqlite3.connect = connect
    assert errno.EAGAIN
