"""One worker process as its parent sees it. Only what the protocol allows is accepted from it."""

import collections
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import IO, cast

from vpmem_driver import interpreter, protocol
from vpmem_driver.engine.job import Job, Result
from vpmem_driver.protocol import Outcome

LOG = logging.getLogger(__name__)

#: How long a worker may take to end after its stdin is closed, and then after each of these signals.
GRACE_SECONDS = 5.0
#: How long a worker may report nothing. Listing namespaces takes up to 60 seconds, twice; one step of a wipe less.
SILENCE_SECONDS = 300.0
_SIGNALS = (signal.SIGTERM, signal.SIGKILL)

_READ_BYTES = 1 << 12
_STDERR_PIECES = 16
#: The environment variables that a worker is given: what an interpreter needs, and where ndctl is found.
_ENVIRONMENT = ("HOME", "LD_LIBRARY_PATH", "PATH")
_KILLED_BY_OTHERS = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)


#: Killed by it; and what a shell, and rootwrap, make of that in their own exit status.
_BUS_ERRORS = (-signal.SIGBUS, 128 + signal.SIGBUS, 256 - signal.SIGBUS)


class ProtocolError(Exception):
    """A worker broke the protocol."""


class Worker:
    """One worker process, and the state of the protocol with it."""

    def __init__(self, job: Job, command: Sequence[str], task: bytes) -> None:
        """Start it. :raises OSError: it cannot be started."""
        self.job = job
        self.over = False  # its outcome is known, or no longer wanted
        self.stopped = False
        self.deadline: float | None = None
        self._last_report = time.monotonic()
        self._signals = list(_SIGNALS)
        self._ready = self._begun = False
        self._done: dict[protocol.Phase, int] = {"zero": job.start, "verify": 0}
        self._received = b""
        self._errors: collections.deque[bytes] = collections.deque(maxlen=_STDERR_PIECES)
        # A process group of its own: the parent handles Ctrl-C. Fixed arguments; the task goes through stdin.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=_environment(),
            process_group=0,
        )
        self.stdout, self.stderr = cast("IO[bytes]", self.process.stdout), cast("IO[bytes]", self.process.stderr)
        self._stdin = cast("IO[bytes]", self.process.stdin)
        self._write(task)

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died, which its stdout shows
            self._stdin.write(line)

    def go(self) -> None:
        """Allow it to overwrite the first byte."""
        self._begun = True
        self._write(protocol.GO + b"\n")

    def close(self) -> None:
        """Ask it to end. :meth:`hurry` makes sure that it does."""
        self._stdin.close()
        if self.deadline is None:
            self.deadline = time.monotonic() + GRACE_SECONDS

    def kill(self) -> None:
        """Kill it at once. Its outcome is ignored from then on."""
        self.over = True
        self._signal(signal.SIGKILL)
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        # A worker that runs as root cannot be signalled: it stops at its next step, as its stdin is closed.
        with contextlib.suppress(PermissionError):
            self.process.send_signal(number)

    @property
    def silent(self) -> bool:
        """Whether it has reported nothing for SILENCE_SECONDS."""
        return time.monotonic() - self._last_report >= SILENCE_SECONDS

    @property
    def due(self) -> float:
        """When to check on it next, even if it reports nothing."""
        return self._last_report + SILENCE_SECONDS if self.deadline is None else self.deadline

    def hurry(self) -> bool:
        """Send the next signal when it is due. :returns: False when no signal has ended it."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            if not self._signals:
                return False
            self._signal(self._signals.pop(0))
            self.deadline = time.monotonic() + GRACE_SECONDS
        return True

    def keep_errors(self) -> bool:
        """Read a piece of its stderr for the log. :returns: whether there may be more."""
        piece = os.read(self.stderr.fileno(), _READ_BYTES)
        self._errors.append(piece)
        return bool(piece)

    def events(self, piece: bytes) -> Iterator[protocol.Event]:
        """The events that it reports. :raises ProtocolError: one is not understood, or not allowed now."""
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
        size = self.job.size
        match event:
            case protocol.Ready():
                first, self._ready = not self._ready, True
                return first
            case protocol.Progress(phase=phase, bytes=done):
                before, self._done[phase] = self._done[phase], done
                return self._begun and before <= done <= size
            case protocol.Wiped():
                return self._begun and self._done == {"zero": size, "verify": size}
            case protocol.Failure(outcome=outcome):
                return self._begun or outcome is not Outcome.MEDIA

    def reap(self) -> None:
        """Wait for its end, which its closed stdout has announced, and log its stderr."""
        self.close()
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE_SECONDS)
        os.set_blocking(self.stderr.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            self.keep_errors()
        if any(self._errors):
            LOG.debug("Wiping %s: %s", self.job.name, b"".join(self._errors).decode(errors="replace"))
        self.stdout.close()
        self.stderr.close()

    def verdict(self) -> Result:
        """What its end means, when it has reported no outcome."""
        status = self.process.returncode
        if status in _BUS_ERRORS and self._begun:
            phase: protocol.Phase = "zero" if self._done["zero"] < self.job.size else "verify"
            doing = "zeroing" if phase == "zero" else "reading back"
            return self.job.ended(Outcome.MEDIA, f"memory error (SIGBUS) while {doing}, after byte {self._done[phase]}")
        if self.stopped:
            return self.job.ended(Outcome.STOPPED)
        if status is None:
            return self.job.ended(Outcome.HOST, f"its process {self.process.pid} does not end, not even by SIGKILL")
        if -status in _KILLED_BY_OTHERS:
            return self.job.ended(Outcome.STOPPED, f"its process was killed by {signal.Signals(-status).name}")
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return self.job.ended(Outcome.HOST, f"its process {how}; its output is in the log at level debug")


def _environment() -> dict[str, str]:
    """The environment of a worker: where it finds our modules, and what it needs besides."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return kept | {"PYTHONPATH": interpreter.search_path()}
