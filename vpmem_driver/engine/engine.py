"""Supervise the worker processes (:mod:`vpmem_driver.worker`) that wipe and copy namespaces, one for each namespace.

A media error kills only the worker. The engine decides nothing about namespaces: a recorder decides whether a job may
start, and receives progress and result of each job.
"""

import collections
import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from vpmem_driver import interpreter, protocol
from vpmem_driver.discovery import interface
from vpmem_driver.engine import poll
from vpmem_driver.engine.job import Job, Recorder, Result
from vpmem_driver.engine.process import SILENCE_SECONDS, ProtocolError, Worker
from vpmem_driver.protocol import Outcome

#: Interval of checking the stop event.
STOP_SECONDS = 0.1

_READ_BYTES = 1 << 16


class Engine:
    """Wipes and copies namespaces of one discovery. Runs share no state, and may overlap.

    :ivar resumes: whether a wipe resumes where an interrupted one ended. A command that runs as another user zeroes
        all bytes, because it does not trust this user.
    """

    def __init__(
        self,
        discovery: interface.Discovery,
        *,
        parallel: int,
        threads: int,
        rate: int,
        command: Sequence[str] | None = None,
        copy_command: Sequence[str] | None = None,
        copy_rate: int = 0,
        wait: poll.Wait = poll.wait,
    ) -> None:
        """Store the settings. No worker is started.

        :param parallel: number of workers at a time
        :param threads: threads per namespace; 0 means one per CPU, at most 4
        :param rate: maximum bytes per second per namespace of a wipe; 0 means no limit
        :param command: command to start as worker for a wipe instead of :mod:`vpmem_driver.worker`
        :param copy_command: the same for the other jobs
        :param copy_rate: the same limit for the other jobs; a sender counts only what it writes to the stream
        :param wait: function that waits for output of the workers
        """
        self._discovery = discovery
        self._parallel = parallel
        self._threads = threads
        self._wait = wait
        self.resumes = not command
        own = interpreter.command("vpmem_driver.worker", site=False)
        self._wipe = command or own, rate
        self._copy = copy_command or own, copy_rate

    def run(self, jobs: Iterable[Job], recorder: Recorder, stop: threading.Event | None = None) -> dict[str, Result]:
        """Run all jobs, and return when all have ended. The failure of one does not stop the others.

        The calling thread must live until this returns: the workers end with it.

        :param stop: when it is set, running wipes stop with their progress recorded, and no more begin
        :returns: the result of every job, by uuid
        :raises ValueError: two jobs are for the same namespace
        :raises Exception: the first exception of the recorder; that job's worker was killed, and all others have ended
        """
        return _Run(list(jobs), recorder, stop, start=self._start, wait=self._wait, parallel=self._parallel).run()

    def _start(self, job: Job) -> Worker:
        command, rate = self._wipe if type(job) is Job else self._copy
        task = job.task(
            discovery=self._discovery.name, options=self._discovery.options(), threads=self._threads, rate=rate
        )
        return Worker(job, command, protocol.encode(task))


