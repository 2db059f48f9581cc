"""Waiting for the processes that wipe, in a nova-compute that eventlet has patched.

There a select of several files is not to be had: when two of them are ready at once, eventlet wakes up the caller for
the second one as well, later, out of whatever it waits for by then, which returns the nonsense that it is woken up with
(eventlet 0.39 to 0.41, eventlet/green/select.py). An answer of libvirt's is then no answer.
"""

import functools
import sys
import time
import types
from collections.abc import Collection

from vpmem_driver.engine import poll

#: How often to look. In between, eventlet runs others.
_LOOK_SECONDS = 0.02


def wait_here() -> poll.Wait:
    """How to wait in this process."""
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is None or not patcher.is_monkey_patched("select"):
        return poll.wait
    return functools.partial(_look_again_and_again, patcher.original("select"))


def _look_again_and_again(select: types.ModuleType, fds: Collection[int], timeout: float | None) -> list[int]:
    end = None if timeout is None else time.monotonic() + timeout
    while not (ready := poll.wait(fds, 0, select=select)) and (end is None or time.monotonic() < end):
        time.sleep(_LOOK_SECONDS)
    return ready
