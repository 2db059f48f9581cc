"""The content of a server's memory goes with it at a cold migration or resize, or the move is refused."""

import pathlib
from unittest import mock

from nova import context, exception, objects
from nova.tests.functional.api.client import OpenStackApiException
from nova.virt.libvirt import utils as libvirt_utils
from novatests.ours import base, receiving

from vpmem_driver import exception as vpmem_exception
from vpmem_driver.nova import moves, receive
from vpmem_driver.transfer import messages
from vpmem_driver.transfer.connection import ConnectionLost

MIB = 1 << 20


class MoveTestCase(base.VPMEMTestCase):
    def setUp(self):
        super().setUp()
        receiving.ReceivingConnection.cuts = []

    def content(self, server, host):
        """What the server's guest finds in its devices on `host`, in their order."""
        return [path.read_bytes() for path in self.devices(server, host)]

    def assert_holds(self, names, host, server):
        self.assertEqual(sorted(names), host.holds(server))

    def assert_wiped(self, host, names):
        wanted = dict.fromkeys(names, ("clean", None))
        self.wait_for(
            lambda: {name: state for name, state in host.states().items() if name in wanted} == wanted,
            f"the wipe of {', '.join(names)}",
        )
        self.assert_zero([host.path(name) for name in names])

    def domain_runs(self, server, host):
        connection = self.computes[host.name].driver._host.get_connection()
        return connection.lookupByUUIDString(server["id"]).isActive()

    def fault(self, server):
        """The text of the last fault; the API shows it for servers in ERROR only, and in the events of the action."""
        fault = objects.InstanceFault.get_latest_for_instance(context.get_admin_context(), server["id"])
        return f"{fault.message} {fault.details}"

    def resize(self, server, flavor):
        self.api.post_server_action(server["id"], {"resize": {"flavorRef": flavor}})

    def assert_stays(self, server, source, dest, written, status="ACTIVE"):
        """The server is on the source with all of its bytes, and the destination has nothing of it."""
        self._wait_for_action_fail_completion(server, "resize", "compute_resize_instance")
        server = self._wait_for_server_parameter(server, {"OS-EXT-STS:task_state": None, "status": status})
        self.assertEqual(source.name, server["OS-EXT-SRV-ATTR:host"])
        self.assert_kept(written)
        self.assert_holds([path.name for path in written], source, server)
        self.assertEqual(list(written), self.devices(server, source))
        self.wait_for(lambda: not dest.holds(server), "the destination's release")
        self.computes[dest.name].driver._vpmem.background.start()
        self.wait_for(
            lambda: not any(state == "dirty" for state, _ in dest.states().values()), "the wipe on the destination"
        )


class MigrationTest(MoveTestCase):
    def setUp(self):
        super().setUp()
        self.source = self.start_host(1, SMALL=2)
        self.dest = self.start_host(2, SMALL=2)
        self.server = self.boot("SMALL,SMALL", self.source)
        self.written = self.write(self.server, self.source)

    def migrate(self):
        self.server = self._migrate_server(self.server)
        self.assertEqual(self.dest.name, self.server["OS-EXT-SRV-ATTR:host"])

    def test_confirm(self):
        self.migrate()
        self.assertEqual(list(self.written.values()), self.content(self.server, self.dest))
        self.assert_kept(self.written)
        self.assert_holds([path.name for path in self.written], self.source, self.server)
        after = self.write(self.server, self.dest)
        self._confirm_resize(self.server)
        self.assert_kept(after)
        self.assert_holds([], self.source, self.server)
        self.assert_wiped(self.source, [path.name for path in self.written])

    def test_revert(self):
        self.migrate()
        new = [path.name for path in self.write(self.server, self.dest)]
        self._revert_resize(self.server)
        self.assert_kept(self.written)
        self.assertEqual(list(self.written), self.devices(self.server, self.source))
        self.assert_holds([], self.dest, self.server)
        self.assert_wiped(self.dest, new)

    def test_a_stopped_server(self):
        self.server = self._stop_server(self.server)
        self.server = self._migrate_server(self.server)
        self.api.post_server_action(self.server["id"], {"confirmResize": None})
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "SHUTOFF"})
        self.server = self._start_server(self.server)
        self.assertEqual(list(self.written.values()), self.content(self.server, self.dest))

    def test_a_server_without_a_domain(self):
        """Nova removes the domain of a server that it fails to start. Its memory is still there."""
        self.server = self._stop_server(self.server)
        self.computes[self.source.name].driver._host.get_connection().lookupByUUIDString(self.server["id"]).undefine()
        self.server = self._migrate_server(self.server)
        self.assertEqual(self.dest.name, self.server["OS-EXT-SRV-ATTR:host"])
        self.api.post_server_action(self.server["id"], {"confirmResize": None})
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "SHUTOFF"})
        self.server = self._start_server(self.server)
        self.assertEqual(list(self.written.values()), self.content(self.server, self.dest))

    def test_a_connection_that_breaks_is_made_again(self):
        receiving.ReceivingConnection.cuts = [None, 2 * MIB]
        self.migrate()
        self.assertEqual(list(self.written.values()), self.content(self.server, self.dest))
        self.assertEqual(3, len(self.connections))

    def test_a_second_move_back(self):
        self.migrate()
        self._confirm_resize(self.server)
        self.assert_wiped(self.source, [path.name for path in self.written])
        after = self.write(self.server, self.dest)
        self.server = self._migrate_server(self.server)
        self._confirm_resize(self.server)
        self.assertEqual(list(after.values()), self.content(self.server, self.source))


