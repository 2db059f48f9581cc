"""After a resize that failed, Nova's request spec has its flavor: no guest starts with the devices of that flavor."""

from unittest import mock

import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import exception
from novatests.ours import base, test_defects, test_moves

from vpmem_driver.nova import request_specs

TWO, ONE = "BIG,SMALL", "SMALL"


class RequestSpecTestCase(test_moves.MoveTestCase, test_defects.DefectTestCase):
    def setUp(self):
        super().setUp()
        self.flags(shelved_offload_time=0)
        self.flags(on_shelve="discard", group="vpmem")
        self.source = self.start_host(1, SMALL=1, BIG=1)
        self.server = self.boot(TWO, self.source)
        self.written = self.write(self.server, self.source)
        self.dest = self.start_host(2, SMALL=1, BIG=1)

    def requested(self):
        return self.request_spec(self.server).flavor.extra_specs["hw:pmem"]

    def assert_is_evacuated(self):
        self.run_periodic(self.dest)  # Nova frees what the destination has given to what failed before
        self.api.post_server_action(self.server["id"], {"evacuate": {"host": self.dest.name}})
        here = {"OS-EXT-SRV-ATTR:host": self.dest.name, "OS-EXT-STS:task_state": None, "status": "SHUTOFF"}
        self.server = self._wait_for_server_parameter(self.server, here, 40)
        self.assert_has_both(self.dest)

    def assert_has_both(self, host):
        devices = self.devices(self.server, host)
        self.assertEqual(["big0", "small0"], [path.name for path in devices])
        self.assert_zero(devices)
        self.assert_holds(["big0", "small0"], host, self.server)
        self.assertEqual(
            {"CUSTOM_PMEM_NAMESPACE_BIG": 1, "CUSTOM_PMEM_NAMESPACE_SMALL": 1}, self.usage(self.server, host)
        )


class RefusedResizeTest(RequestSpecTestCase):
    """The source refuses a resize to fewer devices, and corrects what Nova has saved of it."""

    def setUp(self):
        super().setUp()
        driver, flavor = self.computes[self.source.name].driver, self.flavor(ONE)
        migrate = driver.migrate_disk_and_power_off

        def migrate_later(*arguments, **keywords):
            self.wait_for(lambda: self.requested() == ONE, "the conductor's record of the resize")
            return migrate(*arguments, **keywords)

        with mock.patch.object(driver, "migrate_disk_and_power_off", migrate_later):
            self.resize(self.server, flavor)
            self.assert_stays(self.server, self.source, self.dest, self.written)
        self.assertEqual(TWO, self.requested())

    def test_unshelve(self):
        self._shelve_server(self.server, expected_state="SHELVED_OFFLOADED")
        self._unshelve_server(self.server)
        self.server = self.api.get_server(self.server["id"])
        self.assert_has_both(self.hosts[self.server["OS-EXT-SRV-ATTR:host"]])

    def test_evacuate(self):
        self.take_down(self.source)
        self.assert_is_evacuated()


class StaleTest(RequestSpecTestCase):
    """A resize has failed where this driver was not asked. The first attempt is refused, the next one succeeds."""

    def unshelve(self):
        self.api.post_server_action(self.server["id"], {"unshelve": {"host": self.dest.name}})

    def assert_unshelve_is_refused(self, *texts):
        self.unshelve()
        self._wait_for_action_fail_completion(self.server, "unshelve", "compute_unshelve_instance")
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "SHELVED_OFFLOADED"})
        for text in texts:
            self.assertIn(text, self.fault(self.server))
        if self.dest.pmem_namespaces:
            self.assert_holds([], self.dest, self.server)
        self.assertEqual({}, self._get_allocations_by_server_uuid(self.server["id"]))

    def shelve(self, flavor):
        self._shelve_server(self.server, expected_state="SHELVED_OFFLOADED")
        self.leave_in_request_spec(self.server, flavor)

    def test_unshelve_with_fewer(self):
        self.shelve(self.flavor(ONE))
        self.assert_unshelve_is_refused(
            "needs BIG,SMALL, and Nova has claimed SMALL, by the flavor of a resize that failed",
            "is corrected now. Try again",
        )
        self.assertEqual(TWO, self.requested())
        self.unshelve()
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"})
        self.assert_has_both(self.dest)

    def test_unshelve_with_more(self):
        """Of another label: the guest had none of that."""
        self.dest = self.start_host(3, SMALL=1, BIG=1, OTHER=1)
        self.shelve(self.flavor(f"{TWO},OTHER"))
        self.assert_unshelve_is_refused("OTHER")
        self.assertEqual(TWO, self.requested())

    def test_unshelve_on_a_host_without_memory(self):
        self.dest = self.start_host(3)
        self.shelve(self._create_flavor(vcpu=1, memory_mb=512, disk=1, ephemeral=0))
        self.assert_unshelve_is_refused("Nova has claimed no namespace")
        self.assertEqual(TWO, self.requested())

    def test_a_conductor_without_the_api_database(self):
        self.shelve(self.flavor(ONE))
        with mock.patch.object(request_specs, "objects") as compute:
            compute.RequestSpec.get_by_instance_uuid.side_effect = exception.NovaException("no connection")
            self.assert_unshelve_is_refused("Nova has claimed SMALL", "Correct its flavor in Nova's table")
        self.assertEqual(ONE, self.requested())

    def test_evacuate(self):
        self.leave_in_request_spec(self.server, self.flavor(ONE))
        self.take_down(self.source)
        self.api.post_server_action(self.server["id"], {"evacuate": {"host": self.dest.name}})
        self._wait_for_action_fail_completion(self.server, "evacuate", "compute_rebuild_instance")
        self.server = self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"})
        self.assertEqual(self.source.name, self.server["OS-EXT-SRV-ATTR:host"])
        self.assertIn("is corrected now. Try again", self.fault(self.server))
        self.assert_holds([], self.dest, self.server)
        self.assertEqual({}, self.usage(self.server, self.dest))
        self.assert_kept(self.written)
        self.assert_is_evacuated()

    def test_a_rebuild_in_place_keeps_what_it_has(self):
        self.leave_in_request_spec(self.server, self.flavor(ONE))
        self._rebuild_server(self.server, base.IMAGE)
        self.assert_has_both(self.source)
