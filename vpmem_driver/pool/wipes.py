"""Wipes namespaces, and records in the ledger what the engine reports.

A dirty namespace becomes clean, or claimed for the owner that reserved it, only after every byte was read back as zero.
A wipe overwrites the first byte only if the ledger, asked while the device is locked, still says dirty. The ledger then
gives the wipe a fencing token, and accepts progress and outcome only from the wipe with that token.
"""

import dataclasses
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable

from vpmem_driver import device_users, exception, model
from vpmem_driver.engine import Engine, Job, Outcome, Result
from vpmem_driver.ledger import Ledger, Row
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import reservations

LOG = logging.getLogger(__name__)

#: How often to look in the ledger for the progress of another process's wipe.
_LOOK_SECONDS = 0.2
#: After this time without progress the other process may be gone: try again. That starts a process, perhaps as root.
_QUIET_SECONDS = 2.0
#: After this time without progress the namespace counts as failed: whoever holds its lock may hold it for ever.
STUCK_SECONDS = 15.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WipeProgress:
    """How far the wipe of one namespace is: `done` of `size` bytes in `phase` (zero, then verify)."""

    uuid: str
    name: str
    phase: str
    done: int
    size: int


OnProgress = Callable[[WipeProgress], None]

#: A word for each phase.
VERBS = {"zero": "wiping", "verify": "checking"}


class ProgressLog:
    """Logs how far each wipe is, whenever it has got a quarter further."""

    def __init__(self) -> None:
        self._quarters: dict[tuple[str, str], int] = {}

    def __call__(self, event: WipeProgress) -> None:
        """Log it, if it is due."""
        quarter = 4 * event.done // event.size
        if quarter > self._quarters.get((event.uuid, event.phase), 0):
            self._quarters[event.uuid, event.phase] = quarter
            LOG.info("%s %s: %d %%", VERBS[event.phase], event.name, 25 * quarter)


Find = Callable[[str], model.Namespace]


class Wiper:
    """Wipes dirty namespaces of one ledger. Several may run at once, in any number of processes."""

    def __init__(self, ledger: Ledger, engine: Engine, find: Find, domains: Domains) -> None:
        """`find` is what tells where a namespace is now: :meth:`vpmem_driver.discovery.interface.Discovery.find`."""
        self._ledger = ledger
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
        others = _Others(self._ledger)
        while pending:
            rows = self._dirty(pending, results)
            jobs = [self._job(row) for row in rows]
            recorder = _LedgerRecorder(self._ledger, self._find, self._domains, on_progress, rows)
            ended = self._engine.run(jobs, recorder, stop) | recorder.refused
            results |= ended
            busy = [
                uuid for uuid, result in ended.items() if result.outcome is Outcome.BUSY and uuid not in others.stuck
            ]
            if busy and not recorder.overtaken:
                others.wait(busy, stop)
            pending = [] if stop.is_set() else busy + recorder.overtaken
        for uuid in others.stuck:
            if results[uuid].outcome is Outcome.BUSY:
                self._explain_stuck(results[uuid])
        return list(results.values())

    def _job(self, row: Row) -> Job:
        start = row.wiped if self._engine.resumes else 0
        return Job(uuid=row.uuid, name=row.name or row.uuid, size=row.size, start=start)

    def users_of(self, devices: Collection[str]) -> dict[str, str]:
        """Which of these device paths a running guest or, as far as this user may see, a process uses, and who.

        :raises LibvirtError: libvirt does not answer
        """
        return device_users.users_of(devices) | self._domains.users_of(devices)

    def _dirty(self, uuids: list[str], results: dict[str, Result]) -> list[Row]:
        """The rows that are still dirty; another process has dealt with the others."""
        dirty = []
        for uuid in uuids:
            row = self._ledger.row(uuid)
            if row is None:
                raise exception.UnknownNamespace(namespace=uuid)
            if row.state is model.State.DIRTY:
                dirty.append(row)
            else:
                results[uuid] = _settled(row)
        return dirty

    def _explain_stuck(self, result: Result) -> None:
        row = self._ledger.row(result.uuid)
        if row is not None:
            self._ledger.explain(row, None, result.reason)


def _settled(row: Row) -> Result:
    """The result for a namespace that is not dirty."""
    outcome, reason = {
        model.State.QUARANTINED: (Outcome.MEDIA, row.reason or ""),
        model.State.UNKNOWN: (Outcome.STOPPED, "its claim or wipe was called off"),
    }.get(row.state, (Outcome.WIPED, ""))
    return Result(uuid=row.uuid, name=row.name or row.uuid, outcome=outcome, reason=reason)


