"""From the in-tree driver to this one on a host with running guests, and back."""

from unittest import mock

import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import exception
from nova.conf import CONF
from novatests.ours import base

INTREE = "libvirt.LibvirtDriver"
OURS = "vpmem.VPMEMLibvirtDriver"


class TakeOverTest(base.VPMEMTestCase):
    def use(self, driver):
        """Have the next nova-compute that starts load that driver."""
        CONF.set_override("compute_driver", driver)  # flags() is what the harness turns to our driver

    def assert_driver(self, driver, host):
        made = type(self.computes[host.name].driver)
        self.assertEqual(driver.rpartition(".")[2], made.__name__)

    def restart_with(self, host, driver):
        """Restart nova-compute with that driver in nova.conf."""
        self.configure(host)
        self.use(driver)
        self.restart_compute_service(host.name)
        self.assert_driver(driver, host)

    def start_intree(self, index=1):
        host = base.Host(self.root, index, {"SMALL": 3})
        self.hosts[host.name] = host
        self.configure(host)
        self.use(INTREE)
        self.start_compute(hostname=host.name)
        self.assert_driver(INTREE, host)
        return host

    def test_what_guests_hold_is_adopted_as_it_is_and_the_rest_is_unknown(self):
        host = self.start_intree()
        running, stopped = self.boot("SMALL", host), self.boot("SMALL", host)
        written = self.write(running, host) | self.write(stopped, host)
        self._stop_server(stopped)
        self.restart_with(host, OURS)
        self.assert_kept(written)
        self.assertEqual(1, len(host.holds(running)))
        self.assertEqual(1, len(host.holds(stopped)))
        self.assertEqual(["unknown"], [state for state, owner in host.states().values() if owner is None])
        self._start_server(stopped)
        self.assert_kept(written)
        third = self.boot("SMALL", host)
        self.assert_zero(self.devices(third, host))
        self.assert_kept(written)

    def test_what_is_on_record_and_absent_stops_the_start(self):
        host = self.start_intree()
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        (used,) = written
        used.rename(host.path(f".{used.name}"))
        error = self.assert_does_not_start(host, lambda host: self.restart_with(host, OURS))
        for words in (server["id"], used.name, "vpmem namespace list --all", "does not start"):
            self.assertIn(words, str(error))
        host.path(f".{used.name}").rename(used)
        self.restart_with(host, OURS)
        self.assert_holds([used.name], host, server)
        self.assert_kept(written)

    def test_what_is_in_use_under_a_label_that_goes_keeps_it(self):
        host = self.start_intree()
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        (used,) = written
        others = sorted({"small0", "small1", "small2"} - {used.name})
        host.pmem_namespaces = [f"OTHER:{'|'.join(others)}"]
        self.restart_with(host, OURS)
        self.assertEqual({"CUSTOM_PMEM_NAMESPACE_SMALL": 1}, self.usage(server, host))
        self._reboot_server(server, hard=True)
        self.assert_kept(written)
        self.assertEqual(others[:1], [path.name for path in self.devices(self.boot("OTHER", host), host)])

    def test_back_to_the_in_tree_driver_without_a_change_in_the_database(self):
        host = self.start_host(1, SMALL=2)
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        before = self.instance(server).resources.obj_to_primitive()
        self.restart_with(host, INTREE)
        self.assertEqual(before, self.instance(server).resources.obj_to_primitive())
        self.assert_kept(written)
        self._delete_server(server)
        self.assert_zero(written)

    def test_back_again_with_the_ledger_of_before_stops_the_start_where_a_guest_would_lose_its_memory(self):
        host = self.start_host(1, SMALL=1)
        first = self.boot("SMALL", host)
        self.restart_with(host, INTREE)
        self._delete_server(first)
        second = self.boot("SMALL", host)
        written = self.write(second, host)
        self._stop_server(second)
        error = self.assert_does_not_start(host, lambda host: self.restart_with(host, OURS))
        for words in (second["id"], first["id"], "small0", "move the ledger away"):
            self.assertIn(words, str(error))
        self.assert_kept(written)
        host.forget()
        self.restart_with(host, OURS)
        self.assert_holds(["small0"], host, second)
        self._start_server(second)
        self.assert_kept(written)

    def test_a_resize_that_waits_for_its_confirmation_keeps_what_it_has_on_both_hosts(self):
        source, dest = self.start_intree(1), self.start_intree(2)
        server = self.boot("SMALL", source)
        old = self.write(server, source)
        server = self._resize_server(server, self.flavor("SMALL", x="y"))
        new = self.write(server, dest)
        self.restart_with(source, OURS)
        self.restart_with(dest, OURS)
        self.assert_holds([path.name for path in old], source, server)
        self.assert_holds([path.name for path in new], dest, server)
        self._revert_resize(server)
        self.assertEqual(list(old), self.devices(server, source))
        self.assert_kept(old)
        self.assert_wiped(dest, new)

    def test_a_record_of_a_failed_resize_is_not_adopted_where_there_has_been_no_guest(self):
        source, dest = self.start_intree(1), self.start_intree(2)
        server = self.boot("SMALL", source)
        old = self.write(server, source)
        driver = self.computes[dest.name].driver
        with mock.patch.object(driver, "finish_migration", side_effect=exception.NovaException("not now")):
            self.api.post_server_action(server["id"], {"resize": {"flavorRef": self.flavor("SMALL", x="y")}})
            self.wait_for_error(server)
        for path in dest.directory.iterdir():
            path.write_bytes(b"x" * base.SIZE)
        self.restart_with(dest, OURS)
        self.assert_holds([], dest, server)
        self._reboot_server(server, hard=True)
        self.assert_zero(self.devices(server, dest))
        self.assert_kept(old)
