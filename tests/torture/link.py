"""A process's end of its connection to the controller: it announces a point, and does what the controller answers.

While a link is open the process lives in the controller's time: ``now`` moves only when every process waits.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import types
import typing
from collections.abc import Iterator

MESSAGE_BYTES = 1 << 20
#: The exit status of a process that has killed itself.
KILLED = 137
#: Reading the clock takes this long, so that a loop over it ends.
CLOCK_SECONDS = 1e-6


class Link:
    """One open connection. Only the thread that opened it announces points."""

    def __init__(self, address: str, role: str, words: list[str] | None = None) -> None:
        self.address = address
        self.now = 0.0
        self.locked = False  # this process holds the lock of a lock file
        self._thread = threading.get_ident()
        self._inside = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(address)
        self.tell("hello", role, pid=os.getpid(), words=words)

    @property
    def listens(self) -> bool:
        """Whether an act of the calling thread is to be announced."""
        return not self._inside and threading.get_ident() == self._thread

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Announce nothing meanwhile."""
        self._inside = True
        try:
            yield
        finally:
            self._inside = False

    def tell(self, kind: str, name: str, **info: object) -> typing.Any:
        """Announce one point and wait for the answer. :returns: what the controller answers to a question."""
        if kind == "fact":  # nothing is being done, so nothing is locked, however it has ended
            self.locked = info["holds_lock"] = False
        with self.quiet():
            return self._ask([kind, name, info])

    def _ask(self, message: list[object]) -> typing.Any:
        sys.settrace(None)
        self._socket.send(json.dumps(message).encode())
        answer = self._socket.recv(MESSAGE_BYTES)
        if not answer:
            os._exit(75)  # the controller is gone
        do, self.now, value = json.loads(answer)
        if do == "interrupt":
            raise KeyboardInterrupt
        if do == "lines":
            _die_after_lines(value)
            return None
        return value


def _die_after_lines(count: int) -> None:
    """End this process, as SIGKILL would, after `count` more lines of the package, if it comes to no point before."""
    left = count

    def trace(frame: types.FrameType, event: str, _argument: object) -> typing.Any:
        nonlocal left
        if event == "line" and "/vpmem_driver/" in frame.f_code.co_filename:
            left -= 1
            if left <= 0:
                os._exit(KILLED)  # SIGKILL from itself does nothing to the first process of a container
        return trace

    sys.settrace(trace)
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        frame.f_trace = trace
        frame = frame.f_back


#: The link of this process; None in the controller.
current: Link | None = None


def active() -> Link | None:
    """The link to announce an act on; None when nobody wants to know."""
    return current if current is not None and current.listens else None
