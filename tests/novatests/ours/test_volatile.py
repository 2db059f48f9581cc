"""Servers whose memory loses its content when the host restarts."""

import contextlib
import sqlite3
import uuid

import fixtures
import msgspec
from novatests.ours import base

from vpmem_driver import ledger
from vpmem_driver.discovery import directory


class VolatileTest(base.VPMEMTestCase):
    def setUp(self):
        super().setUp()
        listed = directory.DirectoryDiscovery.namespaces

        def namespaces(discovery):
            return tuple(msgspec.structs.replace(found, volatile=True) for found in listed(discovery))

        self.useFixture(
            fixtures.MonkeyPatch("vpmem_driver.discovery.directory.DirectoryDiscovery.namespaces", namespaces)
        )

    def restart_machine(self, host):
        """The host loses power with all its guests, and starts nova-compute again."""
        with contextlib.closing(sqlite3.connect(host.state_path / ledger.FILE_NAME)) as database, database:
            database.execute("UPDATE namespace SET boot = ?", (str(uuid.uuid4()),))
        self.restart_host(host)

    def test_a_stopped_server_keeps_its_bytes_while_the_host_runs(self):
        host = self.start_host(1, VOLATILE=1)
        server = self.boot("VOLATILE", host)
        written = self.write(server, host)
        self._stop_server(server)
        self.restart_host(host)
        self._start_server(server)
        self.assert_kept(written)

    def test_after_a_restart_of_the_host_a_server_starts_with_zeros_in_its_own_namespace(self):
        host = self.start_host(1, VOLATILE=2)
        server = self.boot("VOLATILE", host)
        paths = list(self.write(server, host))
        self._stop_server(server)
        self.restart_machine(host)
        self.assert_holds([paths[0].name], host, server)
        self._start_server(server)
        self.assertEqual(paths, self.devices(server, host))
        self.assert_zero(paths)
        self.assert_state(("claimed", server["id"]), host, paths[0].name)
        other = self.boot("VOLATILE", host)
        self.assertNotEqual(paths, self.devices(other, host))

    def test_a_label_that_does_not_say_that_it_is_volatile_is_left_out(self):
        host = self.start_host(1, SMALL=1)
        self.boot("SMALL", host, expected_state="ERROR")
        self.assertIn("only a label whose name begins with VOLATILE may have it", self.stdlog.logger.output)
