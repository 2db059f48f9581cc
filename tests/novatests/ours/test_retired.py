"""A retired host offers nothing to Nova until it is in service again."""

import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import context, exception, objects
from novatests.ours import test_leftovers

from vpmem_driver.model import State


class RetiredTest(test_leftovers.LeftoverTestCase):
    def setUp(self):
        super().setUp()
        self.host = self.start_host(1, SMALL=2, LARGE=1)

    def retire(self):
        pool = self.computes[self.host.name].driver._vpmem.pool
        pool.maintenance.retire()
        return pool

    def test_all_is_reserved_until_it_is_in_service_again(self):
        self.assertEqual((2, 0, 0), self.room(self.host))
        pool = self.retire()
        self.run_periodic(self.host)
        self.assertEqual((2, 2, 0), self.room(self.host))
        self.assertEqual((1, 1, 0), self.room(self.host, "LARGE"))
        self.boot("SMALL", self.host, expected_state="ERROR")
        pool.maintenance.return_to_service()
        self.run_periodic(self.host)
        self.assertEqual((2, 0, 0), self.room(self.host))
        self.assert_zero(self.devices(self.boot("SMALL", self.host), self.host))

    def test_a_server_that_was_scheduled_before_placement_knew_gets_nothing(self):
        self.retire()
        self.boot("SMALL", self.host, expected_state="ERROR")
        self.run_periodic(self.host)
        self.assertEqual((2, 2, 0), self.room(self.host))
        self.assertEqual({(State.CLEAN.value, None)}, set(self.host.states().values()))

    def test_it_stays_so_when_nova_compute_starts(self):
        self.retire()
        self.restart_host(self.host)
        self.assertEqual((2, 2, 0), self.room(self.host))

    def test_a_claim_on_it_is_one_for_another_host(self):
        self.retire()
        instance = objects.Instance(context.get_admin_context(), uuid="11111111-2222-3333-4444-555555555555")
        claim = self.computes[self.host.name].driver._vpmem.claim
        self.assertRaises(exception.ComputeResourcesUnavailable, claim, instance, ["small0"], rebuilding=False)
