"""Wipes carried out and written down: the engine's events become the ledger's states.

A dirty namespace becomes clean, or its reserving owner's, only after the engine has seen every byte zero. The first
byte is overwritten only after the ledger, asked under the engine's lock on the device, still says dirty.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable

from vpmem_driver import exception, ledger, model
from vpmem_driver.domains import Domains
from vpmem_driver.wipe import Engine, Job, Outcome

LOG = logging.getLogger(__name__)

#: How often to look in the ledger how far another process is, which is wiping what is to be wiped here too.
_LOOK_SECONDS = 0.2
#: When it has got no further for so long, it may be gone: try again. That starts a process, as root perhaps.
_QUIET_SECONDS = 2.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the wipe of one namespace is: `done` of `size` bytes in `phase` (zero, then verify)."""

    uuid: str
    name: str
    phase: str
    done: int
    size: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How the wipe of one namespace ended. `reason` says why when it is not wiped."""

    uuid: str
    name: str
    outcome: Outcome
    reason: str = ""


OnProgress = Callable[[Progress], None]

#: What is being done in each phase, in words.
VERBS = {"zero": "wiping", "verify": "checking"}


class ProgressLog:
    """Logs how far each wipe is, whenever it has got a quarter further."""

    def __init__(self) -> None:
        self._quarters: dict[tuple[str, str], int] = {}

    def __call__(self, event: Progress) -> None:
        """Log it, if it is due."""
        quarter = 4 * event.done // event.size
        if quarter > self._quarters.get((event.uuid, event.phase), 0):
            self._quarters[event.uuid, event.phase] = quarter
            LOG.info("%s %s: %d %%", VERBS[event.phase], event.name, 25 * quarter)


Find = Callable[[str], model.Namespace]


class Wiper:
    """Wipes dirty namespaces of one ledger. Several may run at once, in any number of processes."""

    def __init__(self, records: ledger.Ledger, engine: Engine, find: Find, domains: Domains) -> None:
        """`find` is what tells where a namespace is now: :meth:`vpmem_driver.discovery.base.Discovery.find`."""
        self._ledger = records
        self._engine = engine
        self._find = find
        self._domains = domains

    def wipe(
        self, uuids: Iterable[str], *, on_progress: OnProgress | None = None, stop: threading.Event | None = None
    ) -> list[Result]:
        """Wipe those that are dirty; return when each is wiped, failed or refused.

        Where another process is at it already, wait for that one.

        :raises LedgerError: the ledger could not be read or written
        """
        stop = stop or threading.Event()
        results: dict[str, Result] = {}
        pending = list(dict.fromkeys(uuids))
        while pending:
            jobs = self._jobs(pending, results)
            watcher = _Watcher(self._ledger, self._find, self._domains, on_progress)
            outcomes = self._engine.run(jobs, watcher, stop) | watcher.refused
            busy, moved_on = [], []
            for job in jobs:
                outcome, reason = outcomes[job.uuid]
                results[job.uuid] = Result(uuid=job.uuid, name=job.name, outcome=outcome, reason=reason)
                if outcome is Outcome.BUSY:
                    busy.append(job.uuid)
                elif self._moved_on(job, outcome):
                    moved_on.append(job.uuid)
            if busy and not moved_on:
                self._wait_for_others(busy, stop)
            pending = [] if stop.is_set() else busy + moved_on
        return list(results.values())

    def _wait_for_others(self, uuids: list[str], stop: threading.Event) -> None:
        """Wait as long as others get further with wiping them: until one is done, or all are quiet."""
        before, since = None, time.monotonic()
        while not stop.wait(_LOOK_SECONDS):
            rows = [self._ledger.row(uuid) for uuid in uuids]
            states = [(row.state, row.wiped) for row in rows if row is not None]
            if any(state is not model.State.DIRTY for state, _ in states):
                return
            if states != before:
                before, since = states, time.monotonic()
            elif time.monotonic() - since >= _QUIET_SECONDS:
                return

    def _jobs(self, uuids: list[str], results: dict[str, Result]) -> list[Job]:
        """A job for each that is dirty still; the others were wiped by another process meanwhile."""
        jobs = []
        for uuid in uuids:
            row = self._ledger.row(uuid)
            if row is None:
                raise exception.UnknownNamespace(namespace=uuid)
            name = row.name or uuid
            if row.state is model.State.DIRTY:
                jobs.append(Job(uuid=uuid, name=name, size=row.size, start=row.wiped))
            elif row.state is model.State.QUARANTINED:
                results[uuid] = Result(uuid=uuid, name=name, outcome=Outcome.MEDIA, reason=row.reason or "")
            else:
                results[uuid] = Result(uuid=uuid, name=name, outcome=Outcome.WIPED)
        return jobs

    def _moved_on(self, job: Job, outcome: Outcome) -> bool:
        """Whether the wipe was called off because another process had got further with it."""
        row = self._ledger.row(job.uuid)
        return outcome is Outcome.STOPPED and row is not None and (row.state, row.wiped) != ("dirty", job.start)


class _Watcher:
    """Writes what the engine reports into the ledger, while the engine holds the lock on the device."""

    def __init__(self, records: ledger.Ledger, find: Find, domains: Domains, on_progress: OnProgress | None) -> None:
        self._ledger = records
        self._find = find
        self._domains = domains
        self._on_progress = on_progress
        self.refused: dict[str, tuple[Outcome, str]] = {}

    def may_start(self, job: Job) -> bool:
        row = self._ledger.row(job.uuid)
        # What this ledger never gave to anybody may be all that a domain has, though it is shut off now.
        foreign = row is not None and row.last_owner is None
        try:
            user = self._domains.user_of(self._find(job.uuid).device or "", defined=foreign)
        except exception.HostError as error:
            return self._refuse(job, Outcome.HOST, str(error))
        if user is not None:
            return self._refuse(job, Outcome.IN_USE, user)
        return self._ledger.begin_wipe(job.uuid, job.start)

    def _refuse(self, job: Job, outcome: Outcome, reason: str) -> bool:
        self.refused[job.uuid] = (outcome, reason)
        self._ledger.explain(job.uuid, reason)
        return False

    def progress(self, job: Job, phase: str, done: int) -> None:
        if phase == "zero":
            self._ledger.progress(job.uuid, done)
        if self._on_progress is not None:
            self._on_progress(Progress(uuid=job.uuid, name=job.name, phase=phase, done=done, size=job.size))

    def finished(self, job: Job, outcome: Outcome, reason: str) -> None:
        if outcome is Outcome.WIPED:
            self._move(job, None)
        elif outcome is Outcome.MEDIA:
            self._move(job, reason)
        elif reason:
            self._ledger.explain(job.uuid, reason)

    def _move(self, job: Job, failure: str | None) -> None:
        with self._ledger.transaction():
            row = self._ledger.row(job.uuid)
            if row is None or row.state is not model.State.DIRTY:
                return
            if failure is not None:
                self._ledger.move(row, model.State.QUARANTINED, f"wipe failed: {failure}", reason=failure)
            elif row.owner is not None:
                self._ledger.move(
                    row, model.State.CLAIMED, "wiped for its owner", owner=row.owner, position=row.position
                )
            else:
                self._ledger.move(row, model.State.CLEAN, "wiped")


def raise_for(results: Iterable[Result]) -> None:
    """Raise what the results amount to; return when all are wiped.

    :raises WipeFailed: some are quarantined now
    :raises NamespaceInUse: some were left alone, because a guest or process has them
    :raises HostToolError: some could not be wiped on this host, or the wipe was stopped
    """
    left = [result for result in results if result.outcome is not Outcome.WIPED]
    failed = [result for result in left if result.outcome is Outcome.MEDIA]
    if failed:
        raise exception.WipeFailed(failures="; ".join(f"{result.name} ({result.reason})" for result in failed))
    for result in left:
        if result.outcome is Outcome.IN_USE:
            raise exception.NamespaceInUse(namespace=result.name, user=result.reason)
        raise exception.HostToolError(
            what=f"Wiping namespace {result.name}",
            reason=result.reason or "it was stopped",
            remedy="It stays dirty, and nobody's; 'vpmem wipe' goes on where it was.",
        )
