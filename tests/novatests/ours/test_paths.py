"""One test for each path of an instance's life: what is kept, what is given back, what is wiped."""

from unittest import mock

import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import context, exception
from nova.compute import task_states, vm_states
from novatests.ours import base


class BootTest(base.VPMEMTestCase):
    def test_boot_wipes_what_is_unknown_and_records_it_as_nova_does(self):
        host = self.start_host(1, SMALL=2, BIG=1)
        server = self.boot("BIG,SMALL", host)
        big, small = self.devices(server, host)
        self.assertEqual("big0", big.name)
        self.assert_zero([big, small])
        self.assert_holds(sorted([big.name, small.name]), host, server)
        recorded = {resource.identifier: resource.metadata.devpath for resource in self.instance(server).resources}
        self.assertEqual({path.name: str(path) for path in (big, small)}, recorded)
        self.assertEqual({"CUSTOM_PMEM_NAMESPACE_BIG": 1, "CUSTOM_PMEM_NAMESPACE_SMALL": 1}, self.usage(server, host))

    def test_delete_releases_and_wipes(self):
        host = self.start_host(1, SMALL=2)
        server = self.boot("SMALL,SMALL", host)
        written = self.write(server, host)
        self._delete_server(server)
        self.assert_holds([], host, server)
        self.assert_wiped(host, written)

    def test_the_next_tenant_finds_only_zeros(self):
        host = self.start_host(1, SMALL=1)
        first = self.boot("SMALL", host)
        written = self.write(first, host)
        self._delete_server(first)
        second = self.boot("SMALL", host)
        self.assertEqual(list(written), self.devices(second, host))
        self.assert_zero(written)

    def test_a_build_that_fails_gives_back(self):
        host = self.start_host(1, SMALL=1)
        self.computes[host.name].driver._create_guest_with_network = _fail
        server = self.boot("SMALL", host, expected_state="ERROR")
        self.assert_holds([], host, server)
        self.assert_wiped(host, [host.path("small0")])


class KeepTest(base.VPMEMTestCase):
    """The same guest comes back, and finds its bytes."""

    def setUp(self):
        super().setUp()
        self.host = self.start_host(1, SMALL=2)
        self.server = self.boot("SMALL", self.host)
        self.written = self.write(self.server, self.host)

    def assert_still_there(self):
        self.assert_kept(self.written)
        self.assertEqual(list(self.written), self.devices(self.server, self.host))
        self.assert_holds([path.name for path in self.written], self.host, self.server)

    def test_stop_and_start(self):
        self._stop_server(self.server)
        self.assert_kept(self.written)
        self._start_server(self.server)
        self.assert_still_there()

    def test_hard_reboot(self):
        self._reboot_server(self.server, hard=True)
        self.assert_still_there()

    def test_soft_reboot(self):
        self._reboot_server(self.server, hard=False)
        self.assert_still_there()

    def test_pause_and_unpause(self):
        self.api.post_server_action(self.server["id"], {"pause": {}})
        self._wait_for_state_change(self.server, "PAUSED")
        self.assert_kept(self.written)
        self.api.post_server_action(self.server["id"], {"unpause": {}})
        self._wait_for_state_change(self.server, "ACTIVE")
        self.assert_still_there()

    def test_suspend_and_resume(self):
        self._suspend_server(self.server)
        self.assert_kept(self.written)
        self._resume_server(self.server)
        self.assert_still_there()

    def test_rescue_and_unrescue(self):
        self._rescue_server(self.server)
        self.assert_still_there()
        self._unrescue_server(self.server)
        self.assert_still_there()

    def test_reclaim_of_a_soft_deleted_server_gives_back(self):
        self.flags(reclaim_instance_interval=3600)
        self.api.delete_server(self.server["id"])
        self._wait_for_state_change(self.server, "SOFT_DELETED")
        self.assert_kept(self.written)
        self.flags(reclaim_instance_interval=1)
        manager = self.computes[self.host.name].manager

        def reclaimed():
            manager._reclaim_queued_deletes(context.get_admin_context())
            return not self.host.holds(self.server)

        self.wait_for(reclaimed, "the deletion")
        self.assert_wiped(self.host, self.written)

    def test_soft_delete_and_restore(self):
        self.flags(reclaim_instance_interval=3600)
        self.api.delete_server(self.server["id"])
        self._wait_for_state_change(self.server, "SOFT_DELETED")
        self.assert_kept(self.written)
        self.api.post_server_action(self.server["id"], {"restore": {}})
        self._wait_for_state_change(self.server, "ACTIVE")
        self.assert_still_there()

    def test_restart_of_the_service(self):
        self.restart_host(self.host)
        self.assert_still_there()
        self._reboot_server(self.server, hard=True)
        self.assert_still_there()

    def test_a_start_that_fails(self):
        self._stop_server(self.server)
        driver = self.computes[self.host.name].driver
        original, driver._create_guest = driver._create_guest, _fail
        self.api.post_server_action(self.server["id"], {"os-start": None})
        self._wait_for_instance_action_event(self.server, "start", "compute_start_instance", "Error")
        driver._create_guest = original
        self.assert_kept(self.written)
        self.assert_holds([path.name for path in self.written], self.host, self.server)


class RebuildTest(base.VPMEMTestCase):
    def test_rebuild_wipes_and_keeps_the_claim(self):
        host = self.start_host(1, SMALL=2)
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        self._rebuild_server(server, base.IMAGE)
        self.assertEqual(list(written), self.devices(server, host))
        self.assert_zero(written)
        self.assert_holds([path.name for path in written], host, server)


