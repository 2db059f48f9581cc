"""The parent's side of one worker process. It accepts only events that the protocol allows."""

import collections
import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import IO, cast

from vpmem_driver import interpreter, protocol
from vpmem_driver.engine import poll
from vpmem_driver.engine.job import Job, Result
from vpmem_driver.protocol import Outcome

LOG = logging.getLogger(__name__)

#: Time for a worker to end after its stdin is closed, and then after each of _SIGNALS.
GRACE_SECONDS = 5.0
#: Maximum time between reports of a worker. Listing namespaces takes up to 60 seconds, twice; a wipe step takes less.
SILENCE_SECONDS = 300.0
_SIGNALS = (signal.SIGTERM, signal.SIGKILL)

_READ_BYTES = 1 << 12
#: The end of stderr that is kept: as many pieces as a pipe holds, which is what an ended worker may have left in it.
_STDERR_PIECES = 16
#: The environment variables that a worker inherits: those that the interpreter needs, and PATH for ndctl.
_ENVIRONMENT = ("HOME", "LD_LIBRARY_PATH", "PATH")
_KILLED_BY_OTHERS = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
#: Exit statuses of a worker that SIGBUS killed: directly, through a shell, and through rootwrap.
_BUS_ERRORS = (-signal.SIGBUS, 128 + signal.SIGBUS, 256 - signal.SIGBUS)
_DOING = {"zero": "zeroing", "copy": "copying", "verify": "reading back"}


class ProtocolError(Exception):
    """A worker broke the protocol."""


