"""What becomes of an instance's namespaces on this host when Nova cleans up after its guest.

One place, that reads like a table; no I/O. Nova asks for the same clean-up on many paths, and tells them apart only by
the arguments, the task state and the host that it has on record.
"""

import dataclasses
import enum

from nova.compute import task_states


class Action(enum.Enum):
    """What to do with what the ledger holds for an instance here."""

    #: the guest comes back, and finds its bytes as it left them
    KEEP = "keep"
    #: give back all; they are wiped
    RELEASE = "release"
    #: give back what the instance's record names, and keep the rest
    RELEASE_NAMED = "release named"
    #: the same instance starts anew: wipe them, and keep them for it
    RENEW = "renew"


REBUILDING = frozenset({task_states.REBUILDING, task_states.REBUILD_BLOCK_DEVICE_MAPPING, task_states.REBUILD_SPAWNING})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """What Nova says when it cleans up.

    :ivar hard_reboot: the clean-up is a part of LibvirtDriver._hard_reboot, which makes the guest anew
    :ivar migrate_data: it comes with data of a live migration: the guest has left this host, or never came
    :ivar here: Nova has this host on record as the instance's
    """

    hard_reboot: bool
    migrate_data: bool
    task_state: str | None
    destroy_disks: bool
    here: bool


def on_cleanup(cleanup: Cleanup) -> Action:
    """The first row that fits decides. ``destroy_disks=False`` alone does not mean keep: shared storage says so too.

    Which path asks for which row is in Nova's compute/manager.py (Nova 31-34); the tests name them.
    """
    rows = (
        # hard reboot, start, restore, resume at host boot
        (cleanup.hard_reboot, Action.KEEP),
        # live migration: at the source when it is over, at the destination when it is rolled back
        (cleanup.migrate_data, Action.RELEASE),
        # the source of an evacuated instance, back again; a destination rolled back
        (not cleanup.here, Action.RELEASE),
        # resize between cells: the source keeps its guest's data until confirmation
        (cleanup.task_state == task_states.RESIZE_MIGRATING and not cleanup.destroy_disks, Action.KEEP),
        # revert: this is the destination, which may be the source too
        (cleanup.task_state == task_states.RESIZE_REVERTING, Action.RELEASE_NAMED),
        # rebuild
        (cleanup.task_state in REBUILDING, Action.RENEW),
        # delete, reclaim, shelve-offload, a build that failed, running-deleted
        (cleanup.destroy_disks, Action.RELEASE),
    )
    return next((action for fits, action in rows if fits), Action.KEEP)
