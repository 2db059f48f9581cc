"""The periodic task removes old lines of the history."""

import contextlib
import sqlite3

from novatests.ours import test_defects

from vpmem_driver import ledger


class HistoryTest(test_defects.DefectTestCase):
    def lines(self, host):
        with contextlib.closing(sqlite3.connect(host.state_path / ledger.FILE_NAME)) as database:
            return database.execute("SELECT name, to_state FROM history ORDER BY id").fetchall()

    def test_the_periodic_task_removes_what_is_old_and_explains_nothing(self):
        host = self.start_host(1, SMALL=1)
        for _ in range(2):
            server = self.boot("SMALL", host)
            paths = self.devices(server, host)
            self._delete_server(server)
            self.assert_wiped(host, paths)
        before = self.lines(host)
        self.run_periodic(host)
        self.assertEqual(before, self.lines(host))
        with contextlib.closing(sqlite3.connect(host.state_path / ledger.FILE_NAME)) as database, database:
            database.execute("UPDATE history SET at = '2001-01-01T00:00:00.000+00:00'")
        self.flags(history_days=0, group="vpmem")
        self.run_periodic(host)
        self.assertEqual(before, self.lines(host))
        self.flags(history_days=400, group="vpmem")
        self.run_periodic(host)
        self.assertEqual([("small0", "claimed"), ("small0", "dirty"), ("small0", "clean")], self.lines(host))
