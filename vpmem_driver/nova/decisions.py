"""Decide what happens to an instance's namespaces on this host when Nova cleans up after its guest.

A single table, without I/O. Nova calls the same cleanup on many paths, which differ only in the arguments, the task
state and the recorded host.
"""

import dataclasses
import enum

from nova.compute import task_states


class Action(enum.Enum):
    """What to do with the namespaces that an instance holds here."""

    #: keep them with their content: the guest returns
    KEEP = "keep"
    #: release all, to be wiped
    RELEASE = "release"
    #: release those that the instance's record names, and keep the others
    RELEASE_NAMED = "release named"
    #: wipe them, and keep them for the same instance
    RENEW = "renew"


REBUILDING = frozenset({task_states.REBUILDING, task_states.REBUILD_BLOCK_DEVICE_MAPPING, task_states.REBUILD_SPAWNING})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """The circumstances of a cleanup.

    :ivar hard_reboot: it is part of LibvirtDriver._hard_reboot, which defines and starts the guest again
    :ivar migrate_data: Nova passes live migration data: the guest has left this host, or never arrived
    :ivar here: Nova records that the instance is on this host
    """

    hard_reboot: bool
    migrate_data: bool
    task_state: str | None
    destroy_disks: bool
    here: bool


def on_cleanup(cleanup: Cleanup) -> Action:
    """Return the action of the first row whose condition holds.

    ``destroy_disks=False`` alone does not mean keep: Nova also passes it for shared storage. Nova's compute/manager.py
    (Nova 31-34) shows which path leads to which row; the tests name the paths.
    """
    rows = (
        # hard reboot, start, restore, resume at host boot
        (cleanup.hard_reboot, Action.KEEP),
        # live migration: the source at its end, or the destination of a rollback
        (cleanup.migrate_data, Action.RELEASE),
        # the source of an evacuated instance after it returns; the destination of a rollback
        (not cleanup.here, Action.RELEASE),
        # resize between cells: the source keeps its guest's data until confirmation
        (cleanup.task_state == task_states.RESIZE_MIGRATING and not cleanup.destroy_disks, Action.KEEP),
        # revert of a resize: this is the destination, which may also be the source
        (cleanup.task_state == task_states.RESIZE_REVERTING, Action.RELEASE_NAMED),
        # rebuild
        (cleanup.task_state in REBUILDING, Action.RENEW),
        # delete, reclaim, shelve-offload, a build that failed, running-deleted
        (cleanup.destroy_disks, Action.RELEASE),
    )
    return next((action for fits, action in rows if fits), Action.KEEP)