class FailingMoveTest(MoveTestCase):
    """The server stays where it was, running if it ran, and its fault says why."""

    def setUp(self):
        super().setUp()
        self.source = self.start_host(1, SMALL=1)
        self.dest = self.start_host(2, SMALL=1, BIG=1)
        self.server = self.boot("SMALL", self.source)
        self.written = self.write(self.server, self.source)

    def test_a_connection_that_breaks_each_time(self):
        receiving.ReceivingConnection.cuts = list(receiving.BREAKS)
        self.resize(self.server, self.flavor("SMALL", **{"x:y": "z"}))
        self.assert_stays(self.server, self.source, self.dest, self.written)
        self.assertTrue(self.domain_runs(self.server, self.source))
        self.assertIn("Copy of namespace small0 failed", self.fault(self.server))

    def test_a_stopped_server_stays_stopped(self):
        self._stop_server(self.server)
        receiving.ReceivingConnection.cuts = list(receiving.BREAKS)
        self.resize(self.server, self.flavor("SMALL"))
        self.assert_stays(self.server, self.source, self.dest, self.written, status="SHUTOFF")
        self.assertFalse(self.domain_runs(self.server, self.source))
        self._start_server(self.server)
        self.assert_kept(self.written)

    def test_a_destination_that_cannot_be_reached_is_noticed_before_the_guest_is_powered_off(self):
        receiving.ReceivingConnection.cuts = [0, 0]
        driver = self.computes[self.source.name].driver
        with mock.patch.object(driver, "power_off", side_effect=AssertionError("powered off")):
            self.resize(self.server, self.flavor("SMALL"))
            self.assert_stays(self.server, self.source, self.dest, self.written)
        self.assertTrue(self.domain_runs(self.server, self.source))
        self.assertIn("was lost", self.fault(self.server))
        self.assertIn("vpmem:on_resize=discard", self.fault(self.server))

    def test_the_answer_of_a_destination_that_accepts_is_lost(self):
        read, answers = receiving.ReceivingConnection.read, []

        def lose_first(connection):
            answers.append(read(connection))
            if len(answers) == 1:
                raise ConnectionLost(host=self.dest.name, reason="the network is down")
            return answers[-1]

        with mock.patch.object(receiving.ReceivingConnection, "read", lose_first):
            self.resize(self.server, self.flavor("SMALL"))
            self.assert_stays(self.server, self.source, self.dest, self.written)
        self.assertIsInstance(answers[0], messages.Accepted)
        self.assertTrue(self.domain_runs(self.server, self.source))

    def fail_without_shared_storage(self, *, leave=None):
        """Fail to copy the memory; returns the instance's directory on the destination.

        :param leave: a file that is in it by then
        """
        root = pathlib.Path(self.root, "of the destination")
        ssh = pathlib.Path(self.root, "ssh")
        ssh.write_text(f'#!/bin/sh\n[ "$1 $2" = "-- dest" ] && exec "$3" \'{root}\'"$(eval echo "$4")"\n')
        ssh.chmod(0o700)
        self.flags(ssh_command=str(ssh), group="vpmem")
        path = pathlib.Path(f"{root}{libvirt_utils.get_instance_path(self.instance(self.server))}")
        driver = self.computes[self.source.name].driver
        migrate = driver.migrate_disk_and_power_off

        def fail(*_arguments):
            self.assertTrue(path.is_dir())
            if leave is not None:
                (path / leave).touch()
            raise vpmem_exception.CopyFailed(namespace="small0", reason="broken", remedy="Mend it", resumable=False)

        with (
            mock.patch.object(driver, "_is_path_shared_with", return_value=False),
            mock.patch.object(driver, "_remotefs") as remote,
            mock.patch.object(driver, "migrate_disk_and_power_off", self.to_dest(migrate)),
            mock.patch.object(moves.Move, "copy", fail),
        ):
            remote.create_dir.side_effect = lambda _dest, made: pathlib.Path(f"{root}{made}").mkdir(parents=True)
            self.resize(self.server, self.flavor("SMALL"))
            self.assert_stays(self.server, self.source, self.dest, self.written)
        return path

    @staticmethod
    def to_dest(migrate):
        return lambda context, instance, _dest, *args, **kwargs: migrate(context, instance, "dest", *args, **kwargs)

    def test_the_empty_directory_that_nova_has_made_at_the_destination_is_removed(self):
        path = self.fail_without_shared_storage()
        self.assertTrue(path.parent.is_dir())
        self.assertFalse(path.exists())

    def test_a_directory_at_the_destination_that_is_not_empty_stays(self):
        path = self.fail_without_shared_storage(leave="disk")
        self.assertEqual([path / "disk"], list(path.iterdir()))

    def test_a_disk_that_cannot_be_copied_after_the_memory(self):
        with mock.patch.object(
            libvirt_utils, "save_and_migrate_vtpm_dir", side_effect=exception.NovaException("no space on the disk")
        ):
            self.resize(self.server, self.flavor("SMALL"))
            self.assert_stays(self.server, self.source, self.dest, self.written)
        self.assertTrue(self.domain_runs(self.server, self.source))
        self.assertIn("no space on the disk", self.fault(self.server))

    def test_a_check_of_novas_that_fails_leaves_nothing_on_the_destination(self):
        driver = self.computes[self.source.name].driver
        rollback = exception.InstanceFaultRollback(exception.ResizeError(reason="Unable to resize disk down."))
        with mock.patch.object(driver, "power_off", side_effect=rollback):
            self.resize(self.server, self.flavor("SMALL"))
            self.assert_stays(self.server, self.source, self.dest, self.written)
        self.assertTrue(self.domain_runs(self.server, self.source))

    def test_libvirt_does_not_answer_after_the_destination_has_agreed(self):
        unavailable = exception.HypervisorUnavailable(host=self.source.name)
        with mock.patch("vpmem_driver.nova.guests.is_running", side_effect=unavailable):
            self.resize(self.server, self.flavor("SMALL"))
            self.assert_stays(self.server, self.source, self.dest, self.written)
        self.assertTrue(self.domain_runs(self.server, self.source))

    def test_after_a_failure_the_next_move_succeeds(self):
        receiving.ReceivingConnection.cuts = list(receiving.BREAKS)
        self.resize(self.server, self.flavor("SMALL"))
        self.assert_stays(self.server, self.source, self.dest, self.written)
        receiving.ReceivingConnection.cuts = []
        self._run_periodics()  # Nova frees what the destination has given to the failed one
        self.server = self._migrate_server(self.server)
        self._confirm_resize(self.server)
        self.assertEqual(list(self.written.values()), self.content(self.server, self.dest))


