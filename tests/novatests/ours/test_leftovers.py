"""What the ledger has for a server that lives elsewhere, or has other memory by now: kept, reserved, given back."""

from unittest import mock

import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import context, exception, objects
from nova.virt.libvirt import driver
from novatests.ours import base, test_defects

from vpmem_driver import ledger, model


class LeftoverTestCase(test_defects.DefectTestCase):
    def room(self, host, label="SMALL"):
        """total and reserved of the label's inventory in Placement, and how much of it is used."""
        provider = self.compute_rp_uuids[host.name]
        name = f"CUSTOM_PMEM_NAMESPACE_{label}"
        inventory = self._get_provider_inventory(provider)[name]
        return inventory["total"], inventory["reserved"], self._get_provider_usages(provider)[name]

    def fail_to_finish_a_resize(self, server, dest, *, pmem="SMALL"):
        with self.on(dest, "plug_vifs"):
            self.api.post_server_action(server["id"], {"resize": {"flavorRef": self.flavor(pmem, x="y")}})
            return self.wait_for_error(server)

    def heal(self, server):
        self.api.post_server_action(server["id"], {"reboot": {"type": "HARD"}})
        return self._wait_for_state_change(server, "ACTIVE")


class ElsewhereTest(LeftoverTestCase):
    def setUp(self):
        super().setUp()
        self.source = self.start_host(1, SMALL=2)
        self.dest = self.start_host(2, SMALL=2)
        self.server = self.boot("SMALL", self.source)
        self.written = self.write(self.server, self.source)
        (self.name,) = [path.name for path in self.written]

    def test_after_a_resize_that_failed_at_its_end_it_is_kept_and_shown_as_taken(self):
        self.fail_to_finish_a_resize(self.server, self.dest)
        for _ in range(2):
            self.run_periodic(self.source)
        self.assert_kept(self.written)
        self.assert_holds([self.name], self.source, self.server)
        self.assertEqual((2, 1, 0), self.room(self.source))
        self.boot("SMALL", self.source)
        self.boot("SMALL", self.source, expected_state="ERROR")
        self.assertEqual((2, 1, 1), self.room(self.source))

    def test_it_is_given_back_when_the_server_is_well_on_the_other_host(self):
        server = self.fail_to_finish_a_resize(self.server, self.dest)
        server = self.heal(server)
        mine = self.write(server, self.dest)
        self.run_periodic(self.source)
        self.assert_wiped(self.source, self.written)
        self.assertEqual((2, 0, 0), self.room(self.source))
        self.run_periodic(self.dest)
        self.assert_kept(mine)
        self.assertEqual(1, len(self.dest.holds(server)))
        for _ in range(2):
            self.boot("SMALL", self.source)

    def test_it_is_kept_while_a_guest_of_the_server_runs_here(self):
        server = self.heal(self.fail_to_finish_a_resize(self.server, self.dest))
        domain = self.computes[self.source.name].driver._host.get_connection().lookupByUUIDString(server["id"])
        domain.create()
        self.run_periodic(self.source)
        self.assert_kept(self.written)
        self.assertEqual((2, 1, 0), self.room(self.source))
        domain.destroy()
        self.run_periodic(self.source)
        self.assert_wiped(self.source, self.written)

    def test_it_is_kept_while_the_server_has_a_task(self):
        server = self.heal(self.fail_to_finish_a_resize(self.server, self.dest))
        instance = self.instance(server)
        instance.task_state = "rebooting"
        instance.save()
        self.run_periodic(self.source)
        self.assert_kept(self.written)
        self.assert_holds([self.name], self.source, server)

    def test_a_confirmation_that_fails_keeps_until_the_server_is_well(self):
        server = self._resize_server(self.server, self.flavor("SMALL", x="y"))
        self.run_periodic(self.source)
        self.assertEqual((2, 0, 1), self.room(self.source))
        with self.on(self.source, "_cleanup_resize"):
            self.api.post_server_action(server["id"], {"confirmResize": None})
            server = self.wait_for_error(server)
        self.run_periodic(self.source)
        self.assert_kept(self.written)
        self.assert_holds([self.name], self.source, server)
        self.assertEqual((2, 1, 0), self.room(self.source))
        self.heal(server)
        self.run_periodic(self.source)
        self.assert_wiped(self.source, self.written)
        self.assertEqual((2, 0, 0), self.room(self.source))

    def test_an_unconfirmed_resize_keeps_and_is_counted_once(self):
        server = self._resize_server(self.server, self.flavor("SMALL", x="y"))
        for host in (self.source, self.dest):
            self.run_periodic(host)
            self.assertEqual((2, 0, 1), self.room(host))
        self.assert_kept(self.written)
        self._revert_resize(server)
        self.assert_kept(self.written)
        self.assert_holds([self.name], self.source, server)

    def test_what_nova_does_not_know_is_shown_as_taken(self):
        """A plain domain of this host has claimed it at the command line."""
        owner = "0f5a1a2e-0c4f-4d2c-9d6a-6f0b7d5d9f11"
        records = ledger.Ledger(self.dest.state_path)
        self.addCleanup(records.close)
        with records.transaction():
            row = next(row for row in records.rows() if row.name == "small0")
            records.move(row, model.State.CLAIMED, "claimed", owner=owner, position=0)
        with self.on(self.dest, "_release_deleted", None):
            self.run_periodic(self.dest)
        self.assertEqual((2, 1, 0), self.room(self.dest))
        self.assertEqual(("claimed", owner), self.dest.states()["small0"])


