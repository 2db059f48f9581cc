"""Namespaces that are preallocated files below one directory: for fsdax hosts, the demo, development and tests.

No symbolic link is followed, but for the directory itself.
"""

import dataclasses
import functools
import logging
import mmap
import os
import re
import shlex
import stat
import uuid
from collections.abc import Iterator

from vpmem_driver import _linux, exception, model
from vpmem_driver.discovery import interface

LOG = logging.getLogger(__name__)

#: The files' identities are derived from it. It must never change: the ledger knows files by them.
_FILES = uuid.UUID("9d2f5c1e-6a0b-4f6e-8c57-3f0f6f4a1b92")

_HUGE_PAGE = 2 << 20
_NODE = re.compile(r"node(0|[1-9][0-9]{0,5})", re.ASCII)
_NOT_REGULAR = {
    stat.S_IFLNK: "it is a symbolic link, which is not followed",
    stat.S_IFDIR: "it is a directory",
    stat.S_IFBLK: "it is a block device",
    stat.S_IFCHR: "it is a character device",
    stat.S_IFIFO: "it is a named pipe",
    stat.S_IFSOCK: "it is a socket",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What statx(2) tells of a file.

    :ivar allocated: bytes that the filesystem has set aside for it
    :ivar birth: nanoseconds since 1970, 0 where the filesystem does not keep it
    :ivar dax: whether a mapping of it is of the medium itself, not of a page cache
    :ivar filesystem: major and minor number of the device that it is on
    """

    mode: int
    links: int
    inode: int
    size: int
    allocated: int
    birth: int
    dax: bool
    filesystem: tuple[int, int]


class DirectoryDiscovery(interface.Discovery):
    """Regular files in `directory`, and in its subdirectories ``node0``, ``node1``, … those of that NUMA node.

    Hidden files, ``lost+found`` and other subdirectories are not looked at. A file's identity is its inode and birth
    time: one that was put in the place of another is another namespace, one that was renamed is the same.

    :param directory: a link to one is followed, each time anew
    :param sysfs_root: where the NUMA node of a DAX filesystem's device is read
    """

    name = "directory"

    def __init__(self, directory: str, *, sysfs_root: str = "/sys") -> None:
        self._directory = os.path.abspath(directory)
        self._sysfs_root = sysfs_root
        self._warned: set[str] = set()

    def options(self) -> dict[str, str]:
        """The directory."""
        return {"directory": self._directory}

    def namespaces(self) -> tuple[model.Namespace, ...]:
        """See :meth:`.interface.Discovery.namespaces`."""
        node_of = functools.cache(self._node_of)
        found = []
        for path, told, status in _entries(os.path.realpath(self._directory)):
            # Without DAX a guest's memory is page cache, which is on no node in particular, wherever the disk is.
            node = node_of(status.filesystem) if told is None and status.dax else told
            found.append(describe(path, status, node))
            if found[-1].unusable is None:
                self._warn(status)
        return interface.check(self.name, found)

    def identity_of(self, fd: int) -> str | None:
        """See :meth:`.interface.Discovery.identity_of`."""
        status = file_status("", dir_fd=fd)
        return _identity(status) if status is not None and stat.S_ISREG(status.mode) else None

    def _node_of(self, filesystem: tuple[int, int]) -> int | None:
        device = f"{self._sysfs_root}/dev/block/{filesystem[0]}:{filesystem[1]}"
        node = interface.read_node(f"{device}/device/numa_node")
        # A partition has no "device" itself; the disk is the directory above the one that the link leads to.
        return interface.read_node(f"{device}/../device/numa_node") if node is None else node

    def _warn(self, status: Status) -> None:
        if not status.dax:
            self._once(
                "it is on a filesystem without DAX: what guests write is not persistent until it is flushed, "
                "and <pmem/> is left out of their domain XML"
            )
        if not status.birth:
            self._once(
                "its filesystem keeps no birth times: a new file with the inode of a deleted one is treated as that one"
            )

    def _once(self, warning: str) -> None:
        if warning not in self._warned:
            self._warned.add(warning)
            LOG.warning("Namespaces in %s: %s.", self._directory, warning)


def describe(path: str, status: Status, node: int | None) -> model.Namespace:
    """The namespace that the file at `path` is.

    Its alignment is a huge page where it is on DAX and its size allows it, so that a guest's mapping may use huge
    pages, and a page of this host otherwise, which is the least that mapping it needs.
    """
    name = os.path.basename(path)
    regular = stat.S_ISREG(status.mode)
    size = status.size if regular else 0
    return model.Namespace(
        uuid=_identity(status) if regular else None,
        name=name if name.isprintable() else ascii(name)[1:-1],
        size=size,
        align=_HUGE_PAGE if status.dax and size % _HUGE_PAGE == 0 else mmap.PAGESIZE,
        numa_node=node,
        mode="file",
        device=path if path.isprintable() else None,
        pmem=regular and status.dax,
        unusable=_why_unusable(path, status)
        if regular
        else _NOT_REGULAR.get(stat.S_IFMT(status.mode), "it is not a regular file"),
    )


def _identity(status: Status) -> str:
    return str(uuid.uuid5(_FILES, f"{status.inode}:{status.birth}"))


def _why_unusable(path: str, status: Status) -> str | None:
    if not path.isprintable():
        return "its path is not UTF-8, or has characters that cannot be printed"
    if status.links != 1:
        return f"it has {status.links} hard links: the same bytes have another name"
    if status.size == 0:
        return "it is empty"
    if status.size % mmap.PAGESIZE:
        return f"its size, {status.size}, is not a multiple of {mmap.PAGESIZE}"
    if status.allocated < status.size:
        # The kernel kills whoever writes to a mapping for which it finds no block. Filesystems that compress or that
        # copy on write make no promise either; those that keep it (ext4, XFS, tmpfs) count what is set aside.
        return (
            f"only {status.allocated} of its {status.size} bytes are allocated, and a guest that writes to the others "
            f"is killed when the filesystem is full; 'fallocate -l {status.size} {shlex.quote(path)}' allocates them"
        )
    return None


def _entries(top: str) -> Iterator[tuple[str, int | None, Status]]:
    """Path, NUMA node where the directory's name tells it, and status of what may be a namespace."""
    for name, status in _listed(top):
        path = os.path.join(top, name)
        if not stat.S_ISDIR(status.mode):
            yield path, None, status
        elif match := _NODE.fullmatch(name):
            for inner, inner_status in _listed(path):
                yield os.path.join(path, inner), int(match[1]), inner_status


def _listed(directory: str) -> list[tuple[str, Status]]:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            names = [name for name in os.listdir(fd) if not name.startswith(".") and name != "lost+found"]
            return [(name, status) for name in names if (status := file_status(name, dir_fd=fd)) is not None]
        finally:
            os.close(fd)
    except OSError as exc:
        raise _explained(directory, exc) from exc


def file_status(name: str, *, dir_fd: int) -> Status | None:
    """What statx(2) tells of `name` in the directory `dir_fd`, without following it; None when it is gone.

    An empty `name` is what `dir_fd` itself is open on, a file perhaps.

    :raises OSError: it failed otherwise
    """
    try:
        mode, links, inode, size, allocated, birth, dax, major, minor = _linux.statx(dir_fd, os.fsencode(name))
    except FileNotFoundError:
        return None
    return Status(
        mode=mode,
        links=links,
        inode=inode,
        size=size,
        allocated=allocated,
        birth=birth,
        dax=dax,
        filesystem=(major, minor),
    )


def _explained(directory: str, exc: OSError) -> exception.DiscoveryFailed:
    match exc:
        case FileNotFoundError():
            return _failed(f"{directory} is not there", "Mount or make it, or correct [vpmem] directory.")
        case NotADirectoryError():
            return _failed(f"{directory} is not a directory", "Correct [vpmem] directory.")
        case PermissionError():
            return _failed(f"{directory} may not be read by this user", "Run this as root, or allow it.")
    return _failed(f"{directory} cannot be read: {exc.strerror}", "Look at the filesystem and the kernel log.")


def _failed(reason: str, remedy: str) -> exception.DiscoveryFailed:
    return exception.DiscoveryFailed(source=DirectoryDiscovery.name, reason=reason, remedy=remedy)
