"""The table of what becomes of persistent memory, path by path, as Nova asks for it (FACTS: section 2 of the notes)."""

import unittest

import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova.compute import task_states

from vpmem_driver.nova.decisions import Action, Cleanup, on_cleanup

KEEP, RELEASE, RELEASE_NAMED, RENEW = Action.KEEP, Action.RELEASE, Action.RELEASE_NAMED, Action.RENEW

#: path -> hard_reboot, migrate_data, task_state, destroy_disks, here -> action
TABLE = {
    "build fails": (False, False, task_states.SPAWNING, True, True, RELEASE),
    "delete": (False, False, task_states.DELETING, True, True, RELEASE),
    "delete of what lives on another host": (False, False, task_states.DELETING, True, False, RELEASE),
    "running-deleted reaper": (False, False, None, True, True, RELEASE),
    "reclaim of a soft-deleted": (False, False, None, True, True, RELEASE),
    "hard reboot": (True, False, task_states.REBOOT_STARTED_HARD, False, True, KEEP),
    "start": (True, False, task_states.POWERING_ON, False, True, KEEP),
    "restore": (True, False, task_states.RESTORING, False, True, KEEP),
    "resume at host boot": (True, False, None, False, True, KEEP),
    "hard reboot in the middle of a revert": (True, False, task_states.RESIZE_REVERTING, False, True, KEEP),
    "rebuild": (False, False, task_states.REBUILDING, True, True, RENEW),
    "rebuild, volume-backed": (False, False, task_states.REBUILD_BLOCK_DEVICE_MAPPING, True, True, RENEW),
    "revert, at the destination": (False, False, task_states.RESIZE_REVERTING, True, True, RELEASE_NAMED),
    "revert, shared storage": (False, False, task_states.RESIZE_REVERTING, False, True, RELEASE_NAMED),
    "resize between cells, at the source": (False, False, task_states.RESIZE_MIGRATING, False, True, KEEP),
    "resize between cells, confirmed": (False, False, task_states.RESIZE_MIGRATED, True, True, RELEASE),
    "live migration, at the source": (False, True, task_states.MIGRATING, True, True, RELEASE),
    "live migration, shared storage": (False, True, task_states.MIGRATING, False, True, RELEASE),
    "live migration, rolled back at the destination": (False, False, task_states.MIGRATING, True, False, RELEASE),
    "the source of an evacuated instance": (False, False, None, True, False, RELEASE),
    "the same, shared storage": (False, False, None, False, False, RELEASE),
    "the same, being rebuilt elsewhere": (False, False, task_states.REBUILDING, False, False, RELEASE),
    "shelve-offload": (False, False, task_states.SHELVING_OFFLOADING, True, True, RELEASE),
    "in doubt": (False, False, None, False, True, KEEP),
}


class DecisionTest(unittest.TestCase):
    def test_each_path(self):
        for path, (hard_reboot, migrate_data, task_state, destroy_disks, here, action) in TABLE.items():
            with self.subTest(path):
                cleanup = Cleanup(
                    hard_reboot=hard_reboot,
                    migrate_data=migrate_data,
                    task_state=task_state,
                    destroy_disks=destroy_disks,
                    here=here,
                )
                self.assertIs(action, on_cleanup(cleanup))
