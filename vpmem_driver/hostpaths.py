"""Find the paths of this host that lead to the same device or file: links, bind mounts, additional device nodes.

A device is identified by its number, a file by filesystem and inode. A path that does not exist, or that this user
cannot follow, is compared as text.
"""

import contextlib
import functools
import os
import pathlib
import re
import stat
import typing
from collections.abc import Collection, Iterable, Iterator

_ESCAPED = re.compile(r"\\([0-7]{3})")

_Identity = tuple[str, int, int] | tuple[str, str]


class Wanted:
    """Paths to search for among the paths that domains use. They are resolved when the object is created."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = tuple(dict.fromkeys(paths))
        self._reached: dict[_Identity, list[str]] = {}
        for path in self._paths:
            status = _status(path)
            self._add(_identity(path, status), path)
            if status is not None and stat.S_ISREG(status.st_mode):  # the disk of its filesystem
                self._add(("block device", os.major(status.st_dev), os.minor(status.st_dev)), path)

    def reached_from(self, path: str) -> Collection[str]:
        """Return the wanted paths that `path` gives access to: the same file, or files in that directory or disk."""
        status = _status(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            return [*self._inside.get(_identity(path, status), ()), *self._linked.get(status.st_dev, ())]
        return self._reached.get(_identity(path, status), ())

    def _add(self, identity: _Identity, path: str) -> None:
        self._reached.setdefault(identity, []).append(path)

    @functools.cached_property
    def _inside(self) -> dict[_Identity, list[str]]:
        """The files in and below each directory. A device node in a shared directory gives a guest no access."""
        found: dict[_Identity, list[str]] = {}
        mounts = _mounts()
        for path in self._paths:
            for directory in {_identity(parent, _status(parent)) for parent in _parents(path, mounts)}:
                found.setdefault(directory, []).append(path)
        return found

    @functools.cached_property
    def _linked(self) -> dict[int, list[str]]:
        """The files of each filesystem that have more hard links, which may be in any directory."""
        found: dict[int, list[str]] = {}
        for path in self._paths:
            status = _status(path)
            if status is not None and stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                found.setdefault(status.st_dev, []).append(path)
        return found


class _Mount(typing.NamedTuple):
    """A mount: the directory `root` of the filesystem on `device`, of the type `kind`, is at `point`."""

    device: int
    root: str
    point: str
    kind: str


def filesystem(path: str) -> str:
    """Return the type of the filesystem of `path`, such as ``ext4``; an empty string if that is not known."""
    status = _status(path)
    kinds = (mount.kind for mount in _mounts() if status is not None and mount.device == status.st_dev)
    return next(kinds, "")


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # ValueError: not a path, or not in the file system encoding
        return None


def _identity(path: str, status: os.stat_result | None) -> _Identity:
    if status is None:
        with contextlib.suppress(OSError, ValueError):
            path = os.path.realpath(path)
        return "text", path
    for kind, is_kind in (("character device", stat.S_ISCHR), ("block device", stat.S_ISBLK)):
        if is_kind(status.st_mode):
            return kind, os.major(status.st_rdev), os.minor(status.st_rdev)
    return "file", status.st_dev, status.st_ino


def _parents(path: str, mounts: list[_Mount]) -> Iterator[str]:
    """Yield the directories above a file, and above its names on other mounts of the same filesystem."""
    status = _status(path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return
    name = os.path.realpath(path)
    same_device = [mount for mount in mounts if mount.device == status.st_dev]
    names = {name}
    for mount in same_device:
        if inner := _below(name, mount.point):
            rests = ((other.point, _below(os.path.join(mount.root, inner), other.root)) for other in same_device)
            names |= {os.path.join(point, rest) for point, rest in rests if rest}
    for other in names:
        if _identity(other, _status(other)) == _identity(path, status):  # another mount may hide it
            yield from map(str, pathlib.PurePath(other).parents)


def _below(path: str, directory: str) -> str | None:
    """Return `path` relative to a directory, or None if it is not below it."""
    rest = path.removeprefix(directory.rstrip("/") + "/")
    return None if rest == path else rest


def _mounts() -> list[_Mount]:
    """Return the mounts of this process (proc_pid_mountinfo(5)), or none if they cannot be read."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except OSError:
        return []
    found = []
    for line in lines:
        if len(fields := line.split(" ", 5)) > 5:  # noqa: PLR2004
            major, minor = fields[2].split(":")
            root, point = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), text) for text in fields[3:5])
            kind = fields[5].partition(" - ")[2].partition(" ")[0]
            found.append(_Mount(os.makedev(int(major), int(minor)), root, point, kind))
    return found
