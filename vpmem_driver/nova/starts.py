"""Guests being started on this host. Their namespaces are not released until the start ends.

Nova can delete an instance during its start: terminate_instance takes a lock that start_instance and finish_resize do
not take, and a server whose host is down is deleted without asking the migration's destination (compute/manager.py,
compute/api.py; Nova 31 to 34). A namespace released between claim and start would be wiped and given to a second guest.
"""

import collections
import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Iterator

LOG = logging.getLogger(__name__)


class Starts:
    """The owners whose guests are being started, and the releases that wait for the end of a start."""

    def __init__(self, release: Callable[[str], None]) -> None:
        """`release` releases all that an owner holds. It is called under a lock, so that no start begins during it."""
        self._release = release
        self._lock = threading.Lock()
        self._starts: collections.Counter[str] = collections.Counter()
        self._arriving: set[str] = set()
        self._postponed: set[str] = set()

    @contextlib.contextmanager
    def start(self, owner: str) -> Iterator[None]:
        """Mark the guest of `owner` as being started. At the end, run the release that was postponed, if any."""
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

    def arrival_begins(self, owner: str) -> None:
        """Note that a live migration brings the guest of `owner`, until :meth:`arrival_ends` or the service ends."""
        with self._lock:
            self._arriving.add(owner)

    def arrival_ends(self, owner: str) -> None:
        """Note that Nova has cleaned up after the guest of `owner`, whether it arrived or not."""
        with self._lock:
            self._arriving.discard(owner)

    def release(self, owner: str) -> None:
        """Release what `owner` holds; if its guest is being started, at the end of the start."""
        with self._lock:
            if owner in self._starts:
                LOG.warning("Instance %s is being started; its namespaces are released at the end of the start", owner)
                self._postponed.add(owner)
            else:
                self._release(owner)

    def release_absent(self, owner: str, domains: Callable[[], Collection[str]]) -> None:
        """Release what `owner` holds, unless its guest is on this host, is being started or is arriving.

        :param domains: returns the owners that have a domain on this host
        """
        with self._lock:
            if owner not in self._starts and owner not in self._arriving and owner not in domains():
                LOG.warning("Instance %s is deleted; releasing what it still holds on this host", owner)
                self._release(owner)

    def is_postponed(self, owner: str) -> bool:
        """Whether a release of `owner` waits for the end of its start."""
        with self._lock:
            return owner in self._postponed
