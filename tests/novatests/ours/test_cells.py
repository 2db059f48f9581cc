"""A resize to another cell takes the content of the memory along, or is refused; and what is left where it fails."""

from unittest import mock

import fixtures
import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import context, exception, objects
from nova.policies import base as base_policies
from nova.policies import servers as servers_policies
from novatests.ours import base, receiving, test_moves

from vpmem_driver import exception as vpmem_exception

MIB = 1 << 20
DRIVER = "nova.virt.libvirt.driver.LibvirtDriver"


class CellConnection(receiving.ReceivingConnection):
    """The destination asks the database of its own cell."""

    def require_expected(self, message):
        cell = objects.HostMapping.get_by_host(context.get_admin_context(), "host2").cell_mapping
        with (
            context.target_cell(context.get_admin_context(), cell) as targeted,
            mock.patch.object(context, "get_admin_context", return_value=targeted),
        ):
            self.ask("host2", message)
        return "host2"


class CellTestCase(test_moves.MoveTestCase):
    NUMBER_OF_CELLS = 2

    def setUp(self):
        super().setUp()
        self.policy.set_rules({servers_policies.CROSS_CELL_RESIZE: base_policies.RULE_ADMIN_API}, overwrite=False)
        self.flags(rpc_response_timeout=60, long_rpc_timeout=240)
        self.snapshot = self.useFixture(fixtures.MockPatch(f"{DRIVER}.snapshot")).mock
        self.source = self.start_host(1, SMALL=2)
        self.dest = self.start_host(2, SMALL=2)
        self.server = self.boot("SMALL", self.source)
        self.written = self.write(self.server, self.source)

    def start_host(self, index, **labels):
        host = self.hosts[f"host{index}"] = base.Host(self.root, index, labels)
        self.configure(host)
        self.start_compute(hostname=host.name, cell_name=f"cell{index}")
        return host

    def connect(self, _dest):
        self.connections.append(CellConnection(self.hosts))
        return self.connections[-1]

    def move(self):
        self._migrate_server(self.server, host=self.dest.name)

    def move_fails(self, status="ACTIVE"):
        self.api.post_server_action(self.server["id"], {"migrate": {"host": self.dest.name}})
        # The conductor sets the task after the source has ended it.
        self._wait_for_action_fail_completion(self.server, "migrate", "conductor_migrate_server")
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": status}, 40)
        self.server = self.api.get_server(self.server["id"])
        self.assertEqual(self.source.name, self.server["OS-EXT-SRV-ATTR:host"])

    def assert_only_at_the_source(self):
        self.assert_kept(self.written)
        self.assert_holds([path.name for path in self.written], self.source, self.server)
        self.assertEqual({None}, {row.departure for row in self.rows(self.source)})
        self.wait_for(lambda: not self.dest.holds(self.server), "the destination's release")
        self.computes[self.dest.name].driver._vpmem.background.start()
        self.wait_for(lambda: {state for state, _ in self.dest.states().values()} <= {"clean", "unknown"}, "the wipe")

    def rows(self, host):
        return self.computes[host.name].driver._vpmem.pool.held(self.server["id"])

    def assert_both(self):
        """The source waits with all of it for what becomes of the destination's copy."""
        self.assert_kept(self.written)
        self.assert_holds([path.name for path in self.written], self.source, self.server)
        self.assertEqual(1, len(self.dest.holds(self.server)))

    def has_fault(self, text):
        faults = objects.InstanceFaultList.get_by_instance_uuids(self.source_context(), [self.server["id"]])
        self.assertTrue(
            any(text in f"{fault.message} {fault.details}" for fault in faults), [f.message for f in faults]
        )

    def source_context(self):
        mapping = objects.HostMapping.get_by_host(context.get_admin_context(), self.source.name)
        targeted = context.get_admin_context()
        context.set_target_cell(targeted, mapping.cell_mapping)
        return targeted


class CopyTest(CellTestCase):
    def test_confirm(self):
        self.move()
        self.assert_both()
        self.assertEqual(list(self.written.values()), self.content(self.server, self.dest))
        written = self.write(self.server, self.dest)
        self._confirm_resize(self.server, cross_cell=True)
        self.assert_holds([], self.source, self.server)
        self.assert_wiped(self.source, [path.name for path in self.written])
        self.assert_kept(written)
        self.assertEqual(list(written), self.devices(self.server, self.dest))

    def test_revert(self):
        self.move()
        new = [path.name for path in self.write(self.server, self.dest)]
        self._revert_resize(self.server)
        self.assert_kept(self.written)
        self.assertEqual(list(self.written), self.devices(self.server, self.source))
        self.assertTrue(self.domain_runs(self.server, self.source))
        self.assert_only_at_the_source()
        self.assert_wiped(self.dest, new)

    def test_a_stopped_server(self):
        self.server = self._stop_server(self.server)
        self.move()
        self.assertEqual(list(self.written.values()), self.content(self.server, self.dest))

    def test_a_connection_that_breaks_is_made_again(self):
        receiving.ReceivingConnection.cuts = [None, 2 * MIB]
        self.move()
        self.assertEqual(list(self.written.values()), self.content(self.server, self.dest))

    def test_discarded(self):
        self.flags(on_move="discard", group="vpmem")
        self.move()
        self.assertEqual([bytes(base.SIZE)], self.content(self.server, self.dest))
        self._revert_resize(self.server)
        self.assert_kept(self.written)

    def test_a_source_without_this_driver(self):
        with (
            mock.patch("vpmem_driver.nova.cells_mixin.CellsMixin._vpmem_cell_move", return_value=None),
            self.assertLogs("vpmem_driver.nova.moves_mixin", "WARNING") as logged,
        ):
            self.move()
        self.assertIn("has not arrived from host1", logged.output[0])
        self.assertEqual([bytes(base.SIZE)], self.content(self.server, self.dest))
        self.assert_kept(self.written)

    def test_only_while_it_moves(self):
        offer = test_moves.ExpectedTest.offer(self, self.server["id"], "small0")
        self.assertRaises(vpmem_exception.InvalidRequest, CellConnection(self.hosts).require_expected, offer)
        self.move()
        self.assertRaises(vpmem_exception.InvalidRequest, CellConnection(self.hosts).require_expected, offer)


