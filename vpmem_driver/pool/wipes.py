"""Wipe namespaces, and record in the ledger what the engine reports.

A dirty namespace becomes clean, or claimed for the owner that reserved it, only after every byte was read back as zero.
A wipe overwrites the first byte only if the ledger still says dirty while the device is locked. The ledger then gives
the wipe a fencing token, and accepts progress and outcome only from the wipe with that token.
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

#: Interval of reading the ledger for the progress of another process's wipe.
_POLL_SECONDS = 0.2
#: After this time without progress the other process may have ended: try again. That starts a worker, perhaps as root.
_QUIET_SECONDS = 2.0
#: After this time without progress the wipe counts as failed: the lock may never be released.
STUCK_SECONDS = 15.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WipeProgress:
    """Progress of one wipe or copy: `done` of `size` bytes in `phase` (zero or copy, then verify)."""

    uuid: str
    name: str
    phase: str
    done: int
    size: int


OnProgress = Callable[[WipeProgress], None]

#: The verb for each phase in messages.
VERBS = {"zero": "wiping", "copy": "copying", "verify": "verifying"}


class ProgressLog:
    """Logs the progress of each wipe at every quarter."""

    def __init__(self) -> None:
        self._quarters: dict[tuple[str, str], int] = {}

    def __call__(self, event: WipeProgress) -> None:
        """Log the event if it reaches a new quarter."""
        quarter = 4 * event.done // event.size
        if quarter > self._quarters.get((event.uuid, event.phase), 0):
            self._quarters[event.uuid, event.phase] = quarter
            LOG.info("%s %s: %d %%", VERBS[event.phase], event.name, 25 * quarter)


Find = Callable[[str], model.Namespace]


class Wiper:
    """Wipes dirty namespaces of one ledger. Wipers in any number of threads and processes may run at once."""

    def __init__(self, ledger: Ledger, engine: Engine, find: Find, domains: Domains) -> None:
        """`find` returns the current device of a namespace: :meth:`vpmem_driver.discovery.interface.Discovery.find`."""
        self._ledger = ledger
        self.engine = engine
        self._find = find
        self.domains = domains

    def wipe(
        self, uuids: Iterable[str], *, on_progress: OnProgress | None = None, stop: threading.Event | None = None
    ) -> list[Result]:
        """Wipe the dirty namespaces among `uuids`; return when each is wiped, failed or refused.

        If another process is already wiping one, wait for that wipe.

        :raises UnknownNamespace: the ledger has no such namespace
        :raises LedgerError: the ledger could not be read or written
        """
        stop = stop or threading.Event()
        results: dict[str, Result] = {}
        pending = list(dict.fromkeys(uuids))
        others = _OtherWipes(self._ledger)
        while pending:
            rows = self._dirty(pending, results)
            jobs = [self._job(row) for row in rows]
            recorder = _LedgerRecorder(self._ledger, self._find, self.domains, on_progress, rows)
            ended = self.engine.run(jobs, recorder, stop) | recorder.refused
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
        start = row.wiped if self.engine.resumes else 0
        return Job(uuid=row.uuid, name=row.name or row.uuid, size=row.size, start=start)

    def users_of(self, devices: Collection[str]) -> dict[str, str]:
        """Return a user of each of `devices` (paths) that a running domain or a process uses, by path.

        Processes that this user may not inspect are not found.

        :raises LibvirtError: libvirt does not answer
        """
        return device_users.users_of(devices) | self.domains.users_of(devices)

    def _dirty(self, uuids: list[str], results: dict[str, Result]) -> list[Row]:
        """Return the rows that are still dirty, and add a result for each other one to `results`."""
        dirty = []
        for uuid in uuids:
            row = self._ledger.row(uuid)
            if row is None:
                raise exception.UnknownNamespace(namespace=uuid)
            if row.state is model.State.DIRTY:
                dirty.append(row)
            else:
                results[uuid] = _result_of_not_dirty(row)
        return dirty

    def _explain_stuck(self, result: Result) -> None:
        row = self._ledger.row(result.uuid)
        if row is not None:
            self._ledger.explain(row, None, result.reason)


def _result_of_not_dirty(row: Row) -> Result:
    """Return the result for a namespace that another process has wiped, quarantined or returned to unknown."""
    outcome, reason = {
        model.State.QUARANTINED: (Outcome.MEDIA, row.reason or ""),
        model.State.UNKNOWN: (Outcome.STOPPED, "its claim or wipe was cancelled"),
    }.get(row.state, (Outcome.WIPED, ""))
    return Result(uuid=row.uuid, name=row.name or row.uuid, outcome=outcome, reason=reason)


class _OtherWipes:
    """Waits for wipes of other processes while they make progress.

    :ivar stuck: uuids of locked namespaces without progress in the ledger for STUCK_SECONDS
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._last: dict[str, tuple[object, float]] = {}  # progress, and when it was first read
        self.stuck: set[str] = set()

    def wait(self, uuids: list[str], stop: threading.Event) -> None:
        """Return when one is no longer dirty, when none makes progress, when one is stuck, or on `stop`."""
        begun = time.monotonic()
        while True:
            quiet = [self._quiet_seconds(uuid) for uuid in uuids]
            if math.inf in quiet:
                return
            self.stuck |= {uuid for uuid, seconds in zip(uuids, quiet, strict=True) if seconds >= STUCK_SECONDS}
            waited = time.monotonic() - begun >= _QUIET_SECONDS
            if self.stuck.intersection(uuids) or (waited and min(quiet) >= _QUIET_SECONDS):
                return
            if stop.wait(_POLL_SECONDS):
                return

    def _quiet_seconds(self, uuid: str) -> float:
        """Return the time since the last progress of its wipe; infinite if it is no longer dirty."""
        row = self._ledger.row(uuid)
        if row is None or row.state is not model.State.DIRTY:
            self._last.pop(uuid, None)
            return math.inf
        progress = (row.run, row.wiped, row.verified)
        if uuid not in self._last or self._last[uuid][0] != progress:
            self._last[uuid] = (progress, time.monotonic())
        return time.monotonic() - self._last[uuid][1]


