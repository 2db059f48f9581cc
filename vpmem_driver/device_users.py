"""Find the processes that have a device or file mapped, open or locked.

Processes are found in every mount namespace: under libvirt, QEMU has a separate /dev with its own nodes. So a device is
identified by its number and a file by filesystem and inode, never by path. Processes outside the PID namespace of /proc
are not found, for example those of the host from inside a container.

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

#: How long a process may have it open without mapping it. udev, ndctl, or a wipe that fails to get the lock close it
#: soon, but on a busy host they may wait for a CPU before that.
PATIENCE_SECONDS = 5.0
_POLL_SECONDS = 0.05
_DELETED = b" (deleted)"

#: A line of maps for a mapped file: ``start-end perms offset major:minor inode path``.
_MAPPING = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(/.*)$", re.MULTILINE)

#: (st_dev, st_ino) of a file, (st_rdev,) of a character device
_Identity = tuple[int, ...]

_Content = TypeVar("_Content", bytes, list[str])


@dataclasses.dataclass(frozen=True, slots=True)
class _Target:
    """A device or file whose users are wanted."""

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
        """Whether to call stat(2) on a path from /proc. To call it on all paths could hang, as on a dead NFS server."""
        if self.is_device:
            return path.startswith(b"/dev/") or _basename(path) == self.basename
        return path.startswith(b"/") and not path.startswith((b"/memfd:", b"/proc/", b"/sys/"))


class _Targets:
    """Several targets, searched for in one pass over the processes."""

    def __init__(self, targets: Iterable[_Target]) -> None:
        self._targets = {target.identity: target for target in targets}
        # In the format of maps.
        self._inodes = {b"%d" % target.inode for target in self._targets.values() if not target.is_device}
        self._devices = {target.basename for target in self._targets.values() if target.is_device}

    def mapped_in(self, proc: str, pid: str) -> Iterator[_Identity]:
        """Yield the targets that a process has mapped, possibly repeated. :raises OSError: it cannot be inspected."""
        process, maps = _first_live_thread(proc, pid, _read_maps) or ("", b"")
        for match in _MAPPING.finditer(maps):
            if match[5] in self._inodes or (self._devices and self._may_be_device(match[6])):
                found = self._identify(process, match)
                if found in self._targets:
                    yield found

    def _may_be_device(self, path: bytes) -> bool:
        """Whether to call stat(2) on a mapped path; see :meth:`_Target.may_be`."""
        return path.startswith(b"/dev/") or _basename(path) in self._devices

    def _identify(self, process: str, mapping: re.Match[bytes]) -> _Identity:
        """Return the identity of a mapped file or device; ``()`` if it cannot be determined."""
        start, end, major, minor = (int(field, 16) for field in mapping.groups()[:4])
        identity = (os.makedev(major, minor), int(mapping[5]))
        if identity in self._targets:
            return identity
        # On btrfs and overlayfs, stat(2) and maps report different devices. A device node has its own number.
        # Root can open the mapped file itself; other users only the path that the process sees.
        for path in (f"{process}/map_files/{start:x}-{end:x}", f"{process}/root{os.fsdecode(mapping[6])}"):
            with contextlib.suppress(OSError):
                return _identity(os.stat(path))
        return self._named(_basename(mapping[6]), identity[1])

    def _named(self, basename: bytes, inode: int) -> _Identity:
        for target in self._targets.values():
            if target.basename == basename and (target.is_device or target.inode == inode):
                return target.identity
        return ()


def mapped_by(fd: int, *, proc: str = "/proc", patience: float = PATIENCE_SECONDS) -> str | None:
    """Return another process that has the file of `fd` mapped, or keeps it open for longer than `patience` seconds.

    :returns: for example ``process 123 (qemu-system-x86)``; None if there is no such process
    :raises HostToolError: a process could not be inspected, so a use cannot be excluded
    """
    target = _target(fd)
    deadline = time.monotonic() + patience
    while True:
        not_inspected: list[str] = []
        found = _search(target, proc, not_inspected)
        if found is None:
            break
        pid, maps_it = found
        if maps_it or time.monotonic() >= deadline:
            return _describe(proc, pid)
        time.sleep(_POLL_SECONDS)
    if not_inspected and not _is_private(fd):
        raise _search_failed(f"{_describe(proc, not_inspected[0])} cannot be inspected")
    return None


def users_of(paths: Iterable[str], *, proc: str = "/proc") -> dict[str, str]:
    """Return a process for each of these device nodes and files that another process has mapped.

    Each process is inspected once for all paths, and no path is opened. Paths that do not exist, and processes that
    this user may not inspect, are skipped: the absence of a path in the result does not prove that it is unused.

    :returns: by path, the description of one user, as from :func:`mapped_by`
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
    for pid in _processes(proc, not_inspected=[]):
        with contextlib.suppress(OSError):
            for identity in set(sought.mapped_in(proc, pid)):
                users |= {path: _describe(proc, pid) for path in by_identity[identity] if path not in users}
    return users


