"""Wipe released namespaces in the background, in threads of nova-compute's own executor."""

import logging
import threading

from vpmem_driver import exception
from vpmem_driver.engine import Outcome
from vpmem_driver.pool import wipes
from vpmem_driver.pool.maintenance import Maintenance

try:
    from nova.thread_pool_factory import spawn  # Nova 34
except ImportError:
    from nova.utils import spawn  # Nova 31 to 33

LOG = logging.getLogger(__name__)


class BackgroundWipe:
    """Wipes all dirty namespaces, a few at a time, independently of each other.

    :meth:`start` is called after each release and by each periodic task. It retries the wipes that failed before.
    """

    def __init__(self, maintenance: Maintenance, parallel: int) -> None:
        """`parallel` is the number of namespaces wiped at a time."""
        self._maintenance = maintenance
        self._parallel = parallel
        self._lock = threading.Lock()
        self._workers = 0
        self._wiping: set[str] = set()
        self._failed: set[str] = set()  # since the last start
        self.stop = threading.Event()

    def start(self) -> None:
        """Start wiping all dirty namespaces, and return at once."""
        with self._lock:
            self._failed.clear()
            new = self._parallel - self._workers
            self._workers += new
        for _ in range(new):
            spawn(self._work)

    def _work(self) -> None:
        while (uuid := self._next()) is not None:
            wiped = self._wipe(uuid)
            with self._lock:
                self._wiping.discard(uuid)
                if not wiped:
                    self._failed.add(uuid)

    def _next(self) -> str | None:
        """Return a dirty namespace that no worker is wiping. If there is none, count one worker less and return None.

        Both happen under the lock: :meth:`start` must not count a worker that is about to end.
        """
        with self._lock:
            left = [] if self.stop.is_set() else [uuid for uuid in self._dirty() if uuid not in self._wiping]
            if not left:
                self._workers -= 1
                return None
            self._wiping.add(left[0])
            return left[0]

    def _dirty(self) -> list[str]:
        try:
            return [uuid for uuid in self._maintenance.dirty() if uuid not in self._failed]
        except exception.VPMEMError as error:
            LOG.error("Cannot wipe released namespaces; retrying at the next periodic task: %s", error)
        except Exception:
            LOG.exception("Cannot wipe released namespaces; retrying at the next periodic task")
        return []

    def _wipe(self, uuid: str) -> bool:
        try:
            (result,) = self._maintenance.wipe_dirty([uuid], on_progress=wipes.ProgressLog(), stop=self.stop)
        except exception.VPMEMError as error:
            LOG.error("Wipe of namespace %s interrupted; retrying at the next periodic task: %s", uuid, error)
            return False
        except Exception:
            LOG.exception("Wipe of namespace %s interrupted; retrying at the next periodic task", uuid)
            return False
        if result.reason:
            LOG.warning("Namespace %s is not wiped: %s", result.name, result.reason)
        return result.outcome is Outcome.WIPED
