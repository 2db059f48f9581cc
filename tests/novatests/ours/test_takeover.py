"""From the in-tree driver to this one on a host with running guests, and back."""

import os

from nova.conf import CONF
from novatests.ours import base

INTREE = "libvirt.LibvirtDriver"


class TakeOverTest(base.VPMEMTestCase):
    def restart_with(self, host, driver):
        """Restart nova-compute with that driver in nova.conf."""
        self.configure(host)
        CONF.set_override("compute_driver", driver)  # flags() is what the harness turns to our driver
        self.restart_compute_service(host.name)

    def start_intree(self):
        host = base.Host(self.root, 1, {"SMALL": 3})
        self.hosts[host.name] = host
        self.configure(host)
        original = os.environ.get("VPMEM_COMPUTE_DRIVER")
        os.environ["VPMEM_COMPUTE_DRIVER"] = INTREE
        try:
            self.start_compute(hostname=host.name)
        finally:
            del os.environ["VPMEM_COMPUTE_DRIVER"]
            if original is not None:
                os.environ["VPMEM_COMPUTE_DRIVER"] = original
        return host

    def test_what_guests_hold_is_adopted_as_it_is_and_the_rest_is_unknown(self):
        host = self.start_intree()
        running, stopped = self.boot("SMALL", host), self.boot("SMALL", host)
        written = self.write(running, host) | self.write(stopped, host)
        self._stop_server(stopped)
        self.restart_with(host, "vpmem.VPMEMLibvirtDriver")
        self.assert_kept(written)
        self.assertEqual(1, len(host.holds(running)))
        self.assertEqual(1, len(host.holds(stopped)))
        self.assertEqual(["unknown"], [state for state, owner in host.states().values() if owner is None])
        self._start_server(stopped)
        self.assert_kept(written)
        third = self.boot("SMALL", host)
        self.assert_zero(self.devices(third, host))
        self.assert_kept(written)

    def test_back_to_the_in_tree_driver_without_a_change_in_the_database(self):
        host = self.start_host(1, SMALL=2)
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        before = self.instance(server).resources.obj_to_primitive()
        self.restart_with(host, INTREE)
        self.assertEqual(before, self.instance(server).resources.obj_to_primitive())
        self.assert_kept(written)
        driver = self.computes[host.name].driver
        self.assertNotIn("vpmem", type(driver).__module__)
        self._delete_server(server)
        self.assert_zero(written)