class Worker:
    """One worker process, and the state of its protocol."""

    def __init__(self, job: Job, command: Sequence[str], task: bytes) -> None:
        """Start the process. :raises OSError: it cannot be started."""
        self.job = job
        self.over = False  # its outcome is known, or no longer wanted
        self.stopped = False
        self.deadline: float | None = None
        self._last_report = time.monotonic()
        self._signals = list(_SIGNALS)
        self._ready = self._begun = False
        self._done = dict.fromkeys(job.phases, 0) | {job.phases[0]: job.start}
        self._received = b""
        self._errors: collections.deque[bytes] = collections.deque(maxlen=_STDERR_PIECES)
        # Only a socket can carry the descriptor of a stream.
        own, its = (None, None) if job.stream is None else socket.socketpair()
        if its is not None:
            os.set_blocking(its.fileno(), True)  # eventlet's sockets are not blocking
        try:
            # A separate process group: only the parent handles Ctrl-C. Fixed arguments: the task goes through stdin.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if its is None else its.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=_environment(),
                process_group=0,
            )
        except BaseException:
            if own is not None:
                own.close()
            raise
        finally:
            if its is not None:
                its.close()
        self._stdin = cast("IO[bytes]", self.process.stdin) if own is None else own
        self.stdout, self.stderr = cast("IO[bytes]", self.process.stdout), cast("IO[bytes]", self.process.stderr)
        self._write(task)

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # the worker died; the end of its stdout shows that
            if isinstance(self._stdin, socket.socket):
                self._stdin.sendall(line)
            else:
                self._stdin.write(line)

    def go(self) -> None:
        """Allow the worker to begin, and give it the stream of its job."""
        self._begun = True
        if isinstance(self._stdin, socket.socket) and self.job.stream is not None:
            with contextlib.suppress(BrokenPipeError):
                socket.send_fds(self._stdin, [protocol.GO + b"\n"], [self.job.stream])
        else:
            self._write(protocol.GO + b"\n")

    def close(self) -> None:
        """Close stdin, so that the worker ends. :meth:`signal_if_due` enforces it."""
        self._stdin.close()
        if self.deadline is None:
            self.deadline = time.monotonic() + GRACE_SECONDS

    def kill(self) -> None:
        """Kill the worker now, and ignore its outcome."""
        self.over = True
        self._signal(signal.SIGKILL)
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        # A worker that runs as root cannot be signalled. It stops at its next step because its stdin is closed.
        with contextlib.suppress(PermissionError):
            self.process.send_signal(number)

    @property
    def silent(self) -> bool:
        """Whether the worker has reported nothing for SILENCE_SECONDS."""
        return time.monotonic() - self._last_report >= SILENCE_SECONDS

    @property
    def due(self) -> float:
        """When to check the worker next if it reports nothing (monotonic clock)."""
        return self._last_report + SILENCE_SECONDS if self.deadline is None else self.deadline

    def signal_if_due(self) -> bool:
        """Send the next signal if it is due. :returns: False if no signal has ended the worker."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            if not self._signals:
                return False
            self._signal(self._signals.pop(0))
            self.deadline = time.monotonic() + GRACE_SECONDS
        return True

    def read_stderr(self) -> bool:
        """Read a piece of stderr for the log. :returns: False at its end."""
        piece = os.read(self.stderr.fileno(), _READ_BYTES)
        if piece:
            self._errors.append(piece)
        return bool(piece)

    def events(self, piece: bytes) -> Iterator[protocol.Event]:
        """Yield the events in `piece` of its output. :raises ProtocolError: one is invalid, or not allowed now."""
        self._last_report = time.monotonic()
        *lines, self._received = (self._received + piece).split(b"\n")
        if len(self._received) > protocol.LINE_BYTES:
            raise ProtocolError
        for line in lines:
            try:
                event = protocol.decode_event(line)
            except protocol.NOT_UNDERSTOOD as error:
                raise ProtocolError from error
            if not self._allows(event):
                raise ProtocolError
            yield event

    def _allows(self, event: protocol.Event) -> bool:
        match event:
            case protocol.Ready():
                first, self._ready = not self._ready, True
                return first
            case protocol.Progress(phase=phase, bytes=done):
                before, self._done[phase] = self._done.get(phase, self.job.length + 1), done
                return self._begun and before <= done <= self.job.length
            case protocol.Failure(outcome=outcome):
                return self._begun or outcome not in {Outcome.MEDIA, Outcome.LOST}
            case _:
                ended = dict.fromkeys(self.job.phases, self.job.length)
                return self._begun and isinstance(event, self.job.done) and self._done == ended

    def reap(self) -> None:
        """Wait for the process to end, and log its stderr."""
        self.close()
        if not poll.has_ended(self.process, GRACE_SECONDS):
            self._signal(signal.SIGKILL)
            poll.has_ended(self.process, GRACE_SECONDS)
        os.set_blocking(self.stderr.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(_STDERR_PIECES):
                if not self.read_stderr():
                    break
        if self._errors:
            LOG.debug("Worker for %s: %s", self.job.name, b"".join(self._errors).decode(errors="replace"))
        self.stdout.close()
        self.stderr.close()

    def result_of_exit(self) -> Result:
        """Return the result of a worker that ended without reporting an outcome."""
        status = self.process.returncode
        if status in _BUS_ERRORS and self._begun:
            unfinished = (phase for phase in self.job.phases if self._done[phase] < self.job.length)
            phase = next(unfinished, self.job.phases[-1])
            reason = f"memory error (SIGBUS) while {_DOING[phase]}, after byte {self._done[phase]}"
            return self.job.ended(self.job.bus_error, reason)
        if self.stopped:
            return self.job.ended(Outcome.STOPPED)
        if status is None:
            return self.job.ended(Outcome.HOST, f"its process {self.process.pid} does not end, even after SIGKILL")
        if -status in _KILLED_BY_OTHERS:
            return self.job.ended(Outcome.STOPPED, f"its process was killed by {signal.Signals(-status).name}")
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return self.job.ended(Outcome.HOST, f"its process {how}; its output is in the log at level debug")


def _environment() -> dict[str, str]:
    """Return the environment of a worker: the search path of this package, and _ENVIRONMENT."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return kept | {"PYTHONPATH": interpreter.search_path()}
