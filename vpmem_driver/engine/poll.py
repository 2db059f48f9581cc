"""Wait until one of several files is readable, or a child process has ended."""

import math
import select as select_module
import subprocess
import time
import types
from collections.abc import Callable, Collection

#: Returns those of the file descriptors that are readable; an empty list after `timeout` seconds (None: no timeout).
Wait = Callable[[Collection[int], float | None], list[int]]

#: Interval at which a child process is looked at.
_POLL_SECONDS = 0.02


def wait(fds: Collection[int], timeout: float | None, *, select: types.ModuleType = select_module) -> list[int]:
    """Implement :data:`Wait` with poll(2). A file whose other end is closed is readable."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if timeout is None else math.ceil(1000 * timeout))]


def has_ended(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Wait at most `seconds` for a child process to end, and return whether it has.

    ``Popen.wait(seconds)`` raises another class than ``subprocess.TimeoutExpired`` if eventlet 0.39 has patched it.
    """
    end = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_SECONDS)
    return True
