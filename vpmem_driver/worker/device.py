"""The device or file of a namespace: find it by uuid, open, lock, identify and map it."""

import errno
import fcntl
import mmap
import os
import stat

from vpmem_driver import device_users, exception, model
from vpmem_driver.discovery import interface
from vpmem_driver.protocol import Outcome

#: Bytes mapped at a time. A mapping of a device-dax must be a multiple of its alignment, which is at most 1 GiB.
REGION = 1 << 30
#: The same with a page cache. It is small because mapping reads the file, and stdin is not checked during that.
CACHED_REGION = 64 << 20

#: <asm-generic/mman-common.h>, Linux 4.15. The mmap module of Python 3.11 to 3.14 has neither.
_MAP_SHARED_VALIDATE, _MAP_SYNC = 0x03, 0x080000
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SHARED = stat.S_IWGRP | stat.S_IWOTH
_LINKS = {errno.ELOOP: "it is a symbolic link", errno.ENOTDIR: "a directory on the way is a symbolic link"}
#: Drivers that give the memory of a dax device to somebody else (drivers/dax/kmem.c, fsdev.c).
_OTHER_DRIVERS = ("kmem", "fsdev_dax")
_PERMISSION_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS)


class Failed(Exception):
    """The wipe is not possible, or failed."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class Device:
    """The device to wipe: open for writing, locked against other wipes, and verified to be the namespace's."""

    def __init__(self, fd: int, size: int, align: int) -> None:
        self.fd = fd
        self.size = size
        self._regular = stat.S_ISREG(os.fstat(fd).st_mode)
        #: whether a page cache is between the mapping and the medium
        self.cached = self._regular and not self._maps_synchronously()
        self.region = CACHED_REGION if self.cached else max(REGION, align)

    @classmethod
    def open(cls, source: interface.Discovery, uuid: str, size: int, *, privileged: bool = False) -> "Device":
        """Open and lock the namespace with that uuid. The lock lasts until the process ends.

        :param privileged: see :func:`open_directory`
        :raises Failed: it is missing, locked, not `size` bytes long, not as discovered, or may not be opened
        :raises DiscoveryFailed: discovery failed
        """
        fd = _open(_find(source, uuid), privileged)
        try:
            _lock(fd)
            # The path may have changed since. Verify the open file, and that discovery still lists it.
            namespace = _find(source, uuid)
            _check(fd, source.identity_of(fd), namespace, size)
            return cls(fd, size, namespace.align)
        except BaseException:
            os.close(fd)
            raise

    def map(self, offset: int, length: int, protection: int) -> mmap.mmap:
        """Map a part. `offset` is a multiple of ``region``, and so is `length`, except for the last part.

        :raises Failed: the file has become shorter
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
            raise Failed(Outcome.MISSING, "its size has decreased") from error
        memory.madvise(mmap.MADV_DONTDUMP)
        return memory

    def make_durable(self) -> None:
        """Make all stores durable. :raises OSError: that failed."""
        if self.cached:
            os.fdatasync(self.fd)

    def allocate(self) -> None:
        """Allocate all blocks of a file: a store to a hole raises SIGBUS if the filesystem is full.

        :raises OSError: the filesystem is full
        """
        if self._regular and os.fstat(self.fd).st_blocks * 512 < self.size:
            os.posix_fallocate(self.fd, 0, self.size)

    def drop_cache(self) -> None:
        """Drop the device's pages from the page cache, so that verification reads the medium."""
        if self.cached:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _maps_synchronously(self) -> bool:
        # The kernel refuses MAP_SYNC unless the file is on DAX. It keeps metadata durable, so that no fsync is needed.
        flags = _MAP_SHARED_VALIDATE | _MAP_SYNC
        try:
            mmap.mmap(self.fd, min(mmap.PAGESIZE, self.size), flags=flags, prot=mmap.PROT_READ).close()
        except OSError:
            return False
        return True


def dax_size(number: int, sys: str = "/sys") -> int:
    """Return the size in bytes of the device-dax with a device number. stat(2) does not report it.

    Source: drivers/dax/bus.c, Linux 6.1; libpmem2 of PMDK 2.1 reads it in the same way.

    :raises Failed: it is not a device-dax, or bound to a driver whose memory cannot be mapped
    """
    node = f"{sys}/dev/char/{os.major(number)}:{os.minor(number)}"
    try:
        if os.path.basename(os.readlink(f"{node}/subsystem")) != "dax":
            raise Failed(Outcome.HOST, "its device is not a device-dax")
        driver = os.path.basename(os.path.realpath(f"{node}/driver"))
        if driver in _OTHER_DRIVERS:
            raise Failed(Outcome.HOST, f"its device is bound to {driver} and cannot be mapped")
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
    """Open a directory by its absolute path, with O_PATH, without following a symbolic link in any component.

    Each component is opened relative to the open parent directory, so that a concurrent rename cannot redirect it.
    openat2(2) with RESOLVE_NO_SYMLINKS does the same, but cannot check the directories of the path.

    :param privileged: refuse the path if users other than root and this user may write to one of its directories
    :raises OSError: it cannot be opened; ENOTDIR if the path contains a symbolic link
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
    """Verify that only root and this user may write to a file or directory. :raises Failed: others may."""
    # With an ACL, the group bits are the mask of all its entries. The sticky bit does not prevent new files.
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & _SHARED:
        raise Failed(
            Outcome.HOST,
            f"users other than root may write to {path}; to fix that, run 'chown root {path}' and 'chmod go-w {path}'",
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
        raise Failed(Outcome.MISSING, f"{namespace.device} does not exist") from error
    except OSError as error:
        remedy = "; run this as a user who may write to it, such as root" if error.errno in _PERMISSION_ERRORS else ""
        reason = _LINKS.get(error.errno or 0, error.strerror)
        raise Failed(Outcome.HOST, f"{namespace.device} cannot be opened: {reason}{remedy}") from error


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = device_users.locked_by(fd) or "another process"
        raise Failed(Outcome.BUSY, f"{holder} holds the lock on it") from error
    except OSError as error:
        raise Failed(Outcome.HOST, f"it cannot be locked: {error.strerror}") from error


def _check(fd: int, identity: str | None, namespace: model.Namespace, size: int) -> None:
    """Verify that `fd`, which discovery identifies as `identity`, is the namespace. :raises Failed: it is not."""
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        length = status.st_size
    elif stat.S_ISCHR(status.st_mode):
        length = dax_size(status.st_rdev)
    else:
        raise Failed(Outcome.HOST, f"{namespace.device} is neither a device-dax nor a file")
    # Files of a copied filesystem have the same identities, so the path must also lead to this file.
    if identity != namespace.uuid or not _leads_to(namespace.device or "", status):
        raise Failed(Outcome.MISSING, f"{namespace.device} was replaced or removed while it was being opened")
    if not length == namespace.size == size:
        raise Failed(
            Outcome.MISSING, f"its size is {length} bytes, discovery reports {namespace.size}, the ledger has {size}"
        )


def _leads_to(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), status)
    except OSError:
        return False