class DecisionTest(MoveTestCase):
    """What cannot be copied is refused before anything is touched, or discarded because somebody has said so."""

    def setUp(self):
        super().setUp()
        self.source = self.start_host(1, SMALL=2)
        self.dest = self.start_host(2, SMALL=2, LESS=["less0"], BIG=2)
        self.server = self.boot("SMALL,SMALL", self.source)
        self.written = self.write(self.server, self.source)

    def assert_refused(self, *texts):
        driver = self.computes[self.source.name].driver
        self.assert_stays(self.server, self.source, self.dest, self.written)
        self.assertTrue(self.domain_runs(self.server, self.source))
        for text in texts:
            self.assertIn(text, self.fault(self.server))
        self.assertEqual([], driver._vpmem.pool._state.ledger.held(self.server["id"])[0].departure or [])

    def test_a_missing_label(self):
        self.resize(self.server, self.flavor("SMALL"))
        self.assert_refused("the new flavor has 1 persistent memory devices", "small1", "vpmem:on_resize=discard")

    def test_no_label_at_all(self):
        flavor = self._create_flavor(vcpu=1, memory_mb=512, disk=1, ephemeral=0)
        self.resize(self.server, flavor)
        self.assert_refused("the new flavor has 0 persistent memory devices")

    def test_discarded_by_the_flavor(self):
        flavor = self.flavor("SMALL", **{"vpmem:on_resize": "discard"})
        self.server = self._resize_server(self.server, flavor)
        self.assertEqual([bytes(base.SIZE)], self.content(self.server, self.dest))
        self.assert_kept(self.written)

    def test_discarded_by_the_operator(self):
        self.flags(on_move="discard", group="vpmem")
        self.server = self._resize_server(self.server, self.flavor("SMALL"))
        self.assertEqual([bytes(base.SIZE)], self.content(self.server, self.dest))

    def test_the_flavor_takes_precedence(self):
        self.flags(on_move="discard", group="vpmem")
        self.resize(self.server, self.flavor("SMALL", **{"vpmem:on_resize": "refuse"}))
        self.assert_refused("is not moved")

    def test_more_labels(self):
        """By position: the content stays in the first two devices, and the third one is empty."""
        self.server = self._resize_server(self.server, self.flavor("BIG,SMALL,BIG"))
        self.assertEqual([*self.written.values(), bytes(base.SIZE)], self.content(self.server, self.dest))


