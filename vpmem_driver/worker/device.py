"""The device or file of a namespace: found by uuid, opened, identified, locked, and mapped a part at a time."""

import errno
import fcntl
import mmap
import os
import stat

from vpmem_driver import device_users, exception, model
from vpmem_driver.discovery import interface
from vpmem_driver.protocol import Outcome

#: How much is mapped at a time. Mapping device-dax takes multiples of its alignment, which is at most 1 GiB.
REGION = 1 << 30
#: The same where a page cache is in between: small, since mapping reads it in, and nobody is heeded meanwhile.
CACHED_REGION = 64 << 20

#: <asm-generic/mman-common.h>, Linux 4.15. The mmap module of Python 3.11 to 3.13 has neither.
_MAP_SHARED_VALIDATE, _MAP_SYNC = 0x03, 0x080000
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SHARED = stat.S_IWGRP | stat.S_IWOTH
_LINKS = {errno.ELOOP: "it is a symbolic link", errno.ENOTDIR: "a directory on the way is a symbolic link"}
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


class Failed(Exception):
    """The wipe cannot be done, or went wrong."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class Device:
    """What is wiped: open for writing, locked against other wipes, and known to be the namespace's."""

    def __init__(self, fd: int, size: int, align: int) -> None:
        self.fd = fd
        self.size = size
        self._regular = stat.S_ISREG(os.fstat(fd).st_mode)
        #: whether a page cache is between the mapping and the medium
        self.cached = self._regular and not self._maps_synchronously()
        self.region = CACHED_REGION if self.cached else max(REGION, align)

    @classmethod
    def open(cls, source: interface.Discovery, uuid: str, size: int, *, privileged: bool = False) -> "Device":
        """Open and lock the namespace of that uuid. The lock lasts until the process ends.

        :param privileged: see :func:`open_directory`
        :raises Failed: it is not there, not `size` bytes long, not what discovery says, locked, or not ours to open
        :raises DiscoveryFailed: discovery failed
        """
        fd = _open(_find(source, uuid), privileged)
        try:
            _lock(fd)
            # The path may lead elsewhere by now. Only what is open counts, and discovery still has to list it.
            namespace = _find(source, uuid)
            _check(fd, source.identity_of(fd), namespace, size)
            return cls(fd, size, namespace.align)
        except BaseException:
            os.close(fd)
            raise

    def map(self, offset: int, length: int, protection: int) -> mmap.mmap:
        """A part of it. `offset` is a multiple of ``region``, and so is `length`, but for the last one.

        :raises Failed: it has become shorter
        :raises OSError: it cannot be mapped
        """
        flags = mmap.MAP_SHARED
        if self.cached and protection & mmap.PROT_WRITE:
            flags |= mmap.MAP_POPULATE  # many page faults at once: a third of the time on tmpfs
        elif self._regular and not self.cached:
            flags = _MAP_SHARED_VALIDATE | _MAP_SYNC
        try:
            memory = mmap.mmap(self.fd, length, flags=flags, prot=protection, offset=offset)
        except ValueError as error:
            raise Failed(Outcome.MISSING, "it has become shorter") from error
        memory.madvise(mmap.MADV_DONTDUMP)
        return memory

    def settle(self) -> None:
        """Make durable what was stored. :raises OSError: it cannot be."""
        if self.cached:
            os.fdatasync(self.fd)

    def allocate(self) -> None:
        """Make sure that a file has all its blocks: a store to a hole in it is SIGBUS when the filesystem is full.

        :raises OSError: it is full
        """
        if self._regular and os.fstat(self.fd).st_blocks * 512 < self.size:
            os.posix_fallocate(self.fd, 0, self.size)

    def forget(self) -> None:
        """Have the page cache drop it, so that it is read back from the medium."""
        if self.cached:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _maps_synchronously(self) -> bool:
        # MAP_SYNC is refused unless the file is on DAX, and keeps its metadata durable: then stores are all it takes.
        flags = _MAP_SHARED_VALIDATE | _MAP_SYNC
        try:
            mmap.mmap(self.fd, min(mmap.PAGESIZE, self.size), flags=flags, prot=mmap.PROT_READ).close()
        except OSError:
            return False
        return True


