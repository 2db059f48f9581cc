"""Which process has a device or file mapped, open or locked.

A process is found in whatever mount namespace it lives: QEMU under libvirt has a /dev of its own, with nodes of its
own. So a device is identified by its number, a file by filesystem and inode, and neither by path. A process of another
PID namespace than that of /proc is not seen: one outside of a container that does not share the host's.

Sources: proc_pid_maps(5), proc_pid_map_files(5), proc_pid_fd(5), proc_locks(5) of man-pages 6.9; fs/proc/base.c,
fs/proc/task_mmu.c and fs/locks.c, Linux 6.1.
"""

import contextlib
import dataclasses
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from vpmem_driver import exception

#: How long a process may have it open without mapping it: udev, ndctl or the loser of a race for the lock look and go.
PATIENCE_SECONDS = 1.0
_POLL_SECONDS = 0.05
_DELETED = b" (deleted)"

#: A line of maps that is of a file: ``start-end perms offset major:minor inode path``.
_MAPPING = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(/.*)$", re.MULTILINE)

#: (st_dev, st_ino) of a file, (st_rdev,) of a character device
_Identity = tuple[int, ...]

_Content = TypeVar("_Content", bytes, list[str])


@dataclasses.dataclass(frozen=True, slots=True)
class _Target:
    """What is looked for."""

    identity: _Identity
    inode: int
    basename: bytes

    @classmethod
    def of(cls, status: os.stat_result, path: str) -> "_Target":
        return cls(_identity(status), status.st_ino, _basename(os.fsencode(path)))

    @property
    def is_device(self) -> bool:
        return len(self.identity) == 1

    def may_be(self, path: bytes) -> bool:
        """Whether the path that /proc shows is worth a look. A look at each could hang, on a dead NFS server."""
        if self.is_device:
            return path.startswith(b"/dev/") or _basename(path) == self.basename
        return path.startswith(b"/") and not path.startswith((b"/memfd:", b"/proc/", b"/sys/"))


class _Targets:
    """Several of them, for one look at each process."""

    def __init__(self, targets: Iterable[_Target]) -> None:
        self._targets = {target.identity: target for target in targets}
        # As they are in maps.
        self._inodes = {b"%d" % target.inode for target in self._targets.values() if not target.is_device}
        self._devices = {target.basename for target in self._targets.values() if target.is_device}

    def mapped_in(self, proc: str, pid: str) -> Iterator[_Identity]:
        """Those that a process has mapped, some perhaps more than once. :raises OSError: it cannot be looked at."""
        process, maps = _first_living(proc, pid, _read_maps) or ("", b"")
        for match in _MAPPING.finditer(maps):
            if match[5] in self._inodes or (self._devices and self._may_be_device(match[6])):
                found = self._identify(process, match)
                if found in self._targets:
                    yield found

    def _may_be_device(self, path: bytes) -> bool:
        """Whether it is worth a look. A look at each could hang, on a dead NFS server."""
        return path.startswith(b"/dev/") or _basename(path) in self._devices

    def _identify(self, process: str, mapping: re.Match[bytes]) -> _Identity:
        """The identity of what is mapped there; ``()`` when it cannot be found."""
        start, end, major, minor = (int(field, 16) for field in mapping.groups()[:4])
        told = (os.makedev(major, minor), int(mapping[5]))
        if told in self._targets:
            return told
        # btrfs and overlayfs tell stat(2) another device than maps; and a device is known by its number.
        # The file itself, for root; by the path that the process sees for others.
        for way in (f"{process}/map_files/{start:x}-{end:x}", f"{process}/root{os.fsdecode(mapping[6])}"):
            with contextlib.suppress(OSError):
                return _identity(os.stat(way))
        return self._named(_basename(mapping[6]), told[1])

    def _named(self, basename: bytes, inode: int) -> _Identity:
        for target in self._targets.values():
            if target.basename == basename and (target.is_device or target.inode == inode):
                return target.identity
        return ()


def mapped_by(fd: int, *, proc: str = "/proc", patience: float = PATIENCE_SECONDS) -> str | None:
    """Another process that has what `fd` is open on mapped, or keeps it open for longer than `patience` seconds.

    :returns: for example ``process 123 (qemu-system-x86)``; None when there is no such process
    :raises HostToolError: processes could not be looked at, so nobody can tell
    """
    target = _target(fd)
    deadline = time.monotonic() + patience
    while True:
        unseen: list[str] = []
        found = _search(target, proc, unseen)
        if found is None:
            break
        pid, maps_it = found
        if maps_it or time.monotonic() >= deadline:
            return _describe(proc, pid)
        time.sleep(_POLL_SECONDS)
    if unseen and not _is_private(fd):
        raise _cannot_tell(f"{_describe(proc, unseen[0])} cannot be looked at")
    return None


