"""Wait until one of several files is readable."""

import math
import select as select_module
import types
from collections.abc import Callable, Collection

#: Returns those of the file descriptors that are readable; an empty list after `timeout` seconds (None: no timeout).
Wait = Callable[[Collection[int], float | None], list[int]]


def wait(fds: Collection[int], timeout: float | None, *, select: types.ModuleType = select_module) -> list[int]:
    """Implement :data:`Wait` with poll(2). A file whose other end is closed is readable."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if timeout is None else math.ceil(1000 * timeout))]
