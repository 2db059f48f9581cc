"""Discovery of preallocated files in one directory: for fsdax hosts, the demo, development and tests.

No symbolic link is followed, except to the directory itself.
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
from collections.abc import Callable, Iterator
from typing import TypeVar

from vpmem_driver import _linux, exception, model
from vpmem_driver.discovery import interface

LOG = logging.getLogger(__name__)

#: The uuids of files are derived from it. It must never change, because the ledger identifies files by their uuids.
_FILES = uuid.UUID("9d2f5c1e-6a0b-4f6e-8c57-3f0f6f4a1b92")

_HUGE_PAGE = 2 << 20
_NODE = re.compile(r"node(0|[1-9][0-9]{0,5})", re.ASCII)
_NOT_REGULAR = {
    stat.S_IFLNK: "it is a symbolic link; links are not followed",
    stat.S_IFDIR: "it is a directory",
    stat.S_IFBLK: "it is a block device",
    stat.S_IFCHR: "it is a character device",
    stat.S_IFIFO: "it is a named pipe",
    stat.S_IFSOCK: "it is a socket",
}

_Result = TypeVar("_Result")
#: returns the NUMA node of a filesystem's device, by device number
NodeOf = Callable[[tuple[int, int]], int | None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The result of statx(2) for a file.

    :ivar allocated: bytes that the filesystem has allocated
    :ivar birth: nanoseconds since 1970; 0 if the filesystem does not store it
    :ivar dax: whether a mapping accesses the medium directly, without the page cache
    :ivar filesystem: major and minor number of its block device
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
    """Finds regular files in `directory` and, for a NUMA node, in its subdirectories ``node0``, ``node1``, ….

    Hidden files, ``lost+found`` and other subdirectories are ignored. A file is identified by its inode and birth time:
    a file that replaces another one is a different namespace, a renamed file is the same namespace.

    :param directory: may be a symbolic link, which is resolved each time
    :param sysfs_root: where to read the NUMA node of a DAX filesystem's device
    """

    name = "directory"

    def __init__(self, directory: str, *, sysfs_root: str = "/sys") -> None:
        self._directory = os.path.abspath(directory)
        self._sysfs_root = sysfs_root
        self._warned: set[str] = set()
        #: path of each namespace, relative to the directory, by uuid, from the last listing
        self._places: dict[str, str] = {}

    def options(self) -> dict[str, str]:
        return {"directory": self._directory}

    def namespaces(self) -> tuple[model.Namespace, ...]:
        node_of = functools.cache(self._node_of)
        top = os.path.realpath(self._directory)
        found = {}
        for place, status in _entries(top):
            found[place] = _describe_below(top, place, status, node_of)
            if found[place].unusable is None:
                self._warn(status)
        namespaces = interface.check(self.name, found.values())
        self._places = interface.places(found, namespaces)
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
            return ()  # its subdirectory may be gone, and the file in another one
        if status is None:
            return ()
        return interface.check(self.name, [_describe_below(top, place, status, self._node_of)])

    def identity_of(self, fd: int) -> str | None:
        status = file_status("", dir_fd=fd)
        return _identity(status) if status is not None and stat.S_ISREG(status.mode) else None

    def _node_of(self, filesystem: tuple[int, int]) -> int | None:
        device = f"{self._sysfs_root}/dev/block/{filesystem[0]}:{filesystem[1]}"
        node = interface.read_node(f"{device}/device/numa_node")
        # A partition has no "device"; its disk is the parent of the link's target.
        return interface.read_node(f"{device}/../device/numa_node") if node is None else node

    def _warn(self, status: Status) -> None:
        if not status.dax:
            self._warn_once(
                "the filesystem has no DAX. What a guest flushes reaches the disk only through a virtio-pmem. A nvdimm "
                "loses what the host has not written back when it loses power, and has no <pmem/>"
            )
        if not status.birth:
            self._warn_once(
                "the filesystem stores no birth times. A new file with the inode of a deleted one is taken for it"
            )

    def _warn_once(self, warning: str) -> None:
        if warning not in self._warned:
            self._warned.add(warning)
            LOG.warning("Namespaces in %s: %s.", self._directory, warning)


def describe(path: str, status: Status, node: int | None) -> model.Namespace:
    """Return the namespace for the file at `path`.

    On DAX its alignment is a huge page if its size allows it, so that a guest's mapping can use huge pages. Otherwise
    it is a page of this host, the minimum for a mapping.
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
        return "its path is not UTF-8 or contains unprintable characters"
    if status.links != 1:
        return f"it has {status.links} hard links; it must have only one name"
    if status.size == 0:
        return "it is empty"
    if status.size % mmap.PAGESIZE:
        return f"its size {status.size} is not a multiple of {mmap.PAGESIZE}"
    if status.allocated < status.size:
        # The kernel kills a process that writes to a mapping if no block is free. Filesystems with compression or
        # copy-on-write cannot guarantee a block; those that can (ext4, XFS, tmpfs) count allocated blocks.
        return (
            f"only {status.allocated} of its {status.size} bytes are allocated: a full filesystem kills its guest; "
            f"run 'fallocate -l {status.size} {shlex.quote(path)}'"
        )
    return None


def _describe_below(top: str, place: str, status: Status, node_of: NodeOf) -> model.Namespace:
    """Return the namespace for the file `place`, a path relative to the directory `top`."""
    match = _NODE.fullmatch(os.path.dirname(place))
    # Without DAX the guest's memory is page cache, which has no fixed node, wherever the disk is.
    node = int(match[1]) if match else node_of(status.filesystem) if status.dax else None
    return describe(os.path.join(top, place), status, node)


def _entries(top: str) -> Iterator[tuple[str, Status]]:
    """Yield path, relative to `top`, and status of each candidate."""
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


def _in(directory: str, look: Callable[[int], _Result]) -> _Result:
    """Call `look` with an open descriptor of a directory, and return its result."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return look(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise _explained(directory, exc) from exc


def file_status(name: str, *, dir_fd: int) -> Status | None:
    """Call statx(2) for `name` in the directory `dir_fd`, without following links; None if it does not exist.

    With an empty `name`, `dir_fd` itself is examined, which may be a file.

    :raises OSError: any other error
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
            return _failed(f"{directory} does not exist", "Mount or create it, or correct [vpmem] directory")
        case NotADirectoryError():
            return _failed(f"{directory} is not a directory", "Correct [vpmem] directory")
        case PermissionError():
            return _failed(f"this user may not read {directory}", "Run this as root, or grant access")
    return _failed(f"{directory} cannot be read: {exc.strerror}", "Check the filesystem and the kernel log")


def _failed(reason: str, remedy: str) -> exception.DiscoveryFailed:
    return exception.DiscoveryFailed(source=DirectoryDiscovery.name, reason=reason, remedy=remedy)
