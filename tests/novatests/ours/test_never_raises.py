"""Where Nova must not fail because of persistent memory: any error is logged, and the ledger keeps what it has."""

import contextlib
from unittest import mock

from nova import context
from novatests.ours import test_defects


class NeverRaisesTest(test_defects.DefectTestCase):
    def setUp(self):
        super().setUp()
        self.host = self.start_host(1, SMALL=2)
        self.server = self.boot("SMALL", self.host)
        self.written = self.write(self.server, self.host)
        self.names = [path.name for path in self.written]
        self.driver = self.computes[self.host.name].driver
        self.pool = self.driver._vpmem._pool

    @contextlib.contextmanager
    def failing(self, *methods):
        """Methods of the pool raise what nothing expects."""
        with contextlib.ExitStack() as stack:
            for method in methods:
                stack.enter_context(mock.patch.object(self.pool, method, side_effect=KeyError("unheard of")))
            yield

    def assert_logged(self, *words):
        lines = self.stdlog.logger.output.splitlines()
        self.assertTrue([line for line in lines if all(word in line for word in words)], f"no line has all of {words}")

    def test_a_delete_whose_release_fails(self):
        with self.failing("release"):
            self._delete_server(self.server)
            self.assert_kept(self.written)
            self.assert_holds(self.names, self.host, self.server)
            self.run_periodic(self.host)
        self.assert_logged(self.server["id"], "is not released")
        self.run_periodic(self.host)
        self.assert_wiped(self.host, self.written)

    def test_a_delete_while_the_ledger_fails(self):
        with self.failing("held"):
            self._delete_server(self.server)
        self.run_periodic(self.host)
        self.assert_wiped(self.host, self.written)

    def test_a_delete_does_not_need_the_names_that_nova_has_on_record(self):
        with mock.patch.object(self.driver, "_vpmem_names", side_effect=KeyError("unheard of")):
            self._delete_server(self.server)
        self.assert_wiped(self.host, self.written)

    def test_a_hard_reboot_while_the_ledger_fails(self):
        instance = self.instance(self.server)
        with self.failing("held", "release", "renew"), self.driver._rebooting(instance):
            self.driver.cleanup(context.get_admin_context(), instance, [], destroy_disks=False)
        self.assert_kept(self.written)

    def test_what_fails_in_a_start_is_told_whatever_fails_after_it(self):
        instance = self.instance(self.server)

        def start():
            with self.driver._releasing_on_failure(instance):
                self.pool.held.side_effect = KeyError("unheard of")
                raise ValueError("why it failed")

        with mock.patch.object(self.pool, "held", return_value=[]):
            self.assertRaises(ValueError, start)

    def test_the_periodic_task_while_leftovers_cannot_be_settled(self):
        for method in ("not_free", "reserve"):
            with mock.patch.object(self.driver._vpmem, method, side_effect=KeyError("unheard of")):
                self.run_periodic(self.host)
        self.assert_holds(self.names, self.host, self.server)

    def test_a_confirmation_whose_release_fails(self):
        dest = self.start_host(2, SMALL=1)
        server = self._resize_server(self.server, self.flavor("SMALL", x="y"))
        self.assertEqual(dest.name, server["OS-EXT-SRV-ATTR:host"])
        with self.failing("release"):
            self._confirm_resize(server)
            self.run_periodic(self.host)
        self.assert_kept(self.written)
        self.assert_holds(self.names, self.host, server)
        self.run_periodic(self.host)
        self.assert_wiped(self.host, self.written)