class _Run:
    """One run of an engine: a loop over the reports of the workers, in the calling thread only."""

    def __init__(
        self,
        jobs: Sequence[Job],
        recorder: Recorder,
        stop: threading.Event | None,
        *,
        start: Callable[[Job], Worker],
        wait: poll.Wait,
        parallel: int,
    ) -> None:
        if len({job.uuid for job in jobs}) != len(jobs):
            raise ValueError("two jobs for one namespace")
        self._start_worker = start
        self._wait = wait
        self._parallel = parallel
        self._pending = collections.deque(jobs)
        self._recorder = recorder
        self._stop = stop
        self._workers: list[Worker] = []
        self._readers: dict[int, Callable[[], None]] = {}  # by file descriptor
        self._results: dict[str, Result] = {}
        self._errors: list[Exception] = []

    def run(self) -> dict[str, Result]:
        """See :meth:`Engine.run`."""
        try:
            while self._pending or self._workers:
                if self._stop is not None and self._stop.is_set():
                    self._stop_all()
                self._start_some()
                self._kill_silent()
                for fd in self._wait(list(self._readers), self._timeout()):
                    if fd in self._readers:  # otherwise an earlier event has ended its worker
                        self._readers[fd]()
                for worker in [worker for worker in self._workers if not worker.signal_if_due()]:
                    self._ended(worker)
        finally:
            # Workers remain only if an exception such as KeyboardInterrupt interrupts the loop.
            for worker in self._workers:
                worker.stopped = True
                worker.close()
            for worker in self._workers:
                worker.reap()
        if self._errors:
            for error in self._errors[1:]:
                self._errors[0].add_note(f"and then: {error!r}")
            raise self._errors[0]
        return self._results

    def _stop_all(self) -> None:
        for worker in self._workers:
            worker.stopped = True
            worker.close()
        while self._pending:
            self._finish(None, self._pending.popleft().ended(Outcome.STOPPED))

    def _start_some(self) -> None:
        while self._pending and len(self._workers) < self._parallel:
            job = self._pending.popleft()
            try:
                worker = self._start_worker(job)
            except OSError as error:
                self._finish(None, job.ended(Outcome.HOST, f"its process cannot be started: {error}"))
                continue
            self._workers.append(worker)
            self._readers[worker.stdout.fileno()] = functools.partial(self._read, worker)
            self._readers[worker.stderr.fileno()] = functools.partial(self._read_errors, worker)

    def _timeout(self) -> float:
        """Return how long to wait for output of the workers, in seconds."""
        if not self._workers:
            return 0.0
        waits = [worker.due - time.monotonic() for worker in self._workers]
        if self._stop is not None:
            waits.append(STOP_SECONDS)
        return max(0.0, min(waits))

    def _kill_silent(self) -> None:
        """Kill workers that have reported nothing for too long: they would keep their namespaces locked."""
        for worker in self._workers:
            if worker.silent and not worker.over:
                worker.kill()
                reason = f"its process {worker.process.pid} reported nothing for {SILENCE_SECONDS:.0f} seconds"
                self._finish(worker, worker.job.ended(Outcome.HOST, reason))

    def _read_errors(self, worker: Worker) -> None:
        if not worker.read_stderr():
            del self._readers[worker.stderr.fileno()]

    def _read(self, worker: Worker) -> None:
        piece = os.read(worker.stdout.fileno(), _READ_BYTES)
        if not piece:
            self._ended(worker)
            return
        try:
            for event in worker.events(piece):
                self._handle(worker, event)
        except ProtocolError:
            if not worker.over:
                worker.kill()
                self._finish(worker, worker.job.ended(Outcome.HOST, "its process broke the protocol"))

    def _handle(self, worker: Worker, event: protocol.Event) -> None:
        job = worker.job
        match event:
            case _ if worker.over:
                pass
            case protocol.Progress(phase=phase, bytes=done):
                if self._call_recorder(worker, self._recorder.progress, job, phase, done) is False:
                    worker.kill()
                    self._finish(worker, job.ended(Outcome.STOPPED))
            case protocol.Failure(outcome=outcome, reason=reason):
                self._finish(worker, job.ended(outcome, reason))
            case _ if worker.stopped:
                # Too late: closing stdin releases the lock, and without the lock no wipe may be reported as done.
                pass
            case protocol.Ready():
                if self._call_recorder(worker, self._recorder.may_start, job):
                    worker.go()
                elif not worker.over:
                    self._finish(worker, job.ended(Outcome.STOPPED))
            case _:
                self._finish(worker, job.ended(job.success))

    def _ended(self, worker: Worker) -> None:
        self._workers.remove(worker)
        for stream in (worker.stdout, worker.stderr):
            self._readers.pop(stream.fileno(), None)
        worker.reap()
        if not worker.over:
            self._finish(worker, worker.result_of_exit())

    def _finish(self, worker: Worker | None, result: Result) -> None:
        """Record the result, and only then close the worker, which releases the lock."""
        self._results[result.uuid] = result
        if worker is not None:
            worker.over = True
        self._call_recorder(worker, self._recorder.finished, result)
        if worker is not None:
            worker.close()

    def _call_recorder(self, worker: Worker | None, call: Callable[..., bool | None], *values: object) -> bool | None:
        """Call the recorder. If it raises, kill this worker now, and raise the error again at the end of the run."""
        try:
            return call(*values)
        except Exception as error:  # noqa: BLE001 raised again at the end of the run
            self._errors.append(error)
            if worker is not None:
                worker.kill()
            return None
