"""Giving up what root may do, all but what a wipe needs: for good, and for every program that it starts.

After capabilities(7), prctl(2) and <linux/capability.h>, Linux 5.x and 6.x.
"""

import ctypes
import os

CAP_DAC_OVERRIDE = 1
"""To open a device or file that belongs to somebody else: libvirt gives it to QEMU's user."""
CAP_SYS_PTRACE = 19
"""To see who has it mapped or open: /proc/PID/maps and fd, proc(5)."""
CAP_CHECKPOINT_RESTORE = 40
"""To follow /proc/PID/map_files to the file itself, since Linux 5.9: a path may lead elsewhere."""

FOR_A_WIPE = (CAP_DAC_OVERRIDE, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE)

_VERSION_3 = 0x20080522
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def keep_only(*kept: int) -> None:
    """Have this process, and what it executes from now on, keep no capabilities but `kept`.

    Who has none to begin with is not given any.

    :raises OSError: the kernel refused
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        # Else a program that root executes, such as ndctl, would have all of them again.
        capability = 0
        while libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
            if capability not in kept:
                _require(libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0))
            capability += 1
    header = _Header(_VERSION_3, 0)
    sets = (_Sets * 2)()
    _require(libc.capget(ctypes.byref(header), sets))
    for half, fields in enumerate(sets):
        mask = sum(1 << capability % 32 for capability in kept if capability // 32 == half)
        fields.permitted &= mask
        fields.effective = fields.permitted
        fields.inheritable = 0
    _require(libc.capset(ctypes.byref(header), sets))
    _require(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _require(result: int) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
