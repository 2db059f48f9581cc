"""Which process has a device or file mapped or open.

A process is found in whatever mount namespace it lives: QEMU under libvirt has a /dev of its own, with nodes of its
own. So a device is known by its number, a file by filesystem and inode, and neither by path. What cannot be seen is a
process of another PID namespace than that of /proc: one outside of a container that does not share the host's.

Sources: proc_pid_maps(5), proc_pid_map_files(5), proc_pid_fd(5) of man-pages 6.9; fs/proc/task_mmu.c, Linux 6.1.
"""

import contextlib
import dataclasses
import os
import stat
import time

from vpmem_driver import exception

#: How long a process may have it open without mapping it: udev, ndctl or the loser of a race for the lock look and go.
PATIENCE_SECONDS = 1.0
_POLL_SECONDS = 0.05
_DELETED = " (deleted)"


@dataclasses.dataclass(frozen=True, slots=True)
class _Target:
    """What is looked for: `identity` is (st_dev, st_ino) of a file, or (st_rdev,) of a character device."""

    identity: tuple[int, ...]
    inode: int
    basename: str

    def is_at(self, path: str) -> bool:
        """Whether `path` leads to it. :raises OSError: it cannot be followed."""
        return _identity(os.stat(path)) == self.identity

    @property
    def is_device(self) -> bool:
        return len(self.identity) == 1

    def may_be(self, path: str) -> bool:
        """Whether the path that /proc shows is worth a look. A look at each could hang, on a dead NFS server."""
        if self.is_device:
            return path.startswith("/dev/") or self.has_name(path)
        return path.startswith("/") and not path.startswith(("/memfd:", "/proc/", "/sys/"))

    def has_name(self, path: str) -> bool:
        return path.removesuffix(_DELETED).endswith("/" + self.basename)


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


def _target(fd: int) -> _Target:
    status = os.fstat(fd)
    path = os.readlink(f"/proc/self/fd/{fd}")
    return _Target(_identity(status), status.st_ino, os.path.basename(path).removesuffix(_DELETED))


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_rdev,) if stat.S_ISCHR(status.st_mode) else (status.st_dev, status.st_ino)


def _search(target: _Target, proc: str, unseen: list[str]) -> tuple[str, bool] | None:
    """The first process that has it, and whether it maps it. Those that cannot be looked at are added to `unseen`."""
    for pid in _processes(proc, unseen):
        process = f"{proc}/{pid}"
        try:
            if _maps(process, target):
                return pid, True
            if _has_open(process, target):
                return pid, False
        except PermissionError:
            unseen.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
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


def _maps(process: str, target: _Target) -> bool:
    with open(f"{process}/maps", "rb") as maps:
        content = maps.read()
    # Most processes end here, without a line of theirs being taken apart.
    if target.is_device:
        if b"/dev/" not in content and os.fsencode(target.basename) not in content:
            return False
    elif b" %d " % target.inode not in content:
        return False
    return any(_is_mapping(process, line, target) for line in os.fsdecode(content).split("\n"))


def _is_mapping(process: str, line: str, target: _Target) -> bool:
    """Whether one line of maps, ``start-end perms offset major:minor inode path``, is of the target."""
    fields = line.split(None, 5)
    if len(fields) < 6 or not target.may_be(fields[5]):  # noqa: PLR2004
        return False
    addresses, _, _, device, inode, path = fields
    if not target.is_device:
        if int(inode) != target.inode:
            return False
        major, minor = device.split(":")
        if os.makedev(int(major, 16), int(minor, 16)) == target.identity[0]:
            return True
        # btrfs and overlayfs tell stat(2) another device than maps.
    start, end = addresses.split("-")
    # The file itself, for root; by the path that the process sees for others.
    for way in (f"{process}/map_files/{int(start, 16):x}-{int(end, 16):x}", f"{process}/root{path}"):
        with contextlib.suppress(OSError):
            return target.is_at(way)
    return target.has_name(path)


def _has_open(process: str, target: _Target) -> bool:
    for number in os.listdir(f"{process}/fd"):
        way = f"{process}/fd/{number}"
        try:
            link = os.readlink(way)
        except FileNotFoundError:
            continue  # closed meanwhile
        if target.may_be(link):
            # Another user's FUSE filesystem refuses even root. What it holds is not ours, which could be opened.
            with contextlib.suppress(OSError):
                if target.is_at(way):
                    return True
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
