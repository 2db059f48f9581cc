"""The directory of the ledger and the files that are made in it: private to one user, and trusted only if they are.

The user is the one who runs this program or, for root, whoever the directory belongs to: on a compute host root looks
at the ledger of the service user, and must leave no file there that this user cannot open.
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

#: Bytes that must be free where SQLite could be killed for want of room; more than a usual transaction needs.
_ROOM = MIB

_NOT_A_DIRECTORY = "Set [vpmem] state_path to a directory."
_PERMISSION = "Run this as root or as the user whom [vpmem] state_path belongs to, or give it to this user (chown)."
_FULL = "Make room on its filesystem, then try again."
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "Raise the disk quota of its user or remove other files of this user, then try again.",
    errno.EROFS: "Mount its filesystem writable, or set [vpmem] state_path to a directory on one that is.",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOTDIR: _NOT_A_DIRECTORY,
    errno.EEXIST: _NOT_A_DIRECTORY,
    errno.ENAMETOOLONG: "Set [vpmem] state_path to a shorter path.",
    errno.ELOOP: "Remove the symbolic links that lead to each other from [vpmem] state_path.",
}
_OTHER_ERROR = "Look for the cause in the kernel log, then try again."


def error_of(path: pathlib.Path, error: OSError) -> exception.LedgerError:
    """What the kernel reports about the ledger `path`, with a remedy that fits."""
    remedy = _REMEDIES.get(error.errno or 0, _OTHER_ERROR)
    where = f"{error.filename}: " if error.filename else ""
    return exception.LedgerError(path=path, reason=f"{where}{error.strerror or error}", remedy=remedy)


def prepare(path: pathlib.Path) -> os.stat_result:
    """Make the directory of the ledger `path` if it is not there, and make sure that only one user can change it.

    :returns: its status; ``st_uid`` and ``st_gid`` are those of the files in it
    :raises LedgerError: another user owns it, may write to it or may replace it
    :raises OSError: it cannot be made or read
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
            remedy=f"Make sure that nobody else has put the files there, then 'chmod 700 {directory}'.",
        )
    _refuse_replaceable(path, user)
    return status


def _refuse_replaceable(path: pathlib.Path, user: int) -> None:
    """Refuse a path on which another user can put a directory of their own in place of the configured one.

    In a directory with the sticky bit, such as /tmp, everybody may make new entries and only the owner of an entry may
    replace it.
    """
    for leaf in {path.parent.absolute(), path.parent.resolve()}:
        for entry, parent in itertools.pairwise([leaf, *leaf.parents]):
            mode, owner = parent.stat().st_mode, entry.lstat().st_uid
            if mode & stat.S_IWOTH and not (mode & stat.S_ISVTX and owner in {0, user}):
                raise exception.LedgerError(
                    path=path,
                    reason=f"{entry} belongs to user {_name(owner)}, and everybody may write to {parent}",
                    remedy="Set [vpmem] state_path to a directory that nobody else can put there.",
                )


def make_file(file: pathlib.Path, directory: os.stat_result) -> None:
    """Make an empty file for the user of the directory, unless it is there.

    Nobody else can ever open it, not even for a moment. A file that is there is not opened: closing it would release
    all fcntl locks of this process on it, those of another open ledger too, and SQLite would remove a write-ahead log
    that is still in use.

    :raises OSError: it cannot be made
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
    """Make sure that `file`, a part of the ledger `path`, is private to the user of the directory.

    :raises LedgerError: it is no regular file, belongs to another user or other users may write to it
    :raises OSError: it cannot be read
    """
    status = file.lstat()
    owner = _name(directory.st_uid)
    remedy = f"Find out who made it; if it is the ledger, 'chown {owner} {file}' and 'chmod 600 {file}'."
    if not stat.S_ISREG(status.st_mode):
        raise exception.LedgerError(path=path, reason=f"{file} is no regular file", remedy="Move it away.")
    if status.st_uid != directory.st_uid:
        reason = f"{file} belongs to user {_name(status.st_uid)} and its directory to user {owner}"
        raise exception.LedgerError(path=path, reason=reason, remedy=remedy)
    if status.st_mode & 0o022:
        reason = f"other users may write to {file} (mode {stat.S_IMODE(status.st_mode):04o})"
        raise exception.LedgerError(path=path, reason=reason, remedy=remedy)
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        file.chmod(0o600)


def require_room(descriptor: int) -> None:
    """Refuse to go on with SQLite where a full filesystem would end this process with SIGBUS.

    SQLite allocates its shared memory file by one byte in each 4096 (unixShmMap in os_unix.c). Where blocks are
    smaller, as on a small ext4, the others are allocated when they are first written to, through a mapping.

    :param descriptor: of a file in the directory
    :raises OSError: there is not enough room
    """
    space = os.fstatvfs(descriptor)
    if space.f_frsize < mmap.PAGESIZE and space.f_bavail * space.f_frsize < _ROOM:
        raise OSError(errno.ENOSPC, f"less than {_ROOM // 1024} KiB are free")


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
