"""From the in-tree driver to this one on a host with running guests, and back."""

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

    def start_intree(self):
        host = base.Host(self.root, 1, {"SMALL": 3})
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
