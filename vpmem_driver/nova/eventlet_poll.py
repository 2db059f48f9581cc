"""Wait for output of the workers in a nova-compute that eventlet has patched.

eventlet's select must not be called with several files. If two are ready at once, eventlet resumes the caller twice:
the second time in an unrelated later wait, for example for an answer of libvirt, which then returns a wrong value
(eventlet 0.39 to 0.41, eventlet/green/select.py).
"""

import functools
import sys
import time
import types
from collections.abc import Collection

from vpmem_driver.engine import poll

#: Interval of the polls. In between, eventlet runs other green threads.
_POLL_SECONDS = 0.02


def wait_here() -> poll.Wait:
    """Return the wait function for this process."""
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is None or not patcher.is_monkey_patched("select"):
        return poll.wait
    return functools.partial(_poll_repeatedly, patcher.original("select"))


def _poll_repeatedly(select: types.ModuleType, fds: Collection[int], timeout: float | None) -> list[int]:
    end = None if timeout is None else time.monotonic() + timeout
    while not (ready := poll.wait(fds, 0, select=select)) and (end is None or time.monotonic() < end):
        time.sleep(_POLL_SECONDS)
    return ready