class _LedgerRecorder:
    """Records in the ledger what the engine reports, while the worker holds the lock on the device.

    Every record requires the fencing token of the wipe. The lock alone proves nothing: a worker that died no longer
    holds it, and its last report may arrive after others have wiped and used the namespace.

    :ivar refused: results of the wipes that were not allowed to start, by uuid
    :ivar overtaken: uuids of the wipes that another process has overtaken; their rows must be read again
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
            # A namespace without a last owner may contain the data of a domain that is shut off: check those too.
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
        elif result.outcome is Outcome.LOST and run is not None:
            # Somebody has written to what an earlier wipe has zeroed: begin again.
            self._ledger.progress(result.uuid, run, wiped=0, verified=0)
            self.overtaken.append(result.uuid)
        elif result.reason and result.outcome is not Outcome.BUSY:
            if run is not None and result.outcome is Outcome.IN_USE:
                self._ledger.progress(result.uuid, run, wiped=0, verified=0)  # who uses it may have written to it
            self._ledger.explain(self._rows[result.uuid], run, result.reason)

    def _settle(self, result: Result, run: str | None) -> bool:
        """Record the end of a wipe. :returns: False if `run` is no longer the token of the namespace's wipe."""
        with self._ledger.transaction():
            row = self._ledger.row(result.uuid)
            if row is None or run is None or row.run != run:
                return False
            if result.outcome is Outcome.MEDIA:
                reserved = [other for other in reservations.members(self._ledger, row) if other.uuid != row.uuid]
                self._ledger.move(row, model.State.QUARANTINED, f"wipe failed: {result.reason}", reason=result.reason)
                if row.reservation is not None:
                    reservations.cancel(self._ledger, reserved, f"claim cancelled: the wipe of {row.name} failed")
            elif row.reservation is not None:
                reservations.claim_when_complete(self._ledger, row)
            else:
                self._ledger.move(row, model.State.CLEAN, "wiped")
        return True


def raise_for(results: Iterable[Result]) -> None:
    """Raise an error for the namespaces that are not wiped; return if all are wiped.

    :raises WipeFailed: some are now quarantined
    :raises NamespaceInUse: some were not wiped because a domain or process uses them
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
            remedy="No other owner gets it before it is wiped; 'vpmem wipe' resumes",
        )