def locked_by(fd: int, *, proc: str = "/proc") -> str | None:
    """Return the process that holds the flock(2) lock on the file of `fd`.

    :returns: as :func:`mapped_by`; None if the lock was released or its holder is not known
    """
    status = os.fstat(fd)
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError), open(f"{proc}/locks", encoding="ascii") as locks:
        for line in locks:
            match line.split():
                # "1: FLOCK ADVISORY WRITE 123 fd:01:456 0 EOF"; a waiting process has "->" before FLOCK.
                case [_, "FLOCK", _, _, pid, where, *_] if where == inode:
                    return _describe(proc, pid) if _may_have_open(proc, pid, _target(fd)) else None
    return None


def _may_have_open(proc: str, pid: str, target: _Target) -> bool:
    """Return False if the process that took the lock has ended and left it to a child: its pid may be reused."""
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
    """Return the file name of a path from /proc."""
    return os.path.basename(path.removesuffix(_DELETED))


def _search(target: _Target, proc: str, not_inspected: list[str]) -> tuple[str, bool] | None:
    """Return the first process that uses the target, and whether it maps it.

    Processes that cannot be inspected are added to `not_inspected`.
    """
    targets = _Targets([target])
    for pid in _processes(proc, not_inspected):
        try:
            if any(targets.mapped_in(proc, pid)):
                return pid, True
            if _has_open(proc, pid, target):
                return pid, False
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        except OSError:
            not_inspected.append(pid)
    return None


def _processes(proc: str, not_inspected: list[str]) -> list[str]:
    try:
        found = {name for name in os.listdir(proc) if name.isdigit()}
    except OSError as error:
        raise _search_failed(f"{proc} cannot be read: {error.strerror}") from error
    own = str(os.getpid())
    if own not in found:
        raise _search_failed(f"{proc} does not show this process")
    if "1" not in found:
        not_inspected.append("1")  # /proc is mounted with hidepid: it hides processes of other users
    return sorted(found - {own}, key=int)


def _first_live_thread(proc: str, pid: str, read: Callable[[str], _Content]) -> tuple[str, _Content] | None:
    """Return the /proc directory of a process's first thread for which `read` returns content, and that content.

    Threads share their mappings, and their open files unless one calls unshare(2), so one thread is enough. It is the
    main thread, unless that has ended: then its maps and fd are empty.
    """
    if content := read(f"{proc}/{pid}"):
        return f"{proc}/{pid}", content
    for thread in set(os.listdir(f"{proc}/{pid}/task")) - {pid}:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # this thread has ended; others may be alive
            if content := read(f"{proc}/{thread}"):
                return f"{proc}/{thread}", content
    return None


def _read_maps(process: str) -> bytes:
    with open(f"{process}/maps", "rb") as maps:
        return maps.read()


def _has_open(proc: str, pid: str, target: _Target) -> bool:
    found = _first_live_thread(proc, pid, lambda process: os.listdir(f"{process}/fd"))
    if found is None:
        return False
    process, descriptors = found
    return any(_is_open_at(f"{process}/fd/{number}", target) for number in descriptors)


def _is_open_at(path: str, target: _Target) -> bool:
    try:
        link = os.readlink(os.fsencode(path))
    except FileNotFoundError:
        return False  # already closed
    # A FUSE filesystem of another user refuses even root. Its files are not the target, which was opened.
    with contextlib.suppress(OSError):
        return target.may_be(link) and _identity(os.stat(path)) == target.identity
    return False


def _is_private(fd: int) -> bool:
    """Whether it is a file that no other user can open. Then processes of other users need not be inspected."""
    status = os.fstat(fd)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _search_failed(reason: str) -> exception.HostToolError:
    return exception.HostToolError(
        what="The search for processes that have it mapped",
        reason=reason,
        remedy="Run this as root with CAP_SYS_PTRACE; for a file that you own, run 'chmod 600' on it",
    )


def _describe(proc: str, pid: str) -> str:
    try:
        with open(f"{proc}/{pid}/comm", errors="replace", encoding="utf-8") as comm:
            name = comm.read().strip()
    except OSError:
        return f"process {pid}"
    # A process chooses its own name: do not print control characters on the operator's terminal.
    return f"process {pid} ({''.join(c if c.isprintable() else '?' for c in name)})"
