"""A process that waits for the ledger under eventlet: everything else in it runs on."""

import tempfile
import threading
import time
import unittest

import nova.tests.functional  # noqa: F401  it patches, and has to be the first of Nova

from vpmem_driver import ledger

#: Far below the time after which the waiting one gives up.
LIMIT_SECONDS = 20


class LedgerWaitingTest(unittest.TestCase):
    def test_the_thread_that_holds_the_ledger_runs_while_another_waits_for_it(self):
        with tempfile.TemporaryDirectory() as root:
            held, waiting = ledger.Ledger(root), ledger.Ledger(root)
            self.addCleanup(held.close)
            self.addCleanup(waiting.close)
            begun = threading.Event()

            def write():
                with waiting.transaction():
                    begun.set()

            with held.transaction():
                thread = threading.Thread(target=write)
                start = time.monotonic()
                thread.start()
                for _ in range(20):
                    time.sleep(0.01)
                self.assertFalse(begun.is_set())
            thread.join()
            self.assertTrue(begun.is_set())
            self.assertLess(time.monotonic() - start, LIMIT_SECONDS)
