"""Giving up what root may do, all but what a wipe needs: for good, and for every program that it starts.

After capabilities(7) and <linux/capability.h>, Linux 5.x and 6.x.
"""

import os

from vpmem_driver import _linux

CAP_DAC_OVERRIDE = 1
"""To open a device or file that belongs to somebody else: libvirt gives it to QEMU's user."""
CAP_SYS_PTRACE = 19
"""To see who has it mapped or open: /proc/PID/maps and fd, proc(5)."""
CAP_CHECKPOINT_RESTORE = 40
"""To follow /proc/PID/map_files to the file itself, since Linux 5.9: a path may lead elsewhere."""

FOR_A_WIPE = (CAP_DAC_OVERRIDE, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE)


def keep_only(*kept: int) -> None:
    """Have this process, and what it executes from now on, keep no capabilities but `kept`.

    A process that lacks one of them is not given it.

    :raises OSError: the kernel refused
    """
    _linux.keep_capabilities(sum(1 << capability for capability in kept), drop_bounding=os.geteuid() == 0)