class SmallerTest(MoveTestCase):
    def test_a_smaller_namespace_is_refused_and_both_sizes_are_named(self):
        dest = self.start_host(2, LESS=1)
        self.addCleanup(setattr, base, "SIZE", base.SIZE)
        base.SIZE = 8 * MIB
        source = self.start_host(1, SMALL=1)
        server = self.boot("SMALL", source)
        written = self.write(server, source)
        self.resize(server, self.flavor("LESS"))
        self.assert_stays(server, source, dest, written)
        self.assertIn("8388608 bytes) does not fit into less0 (4194304 bytes)", self.fault(server))


class SameHostMoveTest(MoveTestCase):
    def setUp(self):
        super().setUp()
        self.flags(allow_resize_to_same_host=True)
        self.host = self.start_host(1, SMALL=2, BIG=1)
        self.server = self.boot("SMALL", self.host)
        self.written = self.write(self.server, self.host)

    def test_confirm(self):
        self.server = self._resize_server(self.server, self.flavor("BIG"))
        self.assertEqual(list(self.written.values()), self.content(self.server, self.host))
        self.assert_kept(self.written)
        self.assertEqual([], self.connections)
        self._confirm_resize(self.server)
        self.assertEqual(list(self.written.values()), self.content(self.server, self.host))
        self.assert_wiped(self.host, [path.name for path in self.written])
        self.assert_holds(["big0"], self.host, self.server)

    def test_revert(self):
        self.server = self._resize_server(self.server, self.flavor("BIG"))
        self._revert_resize(self.server)
        self.assert_kept(self.written)
        self.assertEqual(list(self.written), self.devices(self.server, self.host))
        self.assert_wiped(self.host, ["big0"])

    def test_a_destination_in_use_stops_it(self):
        users = [None, "the running domain other"]
        with mock.patch("vpmem_driver.pool.copy_recorders.Records.user_of", side_effect=users):
            self.resize(self.server, self.flavor("BIG"))
            self._wait_for_action_fail_completion(self.server, "resize", "compute_resize_instance")
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"})
        self.assert_kept(self.written)
        self.assertTrue(self.domain_runs(self.server, self.host))
        self.assert_holds([path.name for path in self.written], self.host, self.server)