def dax_size(number: int, sys: str = "/sys") -> int:
    """The size in bytes of the device-dax of a device number, which stat(2) does not tell.

    Source: drivers/dax/bus.c, Linux 6.1; libpmem2 of PMDK 2.1 asks for it the same way.

    :raises Failed: it is not a device-dax
    """
    node = f"{sys}/dev/char/{os.major(number)}:{os.minor(number)}"
    try:
        if os.path.basename(os.readlink(f"{node}/subsystem")) != "dax":
            raise Failed(Outcome.HOST, "its device is not a device-dax")
        with open(f"{node}/size", encoding="ascii") as size:
            return int(size.read())
    except (OSError, ValueError) as error:
        raise Failed(Outcome.HOST, f"its device is not a device-dax: {error}") from error


def _find(source: interface.Discovery, uuid: str) -> model.Namespace:
    try:
        return source.find(uuid)
    except exception.NamespaceMissing as error:
        raise Failed(Outcome.MISSING, "discovery does not find it") from error


def open_directory(path: str, *, privileged: bool) -> int:
    """Open a directory by its absolute path, with O_PATH, and follow no symbolic link, not even on the way.

    Each directory on the way is opened in the one that is open already, so that what is renamed meanwhile does not lead
    elsewhere. openat2(2) with RESOLVE_NO_SYMLINKS does the same, but cannot look at the directories that it passes.

    :param privileged: refuse a directory, also on the way, that others than root and this user may write to
    :raises OSError: it cannot be opened; ENOTDIR where there is a symbolic link
    :raises Failed: see `privileged`
    """
    opened, passed = os.open("/", _DIRECTORY), "/"
    try:
        for name in filter(None, path.split("/")):
            if privileged:
                refuse_if_shared(os.fstat(opened), passed)
            inner = os.open(name, _DIRECTORY, dir_fd=opened)
            os.close(opened)
            opened, passed = inner, os.path.join(passed, name)
        if privileged:
            refuse_if_shared(os.fstat(opened), passed)
    except BaseException:
        os.close(opened)
        raise
    return opened


def refuse_if_shared(status: os.stat_result, path: str) -> None:
    """Refuse a file or directory that others than root and this user may write to. :raises Failed: it is one."""
    # With an ACL, the group's bits are the most that it allows to anybody. The sticky bit keeps nobody from adding.
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & _SHARED:
        raise Failed(
            Outcome.HOST, f"others than root may write to {path}; 'chown root {path}' and 'chmod go-w {path}' forbid it"
        )


def _open(namespace: model.Namespace, privileged: bool) -> int:
    if namespace.device is None:
        raise Failed(Outcome.MISSING, "it has no device")
    path, name = os.path.split(namespace.device)
    try:
        directory = open_directory(path, privileged=privileged)
        try:
            return os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
        finally:
            os.close(directory)
    except FileNotFoundError as error:
        raise Failed(Outcome.MISSING, f"there is no {namespace.device}") from error
    except OSError as error:
        remedy = "; run this as a user who may write to it, such as root" if error.errno in _NOT_OURS else ""
        reason = _LINKS.get(error.errno or 0, error.strerror)
        raise Failed(Outcome.HOST, f"{namespace.device} cannot be opened: {reason}{remedy}") from error


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = device_users.locked_by(fd) or "another process"
        raise Failed(Outcome.BUSY, f"{holder} has it locked") from error
    except OSError as error:
        raise Failed(Outcome.HOST, f"it cannot be locked: {error.strerror}") from error


def _check(fd: int, identity: str | None, namespace: model.Namespace, size: int) -> None:
    """Make sure that `fd`, which discovery identifies as `identity`, is the namespace. :raises Failed: it is not."""
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        length = status.st_size
    elif stat.S_ISCHR(status.st_mode):
        length = dax_size(status.st_rdev)
    else:
        raise Failed(Outcome.HOST, f"{namespace.device} is neither a device-dax nor a file")
    # Copies of a filesystem have the same identities: the path must lead here, too.
    if identity != namespace.uuid or not _leads_to(namespace.device or "", status):
        raise Failed(Outcome.MISSING, f"{namespace.device} was replaced or removed while it was being opened")
    if not length == namespace.size == size:
        raise Failed(Outcome.MISSING, f"its size is {length} bytes, {namespace.size} to discovery, and was {size}")


def _leads_to(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), status)
    except OSError:
        return False
