"""Wipes namespaces, each in a child process (:mod:`.child`) that can die of bad media alone.

The engine decides nothing about namespaces: a watcher says whether a wipe may start, and hears how each one goes.
"""

import collections
import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from vpmem_driver import interpreter
from vpmem_driver.discovery import base
from vpmem_driver.wipe import protocol, waiting
from vpmem_driver.wipe.job import Job, Outcome, Result, Watcher
from vpmem_driver.wipe.process import SILENCE_SECONDS, Child, Nonsense
from vpmem_driver.wipe.protocol import Kind

#: How often the event that asks to stop is looked at.
STOP_SECONDS = 0.1

_READ_BYTES = 1 << 16
_OUTCOMES = {
    Kind.BUSY: Outcome.BUSY,
    Kind.IN_USE: Outcome.IN_USE,
    Kind.MISSING: Outcome.HOST,
    Kind.HOST: Outcome.HOST,
    Kind.MEDIA: Outcome.MEDIA,
}


class Engine:
    """Wipes namespaces of one discovery. It keeps nothing between two runs, which may also overlap.

    :ivar resumes: whether a wipe may begin where an interrupted one ended. A command of another user zeroes all: it
        does not believe this one.
    """

    def __init__(
        self,
        discovery: base.Discovery,
        *,
        parallel: int,
        threads: int,
        rate: int,
        command: Sequence[str] | None = None,
        wait: waiting.Wait = waiting.wait,
    ) -> None:
        """Prepare to wipe, and start nothing yet.

        :param parallel: how many namespaces at a time
        :param threads: for each of them; 0 is up to 4, by CPUs
        :param rate: most bytes per second, for each of them; 0 is no limit
        :param command: what to start as child, in place of :mod:`.child`
        :param wait: how to wait for what the children say
        """
        self._discovery = discovery
        self._parallel = parallel
        self._threads = threads
        self._rate = rate
        self._wait = wait
        self.resumes = not command
        self._command = command or interpreter.command("vpmem_driver.wipe.child", site=False)

    def run(self, jobs: Iterable[Job], watcher: Watcher, stop: threading.Event | None = None) -> dict[str, Result]:
        """Wipe all, return when all are over. The failure of one does not keep the others from being wiped.

        The calling thread has to live until this returns: the children end with it.

        :param stop: when it is set, wipes that have begun are stopped, with their progress told, and no more begin
        :returns: outcome and reason by uuid, for every job. The reason is empty when it is wiped, and when it was
            stopped by `stop` or not let start by the watcher
        :raises ValueError: two jobs are for one namespace
        :raises Exception: what the watcher raised first; that job's child was killed, all others are over
        """
        return _Run(list(jobs), watcher, stop, start=self._start, wait=self._wait, parallel=self._parallel).run()

    def _start(self, job: Job) -> Child:
        task = protocol.Task(
            uuid=job.uuid,
            discovery=self._discovery.name,
            options=self._discovery.options(),
            start=job.start,
            threads=self._threads,
            rate=self._rate,
            size=job.size,
        )
        return Child(job, self._command, protocol.encode(task))


