"""What is on offer on a host: all that is free there as soon as it is free, and nothing that is under way."""

from unittest import mock

import fixtures
from nova import context
from novatests.ours import base, test_defects


class PickTestCase(test_defects.DefectTestCase):
    """The resource tracker picks a namespace some time before the ledger has it."""

    def in_the_build_window(self, function):
        """Have `function` called once, when the tracker has picked for a guest and the ledger has nothing for it."""
        called = []

        def image(*args, **kwargs):
            if not called:
                called.append(None)
                called[0] = function()
            return self._image(*args, **kwargs)

        base.libvirt_driver.LibvirtDriver._create_image.side_effect = image
        return called

    def periodic_and_boot(self):
        for _ in range(2):
            self.run_periodic(self.dest)
        return self.boot("SMALL", self.dest)


class PickTest(PickTestCase):
    def setUp(self):
        super().setUp()
        self.source = self.start_host(1, SMALL=1)
        self.dest = self.start_host(2, SMALL=2)

    def test_a_resize_that_fails_at_the_source_gives_back_the_pick_of_the_destination(self):
        blocker = self.boot("SMALL", self.dest)
        server = self.boot("SMALL", self.source)
        written = self.write(server, self.source)
        with self.on(self.source, "migrate_disk_and_power_off"):
            self.api.post_server_action(server["id"], {"resize": {"flavorRef": self.flavor("SMALL", x="y")}})
            self.wait_for_error(server)
        self.run_periodic(self.dest)
        other = self.boot("SMALL", self.dest)
        self.assertFalse(set(self.devices(other, self.dest)) & set(self.devices(blocker, self.dest)))
        self.assert_kept(written)

    def test_what_is_picked_for_a_resize_is_not_given_to_another_while_the_source_is_at_work(self):
        server = self.boot("SMALL", self.source)
        driver = self.computes[self.source.name].driver
        migrate, others = driver.migrate_disk_and_power_off, []

        def slow(*args, **kwargs):
            others.append(self.periodic_and_boot())
            return migrate(*args, **kwargs)

        with mock.patch.object(driver, "migrate_disk_and_power_off", side_effect=slow):
            self.api.post_server_action(server["id"], {"resize": {"flavorRef": self.flavor("SMALL", x="y")}})
            server = self._wait_for_state_change(server, "VERIFY_RESIZE")
        self.assertFalse(set(self.devices(server, self.dest)) & set(self.devices(others[0], self.dest)))

    def test_what_is_picked_for_a_build_is_not_given_to_another(self):
        others = self.in_the_build_window(self.periodic_and_boot)
        server = self.boot("SMALL", self.dest)
        self.assertFalse(set(self.devices(server, self.dest)) & set(self.devices(others[0], self.dest)))

    def test_a_build_that_fails_before_its_claim_in_the_ledger_gives_back_its_pick_at_once(self):
        self.boot("SMALL", self.dest)
        driver = self.computes[self.dest.name].driver
        with mock.patch.object(driver, "spawn", side_effect=test_defects._fail):
            self.boot("SMALL", self.dest, expected_state="ERROR")
        self.assertEqual(1, len(self.devices(self.boot("SMALL", self.dest), self.dest)))

    def test_the_same_when_the_tracker_has_forgotten_it_meanwhile(self):
        self.boot("SMALL", self.dest)
        driver = self.computes[self.dest.name].driver

        def fail(*_args, **_kwargs):
            self.run_periodic(self.dest)
            test_defects._fail()

        with mock.patch.object(driver, "spawn", side_effect=fail):
            self.boot("SMALL", self.dest, expected_state="ERROR")
        self.assertEqual(1, len(self.devices(self.boot("SMALL", self.dest), self.dest)))


class UnshelveTest(PickTestCase):
    """Nova records what is picked for an unshelving when the guest is up; until then it has the old record."""

    def setUp(self):
        super().setUp()
        self.flags(shelved_offload_time=0)
        self.flags(on_shelve="discard", group="vpmem")
        self.source = self.start_host(1, SMALL=2)
        self.dest = self.start_host(2, SMALL=3)
        self.evacuated = [self.boot("SMALL", self.source) for _ in range(2)][1]
        self.server = self.boot("SMALL", self.dest)
        first = self.devices(self.server, self.dest)
        self._shelve_server(self.server, expected_state="SHELVED_OFFLOADED")
        self.assert_wiped(self.dest, first)
        self.assertEqual(first, self.devices(self.boot("SMALL", self.dest), self.dest))

    def assert_apart(self, others):
        mine = self.devices(self.server, self.dest)
        self.assertEqual(["small1"], [path.name for path in mine])
        self.assertFalse(set(mine) & set(self.devices(others[0], self.dest)))

    def test_what_is_picked_is_not_given_to_another(self):
        others = self.in_the_build_window(self.periodic_and_boot)
        self._unshelve_server(self.server)
        self.assert_apart(others)

    def test_the_clean_up_of_another_host_s_names_does_not_give_back_a_pick(self):
        """A record may name another host's namespaces, which have the same names as those here."""
        self.assertEqual(["small1"], self.source.holds(self.evacuated))

        def clean_up():
            driver = self.computes[self.dest.name].driver
            driver.cleanup(context.get_admin_context(), self.instance(self.evacuated), [], destroy_disks=False)
            return self.periodic_and_boot()

        others = self.in_the_build_window(clean_up)
        self._unshelve_server(self.server)
        self.assert_apart(others)


class RollbackTest(test_defects.DefectTestCase):
    def test_what_a_live_migration_rolled_back_gives_back_is_on_offer_at_once(self):
        """Nova drops its claim on the destination before the guest is cleaned up there."""

        def refuse(domain, destination, params, flags):
            domain.fail_job()

        self.useFixture(fixtures.MonkeyPatch("nova.tests.fixtures.libvirt.Domain.migrateToURI3", refuse))
        source, dest = self.start_host(1, SMALL=1), self.start_host(2, SMALL=1)
        server = self.boot("SMALL", source)
        written = self.write(server, source)
        self._live_migrate(server, migration_expected_state="failed")
        self.wait_for(lambda: not dest.holds(server), "given back at the destination")
        other = self.boot("SMALL", dest)
        self.assertEqual(["small0"], dest.holds(other))
        self.assert_kept(written)