class ShelveTest(MoveTestCase):
    def setUp(self):
        super().setUp()
        self.host = self.start_host(1, SMALL=1)
        self.server = self.boot("SMALL", self.host)
        self.written = self.write(self.server, self.host)

    def test_it_is_refused_while_the_guest_runs(self):
        self.flags(shelved_offload_time=0)
        self.api.post_server_action(self.server["id"], {"shelve": {}})
        self._wait_for_action_fail_completion(self.server, "shelve", "compute_shelve_instance")
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"})
        self.assertTrue(self.domain_runs(self.server, self.host))
        self.assert_kept(self.written)
        self.assertIn("vpmem:on_shelve=discard", self.fault(self.server))

    def test_a_volume_backed_server_is_offloaded_at_once_and_so_refused(self):
        """Nova takes no snapshot of it, and does not wait for shelved_offload_time."""
        self.flags(shelved_offload_time=3600)
        with mock.patch("nova.compute.utils.is_volume_backed_instance", return_value=True):
            self.api.post_server_action(self.server["id"], {"shelve": {}})
            self._wait_for_action_fail_completion(self.server, "shelve", "compute_shelve_offload_instance")
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"})
        self.assertTrue(self.domain_runs(self.server, self.host))
        self.assert_kept(self.written)
        self.assertIn("vpmem:on_shelve=discard", self.fault(self.server))

    def test_a_server_that_is_shelved_and_not_offloaded_keeps_its_memory(self):
        self.flags(shelved_offload_time=-1)
        self._shelve_server(self.server, expected_state="SHELVED")
        self.api.post_server_action(self.server["id"], {"shelveOffload": {}})
        self._wait_for_action_fail_completion(self.server, "shelveOffload", "compute_shelve_offload_instance")
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None})
        self.assert_kept(self.written)
        self._unshelve_server(self.server)
        self.assert_kept(self.written)
        self.assertEqual(list(self.written), self.devices(self.server, self.host))


class ExtraSpecTest(base.VPMEMTestCase):
    def test_the_api_validates_them(self):
        flavor = self.flavor("SMALL")
        for name, good in (("vpmem:on_resize", "copy"), ("vpmem:on_shelve", "discard"), ("vpmem:on_shelve", "export")):
            self.api.post_extra_spec(flavor, {"extra_specs": {name: good}})
            error = self.assertRaises(
                OpenStackApiException, self.api.post_extra_spec, flavor, {"extra_specs": {name: "sometimes"}}
            )
            self.assertIn("400", str(error))
        error = self.assertRaises(
            OpenStackApiException, self.api.post_extra_spec, flavor, {"extra_specs": {"vpmem:on_fire": "copy"}}
        )
        self.assertIn("400", str(error))


class ExpectedTest(MoveTestCase):
    """A receiver asks Nova before it changes anything."""

    def offer(self, owner, *names):
        offered = [
            messages.Offered(name="x", label="SMALL", size=base.SIZE, align=4096, namespace=name) for name in names
        ]
        return messages.Offer(version=1, copy="00c0ffee", owner=owner, namespaces=tuple(offered))

    def assert_unexpected(self, text, host, owner, *names):
        error = self.assertRaises(
            vpmem_exception.InvalidRequest, receive.require_expected, host.name, self.offer(owner, *names)
        )
        self.assertIn(text, str(error))

    def test_only_a_server_that_migrates_here_and_only_its_namespaces(self):
        source, dest = self.start_host(1, SMALL=1), self.start_host(2, SMALL=2)
        server = self.boot("SMALL", source)
        self.assert_unexpected("Nova does not know it", dest, "00000000-0000-0000-0000-000000000001", "small0")
        self.assert_unexpected("it does not migrate now", dest, server["id"], "small0")
        seen = []

        def look(_dest):
            (new,) = self.instance(server).migration_context.new_resources
            other = ({"small0", "small1"} - {new.identifier}).pop()
            self.assertEqual(
                [new.identifier], receive.require_expected(dest.name, self.offer(server["id"], new.identifier))
            )
            self.assert_unexpected("not to this host", source, server["id"], new.identifier)
            self.assert_unexpected(f"Nova has not chosen {other}", dest, server["id"], other)
            self.assert_unexpected("Nova has not chosen", dest, server["id"], new.identifier, other)
            self.assert_unexpected("Nova has not chosen", dest, server["id"], new.identifier, new.identifier)
            self.assert_unexpected("Nova has not chosen", dest, server["id"], None)
            seen.append(True)
            return base.VPMEMTestCase.connect(self, _dest)

        self.connect = look
        self._migrate_server(server)
        self.assertTrue(seen)

    def test_a_source_does_not_take_back_what_a_server_here_has(self):
        """It knows the id of the copy for ever, and had it released after the move."""
        source, dest = self.start_host(1, SMALL=1), self.start_host(2, SMALL=1)
        server = self.boot("SMALL", source)
        receive.require_away(dest.name, server["id"])
        self._migrate_server(server)
        receive.require_away(source.name, server["id"])
        error = self.assertRaises(vpmem_exception.InvalidRequest, receive.require_away, dest.name, server["id"])
        self.assertIn("Nova has it on host2", str(error))
        self._delete_server(server)
        receive.require_away(dest.name, server["id"])