class _Others:
    """Waits for wipes of other processes, as long as they make progress.

    :ivar stuck: the namespaces whose lock is held without progress in the ledger for STUCK_SECONDS
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._last: dict[str, tuple[object, float]] = {}  # progress, and when it was first seen
        self.stuck: set[str] = set()

    def wait(self, uuids: list[str], stop: threading.Event) -> None:
        """Return when one is no longer dirty, when all are quiet, when one is stuck, or on `stop`."""
        begun = time.monotonic()
        while True:
            quiet = [self._quiet_seconds(uuid) for uuid in uuids]
            if math.inf in quiet:
                return
            self.stuck |= {uuid for uuid, seconds in zip(uuids, quiet, strict=True) if seconds >= STUCK_SECONDS}
            rested = time.monotonic() - begun >= _QUIET_SECONDS
            if self.stuck.intersection(uuids) or (rested and min(quiet) >= _QUIET_SECONDS):
                return
            if stop.wait(_LOOK_SECONDS):
                return

    def _quiet_seconds(self, uuid: str) -> float:
        """How long its wipe has made no progress; infinite when it is no longer dirty."""
        row = self._ledger.row(uuid)
        if row is None or row.state is not model.State.DIRTY:
            self._last.pop(uuid, None)
            return math.inf
        progress = (row.run, row.wiped, row.verified)
        if uuid not in self._last or self._last[uuid][0] != progress:
            self._last[uuid] = (progress, time.monotonic())
        return time.monotonic() - self._last[uuid][1]


class _LedgerRecorder:
    """Records in the ledger what the engine reports, while the engine holds the lock on the device.

    Every record presents the fencing token of the wipe: the lock is no proof, because a child that has died no longer
    holds it, and what it said last may reach this process after others have wiped and used the namespace.

    :ivar refused: results by uuid of the wipes that were not allowed to start
    :ivar overtaken: uuids of the wipes that another process has overtaken; to be looked at again
    """

    def __init__(
        self,
        ledger: Ledger,
        find: Find,
        domains: Domains,
        on_progress: OnProgress | None,
        rows: Iterable[Row],
    ) -> None:
        self._ledger = ledger
        self._find = find
        self._domains = domains
        self._on_progress = on_progress
        self._rows = {row.uuid: row for row in rows}
        self._runs: dict[str, str] = {}
        self.refused: dict[str, Result] = {}
        self.overtaken: list[str] = []

    def may_start(self, job: Job) -> bool:
        row = self._ledger.row(job.uuid)
        if row is None:
            raise exception.UnknownNamespace(namespace=job.uuid)
        try:
            # What this ledger never gave to anybody may be all that a domain has, though it is shut off now.
            user = self._domains.user_of(self._find(job.uuid).device or "", defined=row.last_owner is None)
        except exception.HostError as error:
            return self._refuse(job, row, Outcome.HOST, str(error))
        if user is not None:
            return self._refuse(job, row, Outcome.IN_USE, user)
        run = self._ledger.begin_wipe(job.uuid, self._rows[job.uuid].wiped, start=job.start)
        if run is None:
            self.overtaken.append(job.uuid)
            return False
        self._runs[job.uuid] = run
        return True

    def _refuse(self, job: Job, row: Row, outcome: Outcome, reason: str) -> bool:
        self.refused[job.uuid] = job.ended(outcome, reason)
        self._ledger.explain(row, None, reason)
        return False

    def progress(self, job: Job, phase: str, done: int) -> bool:
        run = self._runs[job.uuid]
        recorded = (
            self._ledger.progress(job.uuid, run, wiped=done)
            if phase == "zero"
            else self._ledger.progress(job.uuid, run, verified=done)
        )
        if not recorded:
            self.overtaken.append(job.uuid)
        elif self._on_progress is not None:
            self._on_progress(WipeProgress(uuid=job.uuid, name=job.name, phase=phase, done=done, size=job.size))
        return recorded

    def finished(self, result: Result) -> None:
        if result.uuid in self.refused or result.uuid in self.overtaken:
            return
        run = self._runs.get(result.uuid)
        if result.outcome in {Outcome.WIPED, Outcome.MEDIA}:
            if not self._settle(result, run):
                self.overtaken.append(result.uuid)
        elif result.reason and result.outcome is not Outcome.BUSY:
            self._ledger.explain(self._rows[result.uuid], run, result.reason)

    def _settle(self, result: Result, run: str | None) -> bool:
        """Record the end of a wipe. :returns: False when `run` is no longer the namespace's wipe."""
        with self._ledger.transaction():
            row = self._ledger.row(result.uuid)
            if row is None or run is None or row.run != run:
                return False
            if result.outcome is Outcome.MEDIA:
                reserved = [other for other in reservations.members(self._ledger, row) if other.uuid != row.uuid]
                self._ledger.move(row, model.State.QUARANTINED, f"wipe failed: {result.reason}", reason=result.reason)
                if row.reservation is not None:
                    reservations.cancel(self._ledger, reserved, f"claim called off: the wipe of {row.name} failed")
            elif row.reservation is not None:
                reservations.claim_when_complete(self._ledger, row)
            else:
                self._ledger.move(row, model.State.CLEAN, "wiped")
        return True


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
            remedy="Nobody gets it before it is wiped; 'vpmem wipe' resumes.",
        )
