"""A restart where Nova's record names a namespace that the instance does not hold in this host's ledger."""

import contextlib

import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova.compute import task_states, vm_states
from novatests.ours import test_defects

from vpmem_driver import ledger
from vpmem_driver.model import State

#: An owner that Nova does not know.
OTHER = "7f2f4b0e-4f5c-4a39-8d55-c2e0a1b4d001"


class RecordTestCase(test_defects.DefectTestCase):
    @contextlib.contextmanager
    def rows(self, host):
        """The ledger of a host, to be changed."""
        records = ledger.Ledger(host.state_path)
        with records.transaction():
            yield records
        records.close()

    def move(self, host, name, state, **values):
        with self.rows(host) as records:
            (row,) = [row for row in records.rows() if row.name == name]
            records.move(row, state, "the test says so", **values)

    def said(self, level, *words):
        log = self.stdlog.logger.output.splitlines()
        return [line for line in log if f" {level} " in line and all(word in line for word in words)]

    def hard_reboot(self, server):
        self.api.post_server_action(server["id"], {"reboot": {"type": "HARD"}})
        self._wait_for_server_parameter(server, {"status": "ACTIVE", "OS-EXT-STS:task_state": None})


class FailedResizeTest(RecordTestCase):
    """The record names the destination's namespace, which the destination's ledger never gave to the instance."""

    def setUp(self):
        super().setUp()
        self.source = self.start_host(1, SMALL=1)
        self.dest = self.start_host(2, SMALL=1)
        self.flags(on_move="discard", group="vpmem")  # what arrived would be held already
        self.server = self.boot("SMALL", self.source)
        self.mine = self.write(self.server, self.source)
        with self.on(self.dest, "finish_migration"):
            self.api.post_server_action(self.server["id"], {"resize": {"flavorRef": self.flavor("SMALL", x="y")}})
            self.wait_for_error(self.server)
        self.assert_state(("unknown", None), self.dest, "small0")
        self.left = self.dest.path("small0").read_bytes()
        self.assertTrue(any(self.left))

    def test_a_restart_after_it_hands_no_foreign_bytes_to_the_guest(self):
        self.restart_host(self.dest)
        self.assert_state(("unknown", None), self.dest, "small0")
        self.assertTrue(self.said("WARNING", self.server["id"], "small0"))
        self.hard_reboot(self.server)
        self.assertEqual([self.dest.path("small0")], self.devices(self.server, self.dest))
        self.assert_zero([self.dest.path("small0")])
        self.assert_holds(["small0"], self.dest, self.server)
        self.assert_kept(self.mine)

    def test_a_restart_in_the_middle_of_it_hands_no_foreign_bytes_to_the_guest(self):
        instance = self.instance(self.server)  # as a service that is killed there leaves it
        instance.vm_state, instance.task_state = vm_states.ACTIVE, task_states.RESIZE_FINISH
        instance.save()
        self.restart_host(self.dest)
        self.assert_state(("unknown", None), self.dest, "small0")
        self.api.post_server_action(self.server["id"], {"os-resetState": {"state": "error"}})
        self.hard_reboot(self.server)
        self.assert_zero(self.devices(self.server, self.dest))

    def test_a_quarantined_namespace_does_not_stop_the_start(self):
        self.move(self.dest, "small0", State.QUARANTINED, reason="byte 0 is not zero")
        self.restart_host(self.dest)
        self.assertTrue(self.said("ERROR", self.server["id"], "small0", "quarantined", "vpmem wipe --namespace small0"))
        self.assert_state(("quarantined", None), self.dest, "small0")

    def test_what_another_left_dirty_does_not_stop_the_start(self):
        self.move(self.dest, "small0", State.CLAIMED, owner=OTHER, position=0)
        self.move(self.dest, "small0", State.DIRTY)
        with self.held_open(self.dest.path("small0")):
            self.restart_host(self.dest)
            self.assert_state(("dirty", None), self.dest, "small0")
        self.hard_reboot(self.server)
        self.assert_zero(self.devices(self.server, self.dest))

    def test_what_another_holds_does_not_stop_the_start(self):
        self.move(self.dest, "small0", State.CLAIMED, owner=OTHER, position=0)
        self.restart_host(self.dest)
        self.assertTrue(self.said("ERROR", self.server["id"], "small0", OTHER))
        self.assert_state(("claimed", OTHER), self.dest, "small0")


class KnownTest(RecordTestCase):
    def setUp(self):
        super().setUp()
        self.host = self.start_host(1, SMALL=2)
        self.server = self.boot("SMALL", self.host)
        self.written = self.write(self.server, self.host)
        ((self.path, _),) = self.written.items()

    def libvirt_domain(self):
        return self.computes[self.host.name].driver._host.get_connection().lookupByUUIDString(self.server["id"])

    def lose(self):
        """The ledger is as if it had never given the namespace to anybody: it is an older copy."""
        self.move(self.host, self.path.name, State.UNKNOWN)

    def test_quarantined_under_a_running_guest_does_not_stop_the_start(self):
        self.move(self.host, self.path.name, State.QUARANTINED, reason="byte 0 is not zero")
        self.restart_host(self.host)
        self.assertTrue(self.said("ERROR", self.server["id"], self.path.name, "quarantined"))

    def test_what_a_guest_has_and_another_left_dirty_stops_the_start(self):
        """It would be wiped: a guest that is shut off does not stop that."""
        self._stop_server(self.server)
        self.move(self.host, self.path.name, State.CLAIMED, owner=OTHER, position=0)
        self.move(self.host, self.path.name, State.DIRTY)
        error = self.assert_does_not_start(self.host)
        for words in (self.server["id"], self.path.name, "move the ledger away"):
            self.assertIn(words, str(error))
        self.assert_kept(self.written)

    def test_what_a_guest_has_and_is_clean_in_the_ledger_is_adopted_as_it_is(self):
        """The in-tree driver ran meanwhile, and gave out what was clean."""
        self.move(self.host, self.path.name, State.CLEAN)
        self.restart_host(self.host)
        self.assert_holds([self.path.name], self.host, self.server)
        self.assert_kept(self.written)

    def test_what_a_running_guest_has_is_adopted_as_it_is(self):
        self.lose()
        self.restart_host(self.host)
        self.assert_holds([self.path.name], self.host, self.server)
        self.hard_reboot(self.server)
        self.assert_kept(self.written)

    def test_what_a_defined_guest_has_is_adopted_as_it_is(self):
        self._stop_server(self.server)
        self.lose()
        self.restart_host(self.host)
        self.assert_holds([self.path.name], self.host, self.server)
        self._start_server(self.server)
        self.assert_kept(self.written)

    def test_a_record_alone_is_believed_only_at_the_take_over(self):
        self._stop_server(self.server)
        domain = self.libvirt_domain()
        domain.undefine()
        self.host.forget()
        self.restart_host(self.host)
        self.assert_holds([self.path.name], self.host, self.server)
        self.assert_kept(self.written)
        self.lose()
        self.restart_host(self.host)
        self.assert_holds([], self.host, self.server)
        self._start_server(self.server)
        self.assert_zero(self.devices(self.server, self.host))