class OffloadedTest(LeftoverTestCase):
    """A server is evacuated and shelved while its first host is down. Nova destroys its guest there without a release.

    Nova's fixtures put all hosts on one file system, so Nova takes the instance's storage for shared.
    """

    def setUp(self):
        super().setUp()
        self.flags(shelved_offload_time=0)
        self.flags(on_shelve="discard", group="vpmem")
        self.source = self.start_host(1, SMALL=2)
        self.dest = self.start_host(2, SMALL=2)
        self.server = self.boot("SMALL", self.source)
        self.written = self.write(self.server, self.source)
        (self.name,) = [path.name for path in self.written]
        self.take_down(self.source)
        server = self.evacuate(self.server, expected_host=self.dest.name)
        self._shelve_server(server, expected_state="SHELVED_OFFLOADED")

    def test_the_first_host_releases_what_a_server_had_that_is_shelved_now(self):
        self.restart_host(self.source)
        self.assert_holds([], self.source, self.server)
        self.assert_wiped(self.source, self.written)
        self.assertEqual((2, 0, 0), self.room(self.source))

    def test_it_keeps_while_a_guest_of_the_server_runs_there(self):
        with mock.patch.object(driver.LibvirtDriver, "destroy"):
            self.restart_host(self.source)
        self.assert_holds([self.name], self.source, self.server)
        self.assertEqual((2, 1, 0), self.room(self.source))
        connection = self.computes[self.source.name].driver._host.get_connection()
        connection.lookupByUUIDString(self.server["id"]).destroy()
        self.run_periodic(self.source)
        self.assert_wiped(self.source, self.written)

    def test_it_keeps_while_the_server_is_unshelved(self):
        instance = self.instance(self.server)
        instance.task_state = "unshelving"
        instance.save()
        self.restart_host(self.source)
        self.assert_kept(self.written)
        self.assert_holds([self.name], self.source, self.server)
        instance.task_state = None
        instance.save()
        self.run_periodic(self.source)
        self.assert_wiped(self.source, self.written)


