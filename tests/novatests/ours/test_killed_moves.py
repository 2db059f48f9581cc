"""The source's nova-compute is killed while it copies: what has arrived is freed when no guest can start from it."""

from unittest import mock

import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import context, objects
from novatests.ours import test_moves

from vpmem_driver.nova import instances, leftovers, moves


class Killed(BaseException):
    """The end of a nova-compute in the middle of something: nothing of it goes on."""


class KilledTest(test_moves.MoveTestCase):
    """The source's nova-compute is killed while it copies. Nova's migration stays 'migrating' for ever."""

    def setUp(self):
        super().setUp()
        self.source = self.start_host(1, SMALL=1)
        self.dest = self.start_host(2, SMALL=1)
        self.server = self.boot("SMALL", self.source)
        self.written = self.write(self.server, self.source)

    def kill(self, *, after_copy):
        copy, killed = moves.Move.copy, []

        def end(move):
            if after_copy:
                copy(move)
            killed.append(True)
            raise Killed

        with mock.patch.object(moves.Move, "copy", end):
            self.resize(self.server, self.flavor("SMALL"))
            self.wait_for(lambda: killed, "the copy", seconds=120)
        self.wait_for(lambda: self.instance(self.server).task_state == "resize_migrating", "the task", seconds=120)
        self.assertEqual("claimed" if after_copy else "receiving", self.dest.states()["small0"][0])

    def run_periodic(self, host):
        self.computes[host.name].manager.update_available_resource(context.get_admin_context())

    def status(self):
        instance = self.instance(self.server)
        return objects.Migration.get_by_id(context.get_admin_context(), instance.migration_context.migration_id).status

    def check_it_is_freed_once_nova_has_ended_the_move(self):
        self.run_periodic(self.dest)
        self.assert_holds(["small0"], self.dest, self.server)
        self.restart_host(self.source)
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"})
        self.assertEqual("migrating", self.status())
        self.run_periodic(self.dest)
        self.assert_holds([], self.dest, self.server)
        # Nova 34 fails to start it again by itself.
        self._reboot_server(self.server, hard=True)
        self.assertTrue(self.domain_runs(self.server, self.source))
        self.assert_kept(self.written)
        self.assert_holds(["small0"], self.source, self.server)

    def test_before_anything_has_arrived(self):
        self.kill(after_copy=False)
        self.check_it_is_freed_once_nova_has_ended_the_move()
        self.assertEqual(("unknown", None), self.dest.states()["small0"])

    def test_after_everything_has_arrived(self):
        self.kill(after_copy=True)
        self.check_it_is_freed_once_nova_has_ended_the_move()
        self.assert_wiped(self.dest, ["small0"])

    def test_what_a_new_move_has_brought_meanwhile_stays(self):
        """Nova was asked before the new move began, and this host was slow."""
        self.kill(after_copy=True)
        self.restart_host(self.source)
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"})
        pool = self.computes[self.dest.name].driver._vpmem.pool
        (row,) = pool.held(self.server["id"])
        reason_to_keep = leftovers.Leftovers._reason_to_keep

        def arrive_again(*arguments, **keywords):
            reason = reason_to_keep(*arguments, **keywords)
            pool.copies.abandon(self.server["id"], row.arrival)
            source = self.computes[self.source.name].driver._vpmem.pool.grants(self.server["id"])
            pool.copies.expect_exact(self.server["id"], "00c0ffee", [row.uuid], source)
            return reason

        with mock.patch.object(leftovers.Leftovers, "_reason_to_keep", arrive_again):
            self.run_periodic(self.dest)
        self.assertEqual(("receiving", self.server["id"]), self.dest.states()["small0"])

    def test_while_the_destination_may_start_it(self):
        """The source has handed it over, and the destination has not started it yet."""
        for task in ("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"):
            with self.subTest(task=task):
                found = mock.Mock(vm_state="active", task_state=task, deleted=False, host=self.source.name)
                self.assertFalse(self.has_stayed(found))

    def test_who_is_not_there_to_stay(self):
        def instance(**changes):
            values = {"vm_state": "active", "task_state": None, "deleted": False, "host": self.source.name} | changes
            return mock.Mock(**values)

        self.assertTrue(self.has_stayed(instance()))
        self.assertTrue(self.has_stayed(instance(vm_state="stopped")))
        self.assertFalse(self.has_stayed(None))
        self.assertFalse(self.has_stayed(instance(host=self.dest.name)))
        self.assertFalse(self.has_stayed(instance(host=None)))
        self.assertFalse(self.has_stayed(instance(deleted=True)))
        self.assertFalse(self.has_stayed(instance(vm_state="resized")))
        self.assertFalse(self.has_stayed(instance(vm_state="error")))
        self.assertFalse(self.has_stayed(instance(), migration_type="live-migration"))
        self.assertFalse(self.has_stayed(instance(), dest_compute=self.source.name))

    def has_stayed(self, found, **changes):
        """Whether nothing of an instance whose migration is under way needs to be kept here."""
        values = {"dest_compute": self.dest.name, "migration_type": "resize", "instance_uuid": self.server["id"]}
        host = instances.HostInstances(
            host=self.dest.name,
            here={},
            moving={self.server["id"]: mock.Mock(**(values | changes))},
            providers=frozenset(),
        )
        with mock.patch.object(instances, "find", return_value=found):
            return host.names(self.server["id"]) == []
