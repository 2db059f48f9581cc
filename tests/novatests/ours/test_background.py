"""Background wipes are independent of each other."""

import threading
import time

import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import test

from vpmem_driver import exception
from vpmem_driver.engine import Outcome, Result
from vpmem_driver.nova.background_wipe import BackgroundWipe

DEADLINE_SECONDS = 20.0


class Dirty:
    """Dirty namespaces. The wipe of "stuck" takes until `free` is set; that of "broken" raises."""

    def __init__(self, *names):
        self.names = list(names)
        self.free = threading.Event()
        self.tried = []

    def dirty(self):
        return list(self.names)

    def wipe_dirty(self, uuids, *, on_progress=None, stop=None):
        (uuid,) = uuids
        self.tried.append(uuid)
        if uuid == "broken":
            raise exception.LibvirtError(uri="x", reason="it does not answer", remedy="Restart it.")
        if uuid == "stuck":
            self.free.wait(DEADLINE_SECONDS)
        self.names.remove(uuid)
        return [Result(uuid=uuid, name=uuid, outcome=Outcome.WIPED)]


class BackgroundWipeTest(test.TestCase):
    def until(self, condition):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            self.assertLess(time.monotonic(), deadline, "it did not come")
            time.sleep(0.01)

    def test_one_that_takes_for_ever_does_not_stop_the_others(self):
        pool = Dirty("stuck", "ns0", "ns1")
        background = BackgroundWipe(pool, 2)
        background.start()
        self.until(lambda: pool.names == ["stuck"])
        pool.names.append("ns2")
        background.start()
        self.until(lambda: pool.names == ["stuck"])
        pool.free.set()
        self.until(lambda: pool.names == [])
        self.assertEqual(1, pool.tried.count("stuck"))

    def test_one_that_fails_is_tried_again_at_the_next_start_and_not_before(self):
        pool = Dirty("broken", "ns0", "ns1")
        background = BackgroundWipe(pool, 1)
        background.start()
        self.until(lambda: pool.names == ["broken"] and background._workers == 0)
        self.assertEqual(["broken", "ns0", "ns1"], pool.tried)
        background.start()
        self.until(lambda: pool.tried.count("broken") == 2)

    def test_a_stop_ends_it(self):
        pool = Dirty("ns0")
        background = BackgroundWipe(pool, 1)
        background.stop.set()
        background.start()
        self.until(lambda: background._workers == 0)
        self.assertEqual([], pool.tried)
