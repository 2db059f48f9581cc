"""What Nova and Placement record, beside the ledger: vpmem reconcile --nova."""

import os
import pathlib
import subprocess
import sys
import uuid
from unittest import mock

import fixtures
import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from keystoneauth1 import exceptions as keystone
from nova import test
from novatests.ours import test_defects

from vpmem_driver import conf, ledger
from vpmem_driver.checkup import agreement
from vpmem_driver.model import State
from vpmem_driver.nova import records
from vpmem_driver.pool import comparison, snapshot


class ReconcileTest(test_defects.DefectTestCase):
    def setUp(self):
        super().setUp()
        self.host = self.start_host(1, SMALL=2, LARGE=1)
        self.server = self.boot("SMALL", self.host)
        (self.name,) = self.host.holds(self.server)
        self.pool = self.computes[self.host.name].driver._vpmem.pool

    def found(self):
        """The findings, as (check, level, message, remedy, action), on a host whose domains are gone."""
        now = snapshot.read(conf.read([str(self.host.config_file())]))
        compared = comparison.Comparison(
            tuple(comparison.Compared(record, now.rows.get(record.uuid), (), None) for record in now.records),
            strangers=(),
            libvirt="test:///default",
        )
        wrong = agreement.with_nova(agreement.check(compared), compared, records.read(self.host.name))
        return [(each.finding.id, each.finding.check, each.finding.message, each.finding.remedy) for each in wrong]

    def test_what_nova_and_placement_record(self):
        read = records.read(self.host.name)
        (instance,) = read.instances
        self.assertEqual((self.server["id"], (self.name,), True), (instance.uuid, instance.namespaces, True))
        self.assertEqual(self.server["name"], instance.name)
        self.assertEqual({self.server["id"]: {"CUSTOM_PMEM_NAMESPACE_SMALL": 1}}, read.allocations)

    def test_an_owner_that_nova_has_is_not_to_be_released(self):
        (no_domain,) = self.found()
        self.assertEqual("VPMEM-N09", no_domain[0])
        self.assertIn("do not release it", no_domain[3])

    def test_an_owner_that_neither_knows(self):
        owner = str(uuid.uuid4())
        self.pool.claim(owner, ["LARGE"])
        unknown = [each for each in self.found() if owner in each[2]]
        self.assertEqual(["VPMEM-N09", "VPMEM-N14"], [each[0] for each in unknown])
        self.assertIn("--force", unknown[0][3])
        self.assertIn("neither Nova nor Placement has", unknown[1][2])

    def test_the_ledger_has_lost_an_instance(self):
        self.pool.release(self.server["id"])
        found = self.found()
        self.assertEqual(
            [("VPMEM-N14", f"namespace {self.name}"), ("VPMEM-N14", f"instance {self.server['id']}")],
            [each[:2] for each in found],
        )
        self.assertIn("it is unowned", found[0][2])
        self.assertIn("allocated 1 CUSTOM_PMEM_NAMESPACE_SMALL for it; the ledger has nothing", found[1][2])

    def test_another_owner_has_it(self):
        other = str(uuid.uuid4())
        self.pool.release(self.server["id"])
        records_of_host = ledger.Ledger(self.host.state_path)
        self.addCleanup(records_of_host.close)
        with records_of_host.transaction():
            (row,) = [row for row in records_of_host.rows() if row.name == self.name]
            records_of_host.move(row, State.CLAIMED, "test", owner=other, position=0)
        self.assertTrue(any(f"it is owned by {other}" in each[2] for each in self.found()))

    def test_a_server_that_moves_is_not_compared(self):
        dest = self.start_host(2, SMALL=1, LARGE=1)
        seen = []
        driver = self.computes[self.host.name].driver
        migrate = driver.migrate_disk_and_power_off

        def look(*args, **kwargs):
            seen.extend((records.read(self.host.name), records.read(dest.name)))
            return migrate(*args, **kwargs)

        with mock.patch.object(driver, "migrate_disk_and_power_off", side_effect=look):
            self.api.post_server_action(self.server["id"], {"migrate": {}})
            self._wait_for_state_change(self.server, "VERIFY_RESIZE")
        for read in seen:
            (instance,) = read.instances
            self.assertEqual((self.server["id"], False), (instance.uuid, instance.is_settled))
            self.assertTrue(read.knows(self.server["id"]))

    def test_placement_that_does_not_answer(self):
        with mock.patch(
            "nova.scheduler.client.report.SchedulerReportClient.get", side_effect=keystone.ConnectFailure("no route")
        ):
            self.assertRaises(keystone.ConnectFailure, records.read, self.host.name)


class RecordsProgramTest(test.NoDBTestCase):
    def run_program(self, text):
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path, "nova.conf")
        path.write_text(text)
        return subprocess.run(
            [sys.executable, "-m", "vpmem_driver.nova.records", "--config-file", path],
            check=False,
            capture_output=True,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("OS_")},
        )

    def test_a_conductor_that_does_not_answer(self):
        done = self.run_program("[DEFAULT]\ntransport_url = fake:///\nrpc_response_timeout = 1\n")
        self.assertEqual((5, ""), (done.returncode, done.stdout))
        self.assertIn("MessagingTimeout", done.stderr.splitlines()[-1])

    def test_a_configuration_that_cannot_be_read(self):
        done = self.run_program("[DEFAULT\n")
        self.assertEqual((5, ""), (done.returncode, done.stdout))
        self.assertIn("nova.conf", done.stderr.splitlines()[-1])