class ResizeTest(base.VPMEMTestCase):
    def setUp(self):
        super().setUp()
        self.source = self.start_host(1, SMALL=2)
        self.dest = self.start_host(2, SMALL=2, BIG=1)
        self.server = self.boot("SMALL", self.source)
        self.written = self.write(self.server, self.source)
        self.server = self._resize_server(self.server, self.flavor("BIG,SMALL"))
        self.assertEqual(self.dest.name, self.server["OS-EXT-SRV-ATTR:host"])
        self.new = self.devices(self.server, self.dest)

    def assert_copied(self):
        """By position: the first device has the content, the second one is new."""
        (content,) = self.written.values()
        self.assertTrue(self.new[0].read_bytes() == content)
        self.assert_zero(self.new[1:])

    def test_before_confirmation_both_hosts_hold_theirs(self):
        self.assert_kept(self.written)
        self.assert_copied()
        self.assert_holds([path.name for path in self.written], self.source, self.server)
        self.assert_holds(sorted(path.name for path in self.new), self.dest, self.server)

    def test_confirm(self):
        written = self.write(self.server, self.dest)
        self._confirm_resize(self.server)
        self.assert_holds([], self.source, self.server)
        self.assert_wiped(self.source, self.written)
        self.assert_kept(written)

    def test_revert(self):
        self.write(self.server, self.dest)
        self._revert_resize(self.server)
        self.assert_kept(self.written)
        self.assert_holds([path.name for path in self.written], self.source, self.server)
        self.assert_holds([], self.dest, self.server)
        self.assert_wiped(self.dest, self.new)

    def test_delete_before_confirmation(self):
        self._delete_server(self.server)
        self.assert_wiped(self.source, self.written)
        self.assert_wiped(self.dest, self.new)


class InterruptedResizeTest(base.VPMEMTestCase):
    def test_the_source_is_restarted_before_the_destination_has_heard_of_it(self):
        """Nova rolls it back when the source starts: init_host calls finish_revert_migration."""
        source, dest = self.start_host(1, SMALL=1), self.start_host(2, SMALL=1)
        server = self.boot("SMALL", source)
        written = self.write(server, source)
        driver = self.computes[source.name].driver
        migrate = driver.migrate_disk_and_power_off

        def crash(*args, **kwargs):
            migrate(*args, **kwargs)
            raise exception.NovaException("here the service is killed")

        with mock.patch.object(driver, "migrate_disk_and_power_off", side_effect=crash):
            self.api.post_server_action(server["id"], {"resize": {"flavorRef": self.flavor("SMALL")}})
            self.wait_for_error(server)
        instance = self.instance(server)  # as a service that was killed there leaves it
        instance.vm_state, instance.task_state = vm_states.ACTIVE, task_states.RESIZE_MIGRATING
        instance.save()
        self.restart_host(source)
        self._wait_for_server_parameter(server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"})
        self.assert_kept(written)
        self.assertEqual(list(written), self.devices(server, source))
        self.assert_holds([path.name for path in written], source, server)
        self._run_periodics()  # what had arrived at the destination is a leftover now
        self.assert_holds([], dest, server)
        self.assert_wiped(dest, [dest.path("small0")])


class SameHostResizeTest(base.VPMEMTestCase):
    def setUp(self):
        super().setUp()
        self.flags(allow_resize_to_same_host=True)
        self.host = self.start_host(1, SMALL=2, BIG=1)
        self.server = self.boot("SMALL", self.host)
        self.written = self.write(self.server, self.host)
        self.server = self._resize_server(self.server, self.flavor("BIG,SMALL"))
        self.new = self.devices(self.server, self.host)
        self.assertFalse(set(self.new) & set(self.written))
        self.assert_kept(self.written)
        ResizeTest.assert_copied(self)

    def test_confirm(self):
        written = self.write(self.server, self.host)
        self._confirm_resize(self.server)
        self.assert_wiped(self.host, self.written)
        self.assert_kept(written)
        self.assert_holds(sorted(path.name for path in self.new), self.host, self.server)

    def test_revert(self):
        self._revert_resize(self.server)
        self.assert_kept(self.written)
        self.assertEqual(list(self.written), self.devices(self.server, self.host))
        self.assert_wiped(self.host, self.new)
        self.assert_holds([path.name for path in self.written], self.host, self.server)


class ShelveTest(base.VPMEMTestCase):
    def test_offload_gives_back_and_unshelve_claims(self):
        self.flags(shelved_offload_time=0)
        self.flags(on_shelve="discard", group="vpmem")
        host = self.start_host(1, SMALL=1)
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        self._shelve_server(server, expected_state="SHELVED_OFFLOADED")
        self.assert_holds([], host, server)
        self.assert_wiped(host, written)
        self._unshelve_server(server)
        self.assert_holds(["small0"], host, server)
        self.assert_zero(self.devices(server, host))

    def test_an_unshelve_that_fails_gives_back(self):
        self.flags(shelved_offload_time=0)
        self.flags(on_shelve="discard", group="vpmem")
        host = self.start_host(1, SMALL=1)
        server = self.boot("SMALL", host)
        self._shelve_server(server, expected_state="SHELVED_OFFLOADED")
        driver = self.computes[host.name].driver
        with mock.patch.object(driver, "_create_guest", side_effect=exception.NovaException("not now")):
            self.api.post_server_action(server["id"], {"unshelve": None})
            self._wait_for_action_fail_completion(server, "unshelve", "compute_unshelve_instance")
        self._wait_for_server_parameter(server, {"OS-EXT-STS:task_state": None})
        self.assert_holds([], host, server)
        self._unshelve_server(server)
        self.assert_zero(self.devices(server, host))


def _fail(*_args, **_kwargs):
    raise RuntimeError("this host cannot start a guest now")
