"""Record in the ledger what workers report of a copy, and decide whether one may start (:mod:`.copies`)."""

from collections.abc import Callable

from vpmem_driver import exception
from vpmem_driver.engine import Job, Outcome, Result
from vpmem_driver.ledger import Row
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import State
from vpmem_driver.pool.state import PoolState
from vpmem_driver.pool.wipes import OnProgress, WipeProgress

#: Called with the next byte that a destination needs, when its worker has locked it.
OnReady = Callable[[int], None]


class Records:
    """What all recorders of a host need of its ledger and domains."""

    def __init__(self, state: PoolState, domains: Domains) -> None:
        self._state = state
        self._domains = domains
        self.ledger = state.ledger

    def user_of(self, row: Row) -> str | None:
        """Describe the domain that uses a namespace, running or, if its data has no last owner, defined."""
        device = self._state.discovery.find(row.uuid).device or ""
        unclaimed = row.state is not State.CLAIMED and row.last_owner is None
        return self._domains.user_of(device, defined=unclaimed)

    def refusal(self, job: Job, is_wanted: Callable[[Row], bool], otherwise: str) -> Result | None:
        """Return why a worker must not read a namespace; None if it may.

        :param otherwise: the reason if the namespace is not wanted any more
        """
        row = self.ledger.row(job.uuid)
        if row is None or not is_wanted(row):
            return job.ended(Outcome.STOPPED, otherwise)
        try:
            user = self.user_of(row)
        except exception.HostError as error:
            return job.ended(Outcome.HOST, str(error).rstrip("."))
        return None if user is None else job.ended(Outcome.IN_USE, user)

    def settle(self, row: Row, state: State, why: str, *, reason: str | None = None) -> None:
        """Record the end of a copy to `row`, inside a transaction."""
        if state is State.CLAIMED:
            self._state.move(row, state, why, owner=row.owner, position=row.position, arrival=row.arrival)
        else:
            self._state.move(row, state, why, reason=reason)


class Arrival:
    """Records a copy to a namespace of this host. Every record requires the fencing token of this run."""

    def __init__(
        self,
        records: Records,
        row: Row,
        arrival: str,
        on_progress: OnProgress,
        on_ready: OnReady = lambda _start: None,
        *,
        source: Row | None = None,
    ) -> None:
        self._records = records
        self._row = row
        self.arrival = arrival
        self._on_progress = on_progress
        self._on_ready = on_ready
        self._source = source
        self._run: str | None = None
        self._verifies = False
        self.refusal: Result | None = None

    def may_start(self, job: Job) -> bool:
        """See :class:`vpmem_driver.engine.job.Recorder`."""
        row = self._records.ledger.row(job.uuid)
        if row is None:
            raise exception.UnknownNamespace(namespace=job.uuid)
        try:
            user = self._records.user_of(row) or (self._source and self._records.user_of(self._source))
        except exception.HostError as error:
            return self._refuse(job, Outcome.HOST, str(error).rstrip("."))
        if user:
            return self._refuse(job, Outcome.IN_USE, user)
        if self._source is not None:
            source = self._records.ledger.row(self._source.uuid)
            if source is None or source.departure != self.arrival:
                return self._refuse(job, Outcome.STOPPED, "its source is no longer to be copied")
        self._run = self._records.ledger.begin_copy(job.uuid, self.arrival, job.start)
        if self._run is None:
            return self._refuse(job, Outcome.STOPPED, "another process receives it, or the copy was abandoned")
        self._on_ready(job.start)
        return True

    def _refuse(self, job: Job, outcome: Outcome, reason: str) -> bool:
        self.refusal = job.ended(outcome, reason)
        return False

    def progress(self, job: Job, phase: str, done: int) -> bool:
        """See :class:`vpmem_driver.engine.job.Recorder`."""
        assert self._run is not None  # noqa: S101  the worker has begun
        self._verifies = phase == "verify"
        recorded = (
            self._records.ledger.progress(job.uuid, self._run, verified=done)
            if self._verifies
            else self._records.ledger.progress(job.uuid, self._run, copied=done)
        )
        if not recorded:
            self.refusal = job.ended(Outcome.STOPPED, "it was released, or another process receives it")
            return False
        if self._source is not None and not self._verifies:
            self._records.ledger.departed(self._source.uuid, self.arrival, done)
        self._on_progress(WipeProgress(uuid=job.uuid, name=job.name, phase=phase, done=done, size=job.size))
        return True

    def finished(self, result: Result) -> None:
        """See :class:`vpmem_driver.engine.job.Recorder`."""
        if self._run is None or self.refusal is not None:
            return
        with self._records.ledger.transaction():
            row = self._records.ledger.row(result.uuid)
            if row is None or row.run != self._run:
                self.refusal = Result(
                    uuid=result.uuid, name=result.name, outcome=Outcome.STOPPED, reason="it was released"
                )
            elif result.outcome is Outcome.COPIED:
                self._records.settle(row, State.CLAIMED, f"received by copy {self.arrival}")
            elif result.outcome is Outcome.MEDIA:
                self._records.settle(row, State.QUARANTINED, f"copy failed: {result.reason}", reason=result.reason)
        # What an earlier run received is not the content, or who uses it now may have written to it.
        if (result.outcome is Outcome.LOST and self._verifies) or result.outcome is Outcome.IN_USE:
            self._records.ledger.progress(result.uuid, self._run, copied=0, verified=0)
        if result.outcome not in {Outcome.COPIED, Outcome.MEDIA} and result.reason:
            self._records.ledger.explain(self._row, self._run, result.reason)


