"""Waiting for one of several files to have something to say."""

import math
import select as select_module
import types
from collections.abc import Callable, Collection

#: Which of these file descriptors can be read now; an empty list when `timeout` seconds are over (None: never).
Wait = Callable[[Collection[int], float | None], list[int]]


def wait(fds: Collection[int], timeout: float | None, *, select: types.ModuleType = select_module) -> list[int]:
    """As :data:`Wait` says, by poll(2). One whose other end is closed can be read."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if timeout is None else math.ceil(1000 * timeout))]
