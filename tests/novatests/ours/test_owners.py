"""What an instance holds is released when Nova says that it is deleted, and only then."""

import uuid

import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import context
from nova.db.main import api as db
from novatests.ours import test_defects


class OwnersTest(test_defects.DefectTestCase):
    def setUp(self):
        super().setUp()
        self.host = self.start_host(1, SMALL=2)

    def forget(self, server):
        """Nova's database no longer has the server: it was purged, or restored from an older backup."""
        db.instance_destroy(context.get_admin_context(read_deleted="yes"), server["id"], hard_delete=True)

    def connection(self):
        return self.computes[self.host.name].driver._host.get_connection()

    def errors_about(self, owner):
        log = self.stdlog.logger.output.splitlines()
        return [line for line in log if "ERROR" in line and f"vpmem release {owner}" in line]

    def test_an_owner_that_nova_does_not_know_keeps_its_memory(self):
        """A plain domain that was claimed for with nova.conf."""
        owner = str(uuid.uuid4())
        pool = self.computes[self.host.name].driver._vpmem._pool
        (grant,) = pool.claim(owner, ["SMALL"])
        path = self.host.path(grant.name)
        path.write_bytes(b"a" * path.stat().st_size)
        written = {path: path.read_bytes()}
        for _ in range(3):
            self.run_periodic(self.host)
        self.assert_state(("claimed", owner), self.host, grant.name)
        self.assertEqual(1, len(self.errors_about(owner)), "it is logged once while it stays so")
        self.restart_host(self.host)
        self.assert_state(("claimed", owner), self.host, grant.name)
        self.assert_kept(written)
        pool.release(owner)
        self.run_periodic(self.host)
        self.assert_wiped(self.host, written)

    def test_a_database_without_the_instance_does_not_cost_it_its_memory(self):
        server = self.boot("SMALL", self.host)
        written = self.write(server, self.host)
        self.connection().lookupByUUIDString(server["id"]).destroy()
        self.forget(server)
        self.run_periodic(self.host)
        self.restart_host(self.host)
        self.assert_holds([path.name for path in written], self.host, server)
        self.assert_kept(written)
        self.assertTrue(self.errors_about(server["id"]))

    def test_deleted_and_purged_while_the_host_was_down_is_kept_with_an_error(self):
        server = self.boot("SMALL", self.host)
        written = self.write(server, self.host)
        domain = self.connection().lookupByUUIDString(server["id"])
        self.take_down(self.host)
        self._delete_server(server)
        self.forget(server)
        domain.destroy()
        domain.undefine()
        self.bring_back(self.host)
        self.assert_holds([path.name for path in written], self.host, server)
        self.assert_kept(written)
        self.assertTrue(self.errors_about(server["id"]))

    def test_a_deleted_instance_whose_domain_is_defined_keeps_until_that_is_gone(self):
        server = self.boot("SMALL", self.host)
        written = self.write(server, self.host)
        connection = self.connection()
        self.take_down(self.host)
        self._delete_server(server)
        connection.lookupByUUIDString(server["id"]).destroy()
        self.bring_back(self.host)
        self.run_periodic(self.host)
        self.assert_kept(written)
        self.assert_holds([path.name for path in written], self.host, server)
        self.assertEqual([], self.errors_about(server["id"]))
        self.reap(self.host)
        self.assert_wiped(self.host, written)