class Comparison:
    """Watches a worker that only reads what a copy has completed. Nothing is recorded."""

    def __init__(self, records: Records, arrival: str, on_progress: OnProgress, on_ready: OnReady) -> None:
        self._records = records
        self._arrival = arrival
        self._on_progress = on_progress
        self._on_ready = on_ready
        self._verifies = False
        #: whether all was read, and it is not what the source has
        self.differs = False
        self.refusal: Result | None = None

    def may_start(self, job: Job) -> bool:
        """See :class:`vpmem_driver.engine.job.Recorder`."""
        self.refusal = self._records.refusal(job, self._has_completed, "this copy has not completed it")
        if self.refusal is None:
            self._on_ready(job.start)
        return self.refusal is None

    def _has_completed(self, row: Row) -> bool:
        return row.state is State.CLAIMED and row.arrival == self._arrival

    def progress(self, job: Job, phase: str, done: int) -> bool:
        """See :class:`vpmem_driver.engine.job.Recorder`."""
        self._verifies = phase == "verify"
        self._on_progress(WipeProgress(uuid=job.uuid, name=job.name, phase=phase, done=done, size=job.size))
        return True

    def finished(self, result: Result) -> None:
        """See :class:`vpmem_driver.engine.job.Recorder`."""
        self.differs = self._verifies and result.outcome is Outcome.LOST


class Departure:
    """Watches a sender: its namespace must still depart with this copy, and no domain may run on it."""

    def __init__(
        self, records: Records, departure: str, is_wanted: Callable[[], bool], on_progress: OnProgress | None
    ) -> None:
        self._records = records
        self._departure = departure
        self._is_wanted = is_wanted
        self._on_progress = on_progress
        self.refusal: Result | None = None

    def may_start(self, job: Job) -> bool:
        """See :class:`vpmem_driver.engine.job.Recorder`."""
        self.refusal = self._records.refusal(job, self._departs, "it is no longer to be copied")
        return self.refusal is None

    def _departs(self, row: Row) -> bool:
        return row.departure == self._departure

    def progress(self, job: Job, phase: str, done: int) -> bool:
        """See :class:`vpmem_driver.engine.job.Recorder`."""
        if self._on_progress is not None:
            self._on_progress(WipeProgress(uuid=job.uuid, name=job.name, phase=phase, done=done, size=job.length))
        row = self._records.ledger.row(job.uuid)
        return row is not None and self._departs(row) and self._is_wanted()

    def finished(self, result: Result) -> None:
        """Do nothing: what counts is what the destination reports."""
