"""Namespaces that are preallocated files below one directory: for fsdax hosts, the demo, development and tests.

No symbolic link is followed, but for the directory itself.
"""

import ctypes
import dataclasses
import errno
import functools
import logging
import mmap
import os
import re
import shlex
import stat
import struct
import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

from vpmem_driver import exception, model
from vpmem_driver.discovery import base

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

# statx(2), because os.stat() of Python 3.11 to 3.13 tells neither birth time nor DAX. This is struct statx of
# linux/stat.h (Linux 6.1), the same on every architecture; the function came with glibc 2.28 and musl 1.2.5.
_STATX = struct.Struct("=I4xQI8xH2xQQQ8x16xqI4x32x8xII112x")
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_STATX_BASIC_STATS = 0x7FF
_STATX_BTIME = 0x800
_STATX_ATTR_DAX = 0x200000

_Seen = TypeVar("_Seen")
#: the NUMA node of a filesystem's device, by its number
NodeOf = Callable[[tuple[int, int]], int | None]


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


class DirectoryDiscovery(base.Discovery):
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
        #: the path of each namespace below the directory, by uuid, since the last listing
        self._places: dict[str, str] = {}

    def options(self) -> dict[str, str]:
        """The directory."""
        return {"directory": self._directory}

    def namespaces(self) -> tuple[model.Namespace, ...]:
        """See :meth:`base.Discovery.namespaces`."""
        node_of = functools.cache(self._node_of)
        top = os.path.realpath(self._directory)
        found = {}
        for place, status in _entries(top):
            found[place] = _describe_below(top, place, status, node_of)
            if found[place].unusable is None:
                self._warn(status)
        namespaces = base.check(self.name, found.values())
        self._places = base.places(found, namespaces)
        return namespaces

    def _read_again(self, uuid: str) -> tuple[model.Namespace, ...]:
        place = self._places.get(uuid)
        if place is None:
            return ()
        top = os.path.realpath(self._directory)
        parent, name = os.path.split(place)
        try:
            status = _in(os.path.join(top, parent), lambda fd: file_status(name, dir_fd=fd))
        except exception.DiscoveryFailed:
            return ()  # perhaps its subdirectory is gone, and it is in another one
        if status is None:
            return ()
        return base.check(self.name, [_describe_below(top, place, status, self._node_of)])

    def identity_of(self, fd: int) -> str | None:
        """See :meth:`base.Discovery.identity_of`."""
        status = file_status("", dir_fd=fd)
        return _identity(status) if status is not None and stat.S_ISREG(status.mode) else None

    def _node_of(self, filesystem: tuple[int, int]) -> int | None:
        device = f"{self._sysfs_root}/dev/block/{filesystem[0]}:{filesystem[1]}"
        node = base.read_node(f"{device}/device/numa_node")
        # A partition has no "device" itself; the disk is the directory above the one that the link leads to.
        return base.read_node(f"{device}/../device/numa_node") if node is None else node

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


def _describe_below(top: str, place: str, status: Status, node_of: NodeOf) -> model.Namespace:
    """The namespace that the file `place` below the directory `top` is."""
    told = _NODE.fullmatch(os.path.dirname(place))
    # Without DAX a guest's memory is page cache, which is on no node in particular, wherever the disk is.
    node = int(told[1]) if told else node_of(status.filesystem) if status.dax else None
    return describe(os.path.join(top, place), status, node)


def _entries(top: str) -> Iterator[tuple[str, Status]]:
    """Path below `top` and status of what may be a namespace."""
    for name, status in _listed(top):
        if not stat.S_ISDIR(status.mode):
            yield name, status
        elif _NODE.fullmatch(name):
            for inner, inner_status in _listed(os.path.join(top, name)):
                yield os.path.join(name, inner), inner_status


def _listed(directory: str) -> list[tuple[str, Status]]:
    def listed(fd: int) -> list[tuple[str, Status]]:
        names = [name for name in os.listdir(fd) if not name.startswith(".") and name != "lost+found"]
        return [(name, status) for name in names if (status := file_status(name, dir_fd=fd)) is not None]

    return _in(directory, listed)


def _in(directory: str, look: Callable[[int], _Seen]) -> _Seen:
    """What `look` finds in a directory, which is open meanwhile."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return look(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise _explained(directory, exc) from exc


def file_status(name: str, *, dir_fd: int) -> Status | None:
    """What statx(2) tells of `name` in the directory `dir_fd`, without following it; None when it is gone.

    An empty `name` is what `dir_fd` itself is open on, a file perhaps.

    :raises OSError: it failed otherwise
    :raises DiscoveryFailed: the C library has no statx
    """
    buffer = ctypes.create_string_buffer(_STATX.size)
    wanted = _STATX_BASIC_STATS | _STATX_BTIME
    flags = _AT_SYMLINK_NOFOLLOW if name else _AT_EMPTY_PATH
    if _statx()(dir_fd, os.fsencode(name), flags, wanted, buffer) != 0:
        number = ctypes.get_errno()
        if number == errno.ENOENT:
            return None
        raise OSError(number, os.strerror(number), name)
    told, attributes, links, mode, inode, size, blocks, seconds, nanoseconds, major, minor = _STATX.unpack(buffer)
    return Status(
        mode=mode,
        links=links,
        inode=inode,
        size=size,
        allocated=blocks * 512,
        birth=seconds * 10**9 + nanoseconds if told & _STATX_BTIME else 0,
        dax=bool(attributes & _STATX_ATTR_DAX),
        filesystem=(major, minor),
    )


@functools.cache
def _statx() -> Callable[[int, bytes, int, int, object], int]:
    try:
        function = ctypes.CDLL(None, use_errno=True).statx
    except AttributeError as exc:
        raise _failed("the C library has no statx()", "It takes glibc 2.28 or musl 1.2.5.") from exc
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
    function.restype = ctypes.c_int
    return function


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
