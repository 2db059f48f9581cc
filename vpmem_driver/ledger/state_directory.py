"""The directory of the ledger and its files. They are trusted only if they are private to one user.

That is the user who runs this program or, for root, the owner of the directory: on a compute host root reads the ledger
of the service user, and must not create files there that this user cannot open.
"""

import errno
import itertools
import mmap
import os
import pathlib
import pwd
import stat

from vpmem_driver import exception
from vpmem_driver.sizes import MIB

#: Bytes that must be free where a full filesystem would kill the process; more than a usual transaction needs.
_ROOM = MIB

_NOT_A_DIRECTORY = "Set [vpmem] state_path to a directory"
_PERMISSION = "Run this as root or as the owner of [vpmem] state_path, or give it to this user (chown)"
_FULL = "Free space on its filesystem, then try again"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "Raise the disk quota of its user or delete other files of this user, then try again",
    errno.EROFS: "Mount its filesystem read-write, or set [vpmem] state_path to a directory on a writable filesystem",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOTDIR: _NOT_A_DIRECTORY,
    errno.EEXIST: _NOT_A_DIRECTORY,
    errno.ENAMETOOLONG: "Set [vpmem] state_path to a shorter path",
    errno.ELOOP: "Remove the loop of symbolic links from [vpmem] state_path",
}
_OTHER_ERROR = "Check the kernel log for the cause, then try again"


def error_of(path: pathlib.Path, error: OSError) -> exception.LedgerError:
    """Convert an error of the kernel about the ledger `path`, and add a remedy."""
    remedy = _REMEDIES.get(error.errno or 0, _OTHER_ERROR)
    where = f"{error.filename}: " if error.filename else ""
    return exception.LedgerError(path=path, reason=f"{where}{error.strerror or error}", remedy=remedy)


def prepare(path: pathlib.Path) -> os.stat_result:
    """Create the directory of the ledger `path` if necessary, and verify that only one user can change it.

    :returns: its status; its files have the same ``st_uid`` and ``st_gid``
    :raises LedgerError: another user owns it, may write to it or may replace it
    :raises OSError: it cannot be created or read
    """
    directory = path.parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status, user = directory.stat(), os.geteuid()
    if user not in {0, status.st_uid}:
        raise exception.LedgerError(
            path=path, reason=f"{directory} belongs to user {_name(status.st_uid)}", remedy=_PERMISSION
        )
    if status.st_mode & 0o022:
        raise exception.LedgerError(
            path=path,
            reason=f"other users may write to {directory} (mode {stat.S_IMODE(status.st_mode):04o})",
            remedy=f"Check that no other user created the files in it, then run 'chmod 700 {directory}'",
        )
    _refuse_replaceable(path, user)
    return status


def _refuse_replaceable(path: pathlib.Path, user: int) -> None:
    """Refuse a path on which another user can replace the configured directory.

    In a directory with the sticky bit, such as /tmp, everyone may create entries, but only the owner of an entry may
    replace it.
    """
    for leaf in {path.parent.absolute(), path.parent.resolve()}:
        for entry, parent in itertools.pairwise([leaf, *leaf.parents]):
            mode, owner = parent.stat().st_mode, entry.lstat().st_uid
            if mode & stat.S_IWOTH and not (mode & stat.S_ISVTX and owner in {0, user}):
                raise exception.LedgerError(
                    path=path,
                    reason=f"{entry} belongs to user {_name(owner)}, and everyone may write to {parent}",
                    remedy="Set [vpmem] state_path to a directory that no other user can replace",
                )


def make_file(file: pathlib.Path, directory: os.stat_result) -> None:
    """Create an empty file for the user of the directory, unless it exists.

    No other user can open it at any time. An existing file is not opened: closing it would release all fcntl locks of
    this process on it, also those of another open ledger, and SQLite would then delete a write-ahead log in use.

    :raises OSError: it cannot be created
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        if directory.st_uid != os.geteuid():
            os.fchown(descriptor, directory.st_uid, directory.st_gid)
    except OSError:
        file.unlink()
        raise
    finally:
        os.close(descriptor)


def check_file(path: pathlib.Path, file: pathlib.Path, directory: os.stat_result) -> None:
    """Verify that `file`, a part of the ledger `path`, is private to the user of the directory.

    :raises LedgerError: it is not a regular file, belongs to another user, or other users may write to it
    :raises OSError: it cannot be read
    """
    status = file.lstat()
    reason = None
    if not stat.S_ISREG(status.st_mode):
        raise exception.LedgerError(path=path, reason=f"{file} is not a regular file", remedy="Move it away")
    if status.st_uid != directory.st_uid:
        reason = f"{file} belongs to user {_name(status.st_uid)} and its directory to user {_name(directory.st_uid)}"
    elif status.st_mode & 0o022:
        reason = f"other users may write to {file} (mode {stat.S_IMODE(status.st_mode):04o})"
    if reason is not None:
        owner = _name(directory.st_uid)
        raise exception.LedgerError(
            path=path,
            reason=reason,
            remedy=f"Find out who created it. If it is the ledger, run 'chown {owner} {file}' and 'chmod 600 {file}'",
        )
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        file.chmod(0o600)


def require_room(descriptor: int) -> None:
    """Refuse to use SQLite if a full filesystem would kill this process with SIGBUS.

    SQLite allocates its shared memory file by one byte in each 4096 (unixShmMap in os_unix.c). With smaller blocks, as
    on a small ext4, the remaining blocks are allocated on the first write through a mapping.

    :param descriptor: of a file in the directory
    :raises OSError: too little space is free
    """
    space = os.fstatvfs(descriptor)
    if space.f_frsize < mmap.PAGESIZE and space.f_bavail * space.f_frsize < _ROOM:
        raise OSError(errno.ENOSPC, f"less than {_ROOM // 1024} KiB are free")


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