class SameHostTest(LeftoverTestCase):
    def setUp(self):
        super().setUp()
        self.flags(allow_resize_to_same_host=True)
        self.host = self.start_host(1, SMALL=3)
        self.server = self.boot("SMALL", self.host)
        self.old = self.write(self.server, self.host)
        self.server = self.fail_to_finish_a_resize(self.server, self.host)
        (self.old_name,) = [path.name for path in self.old]

    def new_names(self):
        return [name for name in self.host.holds(self.server) if name != self.old_name]

    def test_a_rebuild_does_not_renew_what_the_record_does_not_name(self):
        self.assertEqual(1, len(self.new_names()))
        new = self.host.path(self.new_names()[0])
        new.write_bytes(b"x" * base.SIZE)
        server = self._rebuild_server(self.server, base.IMAGE)
        self.assertEqual([new], self.devices(server, self.host))
        self.assert_zero([new])
        self.assert_kept(self.old)
        self.assert_state(("claimed", server["id"]), self.host, self.old_name)

    def test_the_leftover_is_shown_as_taken_and_given_back_when_the_server_is_well(self):
        self.run_periodic(self.host)
        self.assertEqual((3, 1, 1), self.room(self.host))
        self.assert_kept(self.old)
        server = self.heal(self.server)
        mine = self.write(server, self.host)
        self.assertFalse(set(mine) & set(self.old))
        self.run_periodic(self.host)
        self.assert_wiped(self.host, self.old)
        self.assert_kept(mine)
        self.assertEqual((3, 0, 1), self.room(self.host))

    def test_what_its_guest_has_is_no_leftover_whatever_the_record_names(self):
        server = self.heal(self.server)
        mine = self.write(server, self.host)
        instance = self.instance(server)
        (resource,) = instance.resources
        other = resource.obj_clone()
        other.identifier = self.old_name
        instance.resources = objects.ResourceList(objects=[other])
        instance.save()
        self.assertEqual([self.old_name], [one.identifier for one in self.instance(server).resources])
        self.run_periodic(self.host)
        self.assert_kept(mine)
        self.assert_kept(self.old)


class SameHostConfirmationTest(LeftoverTestCase):
    def setUp(self):
        super().setUp()
        self.flags(allow_resize_to_same_host=True)
        self.host = self.start_host(1, SMALL=3)
        server = self.boot("SMALL", self.host)
        self.old = self.write(server, self.host)
        self.server = self._resize_server(server, self.flavor("SMALL", x="y"))
        self.new = self.write(self.server, self.host)

    def test_a_confirmation_without_a_record_of_what_the_guest_has_keeps_it(self):
        driver = self.computes[self.host.name].driver
        with mock.patch.object(driver, "_get_resources", side_effect=self._none):
            self._confirm_resize(self.server)
        self.assert_kept(self.new | self.old)
        self.assertEqual(2, len(self.host.holds(self.server)))
        self.run_periodic(self.host)
        self.assert_kept(self.new)
        self.assert_wiped(self.host, self.old)

    def test_a_confirmation_with_a_record_of_what_it_does_not_have_keeps_it(self):
        driver = self.computes[self.host.name].driver
        with mock.patch.object(driver, "_get_resources", side_effect=self._others):
            self._confirm_resize(self.server)
        self.assert_kept(self.new | self.old)
        self.assertEqual(2, len(self.host.holds(self.server)))

    def _none(self, instance, prefix=None):
        if prefix is None:
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        return []

    def _others(self, instance, prefix=None):
        (resource,) = instance.resources
        other = resource.obj_clone()
        other.identifier = "elsewhere"
        return [other]


class QuarantineTest(LeftoverTestCase):
    def test_what_is_on_record_and_quarantined_is_counted_once(self):
        host = self.start_host(1, SMALL=2)
        server = self.boot("SMALL", host)
        (path,) = self.devices(server, host)
        # As a wipe that finds bad media does it, during a rebuild for example.
        records = ledger.Ledger(host.state_path)
        self.addCleanup(records.close)
        with records.transaction():
            row = next(row for row in records.rows() if row.name == path.name)
            records.move(row, model.State.QUARANTINED, "its wipe failed", reason="input/output error")
        self.run_periodic(host)
        self.assertEqual((2, 0, 1), self.room(host))
        self.boot("SMALL", host)
        self.boot("SMALL", host, expected_state="ERROR")
        self._delete_server(server)
        self.run_periodic(host)
        self.assertEqual((2, 1, 1), self.room(host))

    def test_a_host_with_one_namespace_that_is_on_record_and_quarantined(self):
        host = self.start_host(1, SMALL=1)
        server = self.boot("SMALL", host)
        records = ledger.Ledger(host.state_path)
        self.addCleanup(records.close)
        with records.transaction():
            (row,) = records.rows()
            records.move(row, model.State.QUARANTINED, "its wipe failed", reason="input/output error")
        self.run_periodic(host)
        self.assertEqual((1, 0, 1), self.room(host))
        objects.Instance.get_by_uuid(context.get_admin_context(), server["id"])