class FailingTest(CellTestCase):
    """Wherever it fails, one host has the content, and the server can be started there."""

    def assert_runs_on(self):
        self.assertTrue(self.domain_runs(self.server, self.source))
        self.assert_only_at_the_source()

    def test_a_connection_that_breaks_each_time(self):
        receiving.ReceivingConnection.cuts = list(receiving.BREAKS)
        self.move_fails()
        self.assert_runs_on()
        self.has_fault("Copy of namespace small")

    def test_a_stopped_server_stays_stopped(self):
        self._stop_server(self.server)
        receiving.ReceivingConnection.cuts = list(receiving.BREAKS)
        self.move_fails("SHUTOFF")
        self.assertFalse(self.domain_runs(self.server, self.source))
        self.assert_only_at_the_source()
        self._start_server(self.server)
        self.assert_kept(self.written)

    def test_a_destination_that_cannot_be_reached_is_noticed_before_the_guest_is_powered_off(self):
        receiving.ReceivingConnection.cuts = [0, 0]
        with mock.patch(f"{DRIVER}.power_off", side_effect=AssertionError("powered off")):
            self.move_fails()
        self.assert_runs_on()
        self.has_fault("The connection to host2 was lost")

    def test_libvirt_does_not_answer_after_the_destination_has_agreed(self):
        unavailable = exception.HypervisorUnavailable(host=self.source.name)
        with mock.patch("vpmem_driver.nova.guests.is_running", side_effect=[unavailable]):
            self.move_fails()
        self.assert_runs_on()

    def test_refused_by_the_operator(self):
        self.flags(on_move="refuse", group="vpmem")
        with mock.patch(f"{DRIVER}.power_off", side_effect=AssertionError("powered off")):
            self.move_fails()
        self.assert_runs_on()
        self.assertEqual([], self.connections)
        self.has_fault("a server with persistent memory is not moved")
        self.has_fault("vpmem:on_resize=discard")

    def test_the_disk_cannot_be_copied(self):
        self.snapshot.side_effect = exception.NovaException("no space for the image")
        self.move_fails()
        self.assert_runs_on()

    def test_the_source_fails_after_that(self):
        """Nova leaves it in ERROR at the source, and deletes what the destination's cell knows of it."""
        with mock.patch(f"{DRIVER}.destroy", side_effect=exception.NovaException("busy")):
            self.move_fails("ERROR")
        self.assert_both()
        self._reboot_server(self.server, hard=True)
        self.assert_runs_on()

    def test_the_server_is_deleted_after_that(self):
        with mock.patch(f"{DRIVER}.destroy", side_effect=exception.NovaException("busy")):
            self.move_fails("ERROR")
        self.assert_both()
        self._delete_server(self.server)
        self.assert_wiped(self.source, [path.name for path in self.written])
        self.wait_for(lambda: not self.dest.holds(self.server), "the destination's release")

    def test_the_destination_cannot_be_told(self):
        with mock.patch(f"{DRIVER}.destroy", side_effect=exception.NovaException("busy")):
            self.move_fails("ERROR")
        receiving.ReceivingConnection.cuts = [0]
        with self.assertLogs("vpmem_driver.nova.moves", "ERROR") as logged:
            self._reboot_server(self.server, hard=True)
        self.assertIn(f"run 'vpmem release {self.server['id']}' there", logged.output[0])
        self.assert_both()
        self.assertTrue(self.domain_runs(self.server, self.source))

    def test_the_destination_cannot_start_it(self):
        with mock.patch.object(
            self.computes[self.dest.name].driver, "_create_guest", side_effect=exception.NovaException("not now")
        ):
            self.move_fails("ERROR")
        self.wait_for(lambda: not self.dest.holds(self.server), "the destination's release")
        self._reboot_server(self.server, hard=True)
        self.assert_runs_on()

    def test_after_a_failure_the_next_move_succeeds(self):
        self.snapshot.side_effect = [exception.NovaException("no space for the image"), None]
        self.move_fails()
        self.assert_runs_on()
        self._run_periodics()
        self.move()
        self.assertEqual(list(self.written.values()), self.content(self.server, self.dest))
