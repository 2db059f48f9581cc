"""A start of nova-compute on a host that is not as it is configured, or not as it was."""

import contextlib
import pathlib
import tempfile
import uuid

from novatests.ours import base

from vpmem_driver import discovery


class StartTest(base.VPMEMTestCase):
    def inventory(self, host, label):
        """What Placement has of the label on the host; None when it has no such class."""
        inventories = self._get_provider_inventory(self.compute_rp_uuids[host.name])
        return inventories.get(f"CUSTOM_PMEM_NAMESPACE_{label}")

    @contextlib.contextmanager
    def without(self, host, name):
        """The namespace is not on the host: its device is disabled, say."""
        host.path(name).rename(host.path(f".{name}"))
        try:
            yield
        finally:
            host.path(f".{name}").rename(host.path(name))

    def assert_said(self, *words):
        log = self.stdlog.logger.output
        said = [line for line in log.splitlines() if all(word in line for word in words)]
        self.assertTrue(said, f"no line has all of {words}")

    def test_a_ledger_that_does_not_last_is_warned_of(self):
        host = self.start_host(1, SMALL=1)
        host.state_path = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(dir="/dev/shm")), "state")
        self.restart_host(host)
        self.assert_said(f"The ledger in {host.state_path} is on tmpfs", "Set [vpmem] state_path")

    def test_what_is_configured_and_absent_is_left_out(self):
        host = self.start_host(1, SMALL=2)
        host.pmem_namespaces = ["SMALL:small0|small1|nowhere", "OTHER:never|there"]
        self.restart_host(host)
        self.assert_said("entry 'SMALL:small0|small1|nowhere'", "namespace 'nowhere' is not on this host", "Ignored")
        self.assertEqual(2, self.inventory(host, "SMALL")["total"])
        self.assertIsNone(self.inventory(host, "OTHER"))
        self.assert_zero(self.devices(self.boot("SMALL,SMALL", host), host))

    def test_what_is_configured_and_unusable_is_left_out(self):
        host = self.start_host(1, SMALL=1)
        host.path("odd").write_bytes(b"x" * 4097)
        host.pmem_namespaces = ["SMALL:small0|odd"]
        self.restart_host(host)
        self.assert_said("namespace 'odd' is unusable", "Ignored")
        self.assertEqual(1, self.inventory(host, "SMALL")["total"])

    def test_what_is_in_use_and_absent_keeps_its_owner(self):
        host = self.start_host(1, SMALL=2)
        server, other = self.boot("SMALL", host), self.boot("SMALL", host)
        written = self.write(server, host)
        self._stop_server(server)
        self._delete_server(other)
        (used,) = written
        with self.without(host, used.name):
            self.restart_host(host)
            self.assert_said(f"Namespace {used.name}", f"claimed for {server['id']}")
            self.assertEqual((2, 0), tuple(self.inventory(host, "SMALL")[name] for name in ("total", "reserved")))
            self.boot("SMALL", host)
            self.api.post_server_action(server["id"], {"os-start": None})
            self._wait_for_action_fail_completion(server, "start", "compute_start_instance")
        self.assert_holds([used.name], host, server)
        self.restart_host(host)
        self.api.post_server_action(server["id"], {"reboot": {"type": "HARD"}})
        self._wait_for_state_change(server, "ACTIVE")
        self.assertEqual([used], self.devices(server, host))
        self.assert_kept(written)

    def test_what_is_free_and_absent_is_reserved_and_comes_back(self):
        host = self.start_host(1, SMALL=2)
        with self.without(host, "small0"):
            self.restart_host(host)
            self.assertEqual((2, 1), tuple(self.inventory(host, "SMALL")[name] for name in ("total", "reserved")))
        self.restart_host(host)
        self.assertEqual((2, 0), tuple(self.inventory(host, "SMALL")[name] for name in ("total", "reserved")))

    def test_nothing_of_what_is_in_use_is_there(self):
        host = self.start_host(1, SMALL=1)
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        with self.without(host, "small0"):
            error = self.assert_does_not_start(host)
            self.assertIn(f"{server['id']} holds small0", str(error))
            self.assertIn("Bring the devices or the directory back", str(error))
        self.restart_host(host)
        self.assert_kept(written)

    def test_a_label_that_is_configured_no_more_stays_while_it_is_in_use(self):
        host = self.start_host(1, SMALL=1, LARGE=1)
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        host.pmem_namespaces = ["LARGE:large0"]
        self.restart_host(host)
        self.assert_said("small0 keeps label SMALL until", server["id"])
        self.assertEqual(1, self.inventory(host, "SMALL")["total"])
        self._reboot_server(server, hard=True)
        self.assert_kept(written)
        self._delete_server(server)
        self.assert_wiped(host, written)
        self._run_periodics()
        self.assertEqual((1, 1), tuple(self.inventory(host, "SMALL")[name] for name in ("total", "reserved")))
        self.restart_host(host)
        self.assertIsNone(self.inventory(host, "SMALL"))

    def test_a_namespace_moves_to_another_label_when_it_is_free(self):
        host = self.start_host(1, SMALL=2)
        server = self.boot("SMALL", host)
        (used,) = self.write(server, host)
        host.pmem_namespaces = ["LARGE:small0|small1"]
        self.restart_host(host)
        self.assertEqual(1, self.inventory(host, "SMALL")["total"])
        self.assertEqual(1, self.inventory(host, "LARGE")["total"])
        other = self.boot("LARGE", host)
        self.assertNotIn(used, self.devices(other, host))
        self._delete_server(server)
        self._run_periodics()
        self.assertEqual(2, self.inventory(host, "LARGE")["total"])

    def test_two_namespaces_of_one_name_are_told_by_uuid(self):
        host = self.start_host(1, SMALL=["here"])
        for node in ("node0", "node1"):
            (host.directory / node).mkdir()
            host.make(f"{node}/twin")
        found = discovery.make("directory", directory=str(host.directory)).namespaces()
        twins = [namespace.uuid for namespace in found if namespace.name == "twin"]
        host.pmem_namespaces = [f"SMALL:{'|'.join(twins)}"]
        self.restart_host(host)
        servers = [self.boot("SMALL", host), self.boot("SMALL", host)]
        written = self.write(servers[0], host) | self.write(servers[1], host)
        self.assertEqual(2, len(written))
        self._reboot_server(servers[0], hard=True)
        self.assert_kept(written)
        used = self.devices(servers[1], host)
        self._delete_server(servers[1])
        records = self.instance(servers[0]).resources
        self.assertIn(uuid.UUID(records[0].identifier), [uuid.UUID(twin) for twin in twins])
        self.wait_for(lambda: not any(used[0].read_bytes()), f"{used[0]} zero")
        self.assert_kept({path: pattern for path, pattern in written.items() if path not in used})