def users_of(paths: Iterable[str], *, proc: str = "/proc") -> dict[str, str]:
    """Which of these device nodes and files another process has mapped, as far as this user may see.

    One look at each process for all paths, and nothing is opened. A path that is not there is in use by nobody, and a
    process that may not be looked at is passed over: that a path is missing here does not prove that it is unused.

    :returns: by path, one of its users in words, as :func:`mapped_by` has it
    :raises HostToolError: /proc does not list the processes
    """
    by_identity: dict[_Identity, list[str]] = {}
    targets = []
    for path in paths:
        with contextlib.suppress(OSError):
            targets.append(_Target.of(os.stat(path), path))
            by_identity.setdefault(targets[-1].identity, []).append(path)
    if not targets:
        return {}
    sought = _Targets(targets)
    users: dict[str, str] = {}
    for pid in _processes(proc, unseen=[]):
        with contextlib.suppress(OSError):
            for identity in set(sought.mapped_in(proc, pid)):
                users |= {path: _describe(proc, pid) for path in by_identity[identity] if path not in users}
    return users


def locked_by(fd: int, *, proc: str = "/proc") -> str | None:
    """The process that has taken the flock(2) lock on what `fd` is open on.

    :returns: as :func:`mapped_by`; None when nobody has it any more, or nobody can tell
    """
    status = os.fstat(fd)
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError), open(f"{proc}/locks", encoding="ascii") as locks:
        for line in locks:
            match line.split():
                # "1: FLOCK ADVISORY WRITE 123 fd:01:456 0 EOF"; one that waits for it has "->" before FLOCK.
                case [_, "FLOCK", _, _, pid, where, *_] if where == inode:
                    return _describe(proc, pid) if _may_have_open(proc, pid, _target(fd)) else None
    return None


def _may_have_open(proc: str, pid: str, target: _Target) -> bool:
    """False when the process that took the lock has left it to a child, and ended. Its number may be another's now."""
    try:
        return _has_open(proc, pid, target)
    except PermissionError:
        return True
    except OSError:
        return False


def _target(fd: int) -> _Target:
    return _Target.of(os.fstat(fd), os.readlink(f"/proc/self/fd/{fd}"))


def _identity(status: os.stat_result) -> _Identity:
    return (status.st_rdev,) if stat.S_ISCHR(status.st_mode) else (status.st_dev, status.st_ino)


def _basename(path: bytes) -> bytes:
    """The name of a file as /proc shows its path."""
    return os.path.basename(path.removesuffix(_DELETED))


def _search(target: _Target, proc: str, unseen: list[str]) -> tuple[str, bool] | None:
    """The first process that has it, and whether it maps it. Those that cannot be looked at are added to `unseen`."""
    targets = _Targets([target])
    for pid in _processes(proc, unseen):
        try:
            if any(targets.mapped_in(proc, pid)):
                return pid, True
            if _has_open(proc, pid, target):
                return pid, False
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        except OSError:
            unseen.append(pid)
    return None


def _processes(proc: str, unseen: list[str]) -> list[str]:
    try:
        found = {name for name in os.listdir(proc) if name.isdigit()}
    except OSError as error:
        raise _cannot_tell(f"{proc} cannot be read: {error.strerror}") from error
    own = str(os.getpid())
    if own not in found:
        raise _cannot_tell(f"{proc} does not show this process")
    if "1" not in found:
        unseen.append("1")  # mounted with hidepid: it shows no processes of others
    return sorted(found - {own}, key=int)


def _first_living(proc: str, pid: str, read: Callable[[str], _Content]) -> tuple[str, _Content] | None:
    """The first thread of a process for which `read` of its directory in /proc gives something, and what that is.

    Threads share what they have mapped, and what they have open unless one calls unshare(2), so that one is enough. It
    is the main thread, unless that has ended: then its maps and fd are empty.
    """
    if content := read(f"{proc}/{pid}"):
        return f"{proc}/{pid}", content
    for thread in set(os.listdir(f"{proc}/{pid}/task")) - {pid}:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # that thread has ended, others may live
            if content := read(f"{proc}/{thread}"):
                return f"{proc}/{thread}", content
    return None


def _read_maps(process: str) -> bytes:
    with open(f"{process}/maps", "rb") as maps:
        return maps.read()


def _has_open(proc: str, pid: str, target: _Target) -> bool:
    found = _first_living(proc, pid, lambda process: os.listdir(f"{process}/fd"))
    if found is None:
        return False
    process, descriptors = found
    return any(_is_open_at(f"{process}/fd/{number}", target) for number in descriptors)


def _is_open_at(way: str, target: _Target) -> bool:
    try:
        link = os.readlink(os.fsencode(way))
    except FileNotFoundError:
        return False  # closed meanwhile
    # Another user's FUSE filesystem refuses even root. What it holds is not ours, which could be opened.
    with contextlib.suppress(OSError):
        return target.may_be(link) and _identity(os.stat(way)) == target.identity
    return False


def _is_private(fd: int) -> bool:
    """Whether it is a file that no other user can have opened: then processes of others need not be looked at."""
    status = os.fstat(fd)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _cannot_tell(reason: str) -> exception.HostToolError:
    return exception.HostToolError(
        what="Looking for processes that have it mapped",
        reason=reason,
        remedy="Run this as root, with CAP_SYS_PTRACE; for a file of your own, 'chmod 600' it",
    )


def _describe(proc: str, pid: str) -> str:
    try:
        with open(f"{proc}/{pid}/comm", errors="replace", encoding="utf-8") as comm:
            name = comm.read().strip()
    except OSError:
        return f"process {pid}"
    # A process names itself: keep control characters off the operator's terminal.
    return f"process {pid} ({''.join(c if c.isprintable() else '?' for c in name)})"