class _Run:
    """One run of an engine: a loop over what the children say. No other thread has a part in it."""

    def __init__(
        self,
        jobs: Sequence[Job],
        watcher: Watcher,
        stop: threading.Event | None,
        *,
        start: Callable[[Job], Child],
        wait: waiting.Wait,
        parallel: int,
    ) -> None:
        if len({job.uuid for job in jobs}) != len(jobs):
            raise ValueError("two jobs for one namespace")
        self._start_child = start
        self._wait = wait
        self._parallel = parallel
        self._pending = collections.deque(jobs)
        self._watcher = watcher
        self._stop = stop
        self._children: list[Child] = []
        self._listeners: dict[int, Callable[[], None]] = {}  # by file descriptor
        self._results: dict[str, Result] = {}
        self._errors: list[Exception] = []

    def run(self) -> dict[str, Result]:
        """See :meth:`Engine.run`."""
        try:
            while self._pending or self._children:
                if self._stop is not None and self._stop.is_set():
                    self._stop_all()
                self._start_some()
                self._end_silent()
                for fd in self._wait(list(self._listeners), self._timeout()):
                    if fd in self._listeners:  # else what another one said has ended its child
                        self._listeners[fd]()
                for child in [child for child in self._children if not child.urge()]:
                    self._ended(child)
        finally:
            # Children are left only when an exception goes through, such as KeyboardInterrupt.
            for child in self._children:
                child.stopped = True
                child.close()
            for child in self._children:
                child.reap()
        if self._errors:
            for error in self._errors[1:]:
                self._errors[0].add_note(f"and then: {error!r}")
            raise self._errors[0]
        return self._results

    def _stop_all(self) -> None:
        for child in self._children:
            child.stopped = True
            child.close()
        while self._pending:
            self._finish(self._pending.popleft(), None, Outcome.STOPPED, "")

    def _start_some(self) -> None:
        while self._pending and len(self._children) < self._parallel:
            job = self._pending.popleft()
            try:
                child = self._start_child(job)
            except OSError as error:
                self._finish(job, None, Outcome.HOST, f"its process cannot be started: {error}")
                continue
            self._children.append(child)
            self._listeners[child.stdout.fileno()] = functools.partial(self._hear, child)
            self._listeners[child.stderr.fileno()] = functools.partial(self._hear_errors, child)

    def _timeout(self) -> float:
        """How long to wait for the children to say something, in seconds."""
        if not self._children:
            return 0.0
        waits = [child.due - time.monotonic() for child in self._children]
        if self._stop is not None:
            waits.append(STOP_SECONDS)
        return max(0.0, min(waits))

    def _end_silent(self) -> None:
        """Give up a child that has said nothing for too long: it would keep its namespace locked for ever."""
        for child in self._children:
            if child.silent and not child.over:
                child.kill()
                reason = f"its process {child.process.pid} said nothing for {SILENCE_SECONDS:.0f} seconds"
                self._finish(child.job, child, Outcome.HOST, reason)

    def _hear_errors(self, child: Child) -> None:
        if not child.note_errors():
            del self._listeners[child.stderr.fileno()]

    def _hear(self, child: Child) -> None:
        piece = os.read(child.stdout.fileno(), _READ_BYTES)
        if not piece:
            self._ended(child)
            return
        try:
            for event in child.events(piece):
                self._handle(child, event)
        except Nonsense:
            if not child.over:
                child.kill()
                self._finish(child.job, child, Outcome.HOST, "its process said what cannot be understood")

    def _handle(self, child: Child, event: protocol.Event) -> None:
        job = child.job
        match event:
            case _ if child.over:
                pass
            case protocol.Progress(phase=phase, bytes=done):
                if self._tell(child, self._watcher.progress, job, phase, done) is False:
                    child.kill()
                    self._finish(job, child, Outcome.STOPPED, "")
            case protocol.Failure(kind=kind, reason=reason):
                self._finish(job, child, _OUTCOMES[kind], reason)
            case _ if child.stopped:
                # Too late: the lock is given up with stdin, and without it nobody may be told that all is zero.
                pass
            case protocol.Ready():
                if self._tell(child, self._watcher.may_start, job):
                    child.go()
                elif not child.over:
                    self._finish(job, child, Outcome.STOPPED, "")
            case protocol.Wiped():
                self._finish(job, child, Outcome.WIPED, "")

    def _ended(self, child: Child) -> None:
        self._children.remove(child)
        for stream in (child.stdout, child.stderr):
            self._listeners.pop(stream.fileno(), None)
        child.reap()
        if not child.over:
            self._finish(child.job, child, *child.verdict())

    def _finish(self, job: Job, child: Child | None, outcome: Outcome, reason: str) -> None:
        """Make the outcome known, and only then let go of the lock."""
        self._results[job.uuid] = (outcome, reason)
        if child is not None:
            child.over = True
        self._tell(child, self._watcher.finished, job, outcome, reason)
        if child is not None:
            child.close()

    def _tell(self, child: Child | None, call: Callable[..., bool | None], *values: object) -> bool | None:
        """Call the watcher. What it raises ends that child at once, and the run when the others are over."""
        try:
            return call(*values)
        except Exception as error:  # noqa: BLE001 raised at the end of the run
            self._errors.append(error)
            if child is not None:
                child.kill()
            return None
