"""Processes that see no others: a service in a container with process identifiers of its own.

Who has a device open cannot be seen from there; only the lock on the device tells.
"""

import ctypes
import functools
import os

_CLONE_NEWNS, _CLONE_NEWPID = 0x00020000, 0x20000000  # <linux/sched.h>
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000  # <linux/mount.h>


def enter() -> None:
    """Continue in a new process that is the first of its container; this one waits, and ends as that one does.

    :raises OSError: it is not allowed
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _require(libc.unshare(_CLONE_NEWPID | _CLONE_NEWNS))
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    _require(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    _require(libc.mount(b"proc", b"/proc", b"proc", 0, None))


def _require(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@functools.cache
def possible() -> bool:
    """Whether this user may."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            enter()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0
