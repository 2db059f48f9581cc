"""Wiping behind Nova's back: what was released is wiped by a thread of nova-compute's own executor, one at a time."""

import logging
import threading

from vpmem_driver import exception, wiping
from vpmem_driver.pool import Pool

try:
    from nova.thread_pool_factory import spawn  # Nova 34
except ImportError:
    from nova.utils import spawn  # Nova 31 to 33

LOG = logging.getLogger(__name__)


class BackgroundWipe:
    """At most one run at a time; what is released during a run is wiped by another one after it.

    What one leaves dirty is wiped by the next: there is one after each release, and with each periodic task of Nova's.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._running = False
        self._again = False
        self.stop = threading.Event()

    def start(self) -> None:
        """Wipe all that is dirty, soon. Returns at once."""
        with self._lock:
            self._again = True
            if self._running:
                return
            self._running = True
        spawn(self._run)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._again or self.stop.is_set():
                    self._running = False
                    return
                self._again = False
            try:
                for result in self._pool.wipe(on_progress=wiping.ProgressLog(), stop=self.stop):
                    if result.reason:
                        LOG.warning("Namespace %s is not wiped: %s", result.name, result.reason)
            except exception.VPMEMError as error:
                LOG.error("Wiping ended early, and goes on within minutes: %s", error)
            except Exception:
                LOG.exception("Wiping ended early, and goes on within minutes")
