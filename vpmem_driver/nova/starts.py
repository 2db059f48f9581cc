"""The guests that are being started on this host: what they hold is not released meanwhile.

Nova deletes an instance while it is started: terminate_instance takes a lock that start_instance and finish_resize do
not, and a server whose host is down is deleted without its destination (compute/manager.py, compute/api.py; Nova 31 to
34). Released between its claim and its start, a namespace would be wiped and given to another guest as well.
"""

import collections
import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Iterator

LOG = logging.getLogger(__name__)


class Starts:
    """The owners whose guests are being started, and those whose release waits for the end of that."""

    def __init__(self, release: Callable[[str], None]) -> None:
        """`release` releases all that an owner holds. It is called under a lock, so that no start begins meanwhile."""
        self._release = release
        self._lock = threading.Lock()
        self._starts: collections.Counter[str] = collections.Counter()
        self._arriving: set[str] = set()
        self._postponed: set[str] = set()

    @contextlib.contextmanager
    def start(self, owner: str) -> Iterator[None]:
        """A guest of `owner` is started inside. A release that is postponed meanwhile happens at the end."""
        with self._lock:
            self._starts[owner] += 1
        try:
            yield
        finally:
            with self._lock:
                self._starts[owner] -= 1
                if not self._starts[owner]:
                    del self._starts[owner]
                    if owner in self._postponed:
                        self._postponed.discard(owner)
                        self._release(owner)

    def arrives(self, owner: str) -> None:
        """A live migration brings a guest of `owner`. Ends with :meth:`leaves`, or with the service."""
        with self._lock:
            self._arriving.add(owner)

    def leaves(self, owner: str) -> None:
        """Nova has cleaned up after the guest of `owner`, whether it arrived or not."""
        with self._lock:
            self._arriving.discard(owner)

    def release(self, owner: str) -> None:
        """Release what `owner` holds; at the end of its start if it is being started."""
        with self._lock:
            if owner in self._starts:
                LOG.warning("Instance %s is being started: its namespaces are released when that has ended", owner)
                self._postponed.add(owner)
            else:
                self._release(owner)

    def release_absent(self, owner: str, domains: Callable[[], Collection[str]]) -> None:
        """Release what `owner` holds, unless its guest is here, is being started or is on its way here.

        :param domains: returns the owners whose domain is here
        """
        with self._lock:
            if owner not in self._starts and owner not in self._arriving and owner not in domains():
                LOG.warning("Instance %s is deleted: what it still has on this host is released", owner)
                self._release(owner)

    def is_postponed(self, owner: str) -> bool:
        """Whether a release waits for the end of the start."""
        with self._lock:
            return owner in self._postponed
