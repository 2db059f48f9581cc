"""Drop all of root's capabilities that a wipe does not need, permanently and for every program that is started.

Sources: capabilities(7) and <linux/capability.h>, Linux 5.x and 6.x.
"""

import os

from vpmem_driver import _linux

CAP_DAC_OVERRIDE = 1
"""Needed to open a device or file of another user: libvirt changes its owner to QEMU's user."""
CAP_SYS_PTRACE = 19
"""Needed to find processes that have it mapped or open: /proc/PID/maps and fd, proc(5)."""
CAP_CHECKPOINT_RESTORE = 40
"""Needed to follow /proc/PID/map_files to the file itself (Linux 5.9 and later): a path may lead elsewhere."""

FOR_A_WIPE = (CAP_DAC_OVERRIDE, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE)


def keep_only(*kept: int) -> None:
    """Drop all capabilities except `kept`, for this process and the programs that it executes.

    A capability that the process lacks is not added.

    :raises OSError: the kernel refused
    """
    _linux.keep_capabilities(sum(1 << capability for capability in kept), drop_bounding=os.geteuid() == 0)
