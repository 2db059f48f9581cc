"""Copies of namespaces: record in the ledger what arrives and what departs, and run the workers that copy.

A copy has an id, which its source and its destination share. The destination is receiving until every byte was read
back as that of the source, and is then claimed for the owner. The source stays claimed, and its departure keeps its
guest from starting, until the front end releases the source or ends the departure. So at every moment at least one of
them has all of the content, claimed for its owner.
"""

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence

from vpmem_driver import exception, layout, model
from vpmem_driver.engine import CopyJob, Engine, Job, Outcome, ReceiveJob, Result, SendJob
from vpmem_driver.ledger import Row
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import State
from vpmem_driver.pool import copy_recorders, requests
from vpmem_driver.pool.copy_recorders import OnReady
from vpmem_driver.pool.state import PoolState, names
from vpmem_driver.pool.table import Table
from vpmem_driver.pool.wipes import OnProgress

LOG = logging.getLogger(__name__)


#: The ids of departures that end with their process begin with it, and no others.
_HELD = "held-"


def ends_with_its_process(departure: str) -> bool:
    """Whether it is a departure of :meth:`Copies.hold_still`."""
    return departure.startswith(_HELD)


class Copies:
    """The copies of one host, to and from it."""

    def __init__(self, state: PoolState, engine: Engine, domains: Domains) -> None:
        self._state = state
        self._engine = engine
        self._records = copy_recorders.Records(state, domains)

    # The destination

    def expect_labels(self, owner: str, arrival: str, sources: Sequence[model.Grant]) -> list[Row]:
        """Reserve a namespace for the content of each of `sources`, by its label, for copy `arrival`.

        If they are already reserved for this copy, or received, they are returned again.

        :raises InvalidRequest: `owner` is not a uuid, or a label is not configured here
        :raises NotOwner: the owner holds other namespaces here; nothing was changed
        :raises InsufficientNamespaces: not enough free namespaces are large enough; nothing was changed
        """
        owner = requests.owner(owner)
        label_ids = requests.label_ids(self._state.config, [source.label or "" for source in sources])
        self._prepare(sources)
        with self._state.change() as table:
            held = self._state.ledger.held(owner)
            if held:
                _require_arrival(owner, arrival, held, sources)
                return held
            rows = self._expect(owner, arrival, self._choose(table, label_ids, sources), sources)
            table.follow(rows)
        LOG.info("%s: copy %s is expected in %s", owner, arrival, names(rows))
        return rows

    def preview_labels(self, owner: str, arrival: str, sources: Sequence[model.Grant]) -> list[Row]:
        """Return what :meth:`expect_labels` would reserve now, and change nothing. Raises the same errors."""
        owner = requests.owner(owner)
        label_ids = requests.label_ids(self._state.config, [source.label or "" for source in sources])
        held = self._state.ledger.held(owner)
        if held:
            _require_arrival(owner, arrival, held, sources)
            return held
        self._prepare(sources)
        with self._state.read() as table:
            return self._choose(table, label_ids, sources)

    def _prepare(self, sources: Sequence[model.Grant]) -> None:
        if any(source.hardware.device_model is model.DeviceModel.VIRTIO_PMEM for source in sources):
            self._state.hardware.prepare(self._state.view.modes)

    def _choose(self, table: Table, label_ids: list[int], sources: Sequence[model.Grant]) -> list[Row]:
        small = {
            row.uuid
            for row in self._state.ledger.rows()
            for label, source in zip(label_ids, sources, strict=True)
            if self._state.view.label_of.get(row.uuid) == label and not fits(source, row)
        }
        chosen = table.choose(label_ids, None, small)
        if chosen is None:
            raise exception.InsufficientNamespaces(
                request=",".join(source.label or "" for source in sources),
                shortage=", ".join(
                    f"{self._state.config.labels[label]}: {wanted} wanted, {free} free and large enough"
                    for label, (wanted, free) in table.shortage(label_ids, small).items()
                )
                or "those that are free are too small",
            )
        rows = [self._state.row(uuid) for uuid in chosen]
        for row, source in zip(rows, sources, strict=True):
            self._state.hardware.require_possible(row, source.hardware)
        return rows

    def expect_exact(self, owner: str, arrival: str, uuids: Sequence[str], sources: Sequence[model.Grant]) -> list[Row]:
        """Reserve exactly `uuids` for the content of `sources`, in this order, for copy `arrival`.

        :raises InvalidRequest: `owner` is not a uuid
        :raises UnknownNamespace: the ledger has no such namespace
        :raises NamespaceUnavailable: one is not free; nothing was changed
        :raises DoesNotFit: one is too small; nothing was changed
        """
        owner = requests.owner(owner)
        self._prepare(sources)
        with self._state.change() as table:
            rows = [self._state.row(uuid) for uuid in uuids]
            for row, source in zip(rows, sources, strict=True):
                if row.owner != owner or row.arrival != arrival:
                    _require_free(owner, row, usable=row.uuid in self._state.view.usable)
                    self._state.hardware.require_possible(row, source.hardware)
                require_fit(source, row)
            free = [(row, source) for row, source in zip(rows, sources, strict=True) if row.owner is None]
            made = self._expect(owner, arrival, [row for row, _ in free], [source for _, source in free])
            new = {row.uuid: row for row in made}
            table.follow(new.values())
        LOG.info("%s: copy %s is expected in %s", owner, arrival, names(rows))
        return [new.get(row.uuid, row) for row in rows]

    def _expect(self, owner: str, arrival: str, rows: Sequence[Row], sources: Sequence[model.Grant]) -> list[Row]:
        """Reserve `rows`. The guest's devices stay what they are at `sources`."""
        if rows:
            self._state.require_in_service()
        first = self._state.ledger.next_position(owner)
        return [
            self._state.move(
                row,
                State.RECEIVING,
                f"expects copy {arrival}",
                owner=owner,
                position=position,
                arrival=arrival,
                hardware=source.hardware,
            )
            for position, (row, source) in enumerate(zip(rows, sources, strict=True), start=first)
        ]

    def receive(
        self,
        arrival: str,
        uuid: str,
        fd: int,
        *,
        on_ready: OnReady,
        on_progress: OnProgress,
        stop: threading.Event | None = None,
    ) -> None:
        """Fill a receiving namespace from the stream `fd`, and claim it for its owner.

        :param on_ready: called when the namespace is locked; the stream must begin after that
        :raises CopyFailed: it is not complete. Unless it is quarantined, what is durable is kept for the next call
        :raises NamespaceInUse: a domain or a process uses it. If that began during the copy, the next one begins at the
            first byte; otherwise nothing was changed
        :raises UnknownNamespace: the ledger has no such namespace
        """
        row = self._state.row(uuid)
        job = ReceiveJob(uuid=uuid, name=row.name or uuid, size=row.size, start=row.copied, fd=fd)
        self._fill(job, copy_recorders.Arrival(self._records, row, arrival, on_progress, on_ready), stop)

    def compare(
        self,
        arrival: str,
        uuid: str,
        fd: int,
        *,
        on_ready: OnReady,
        on_progress: OnProgress,
        stop: threading.Event | None = None,
    ) -> None:
        """Compare a namespace that copy `arrival` has completed with the stream `fd` of its source. Nothing is changed.

        :param on_ready: called when the namespace is locked; the stream must begin after that
        :raises CopyFailed: it was not compared, or differs
        :raises NamespaceInUse: a domain or a process uses it
        :raises UnknownNamespace: the ledger has no such namespace
        """
        row = self._state.row(uuid)
        recorder = copy_recorders.Comparison(self._records, arrival, on_progress, on_ready)
        # It has all bytes: of those, the stream has only digests.
        job = ReceiveJob(uuid=uuid, name=row.name or uuid, size=row.size, start=row.size, fd=fd)
        result = self._engine.run([job], recorder, stop)[uuid]
        if result.outcome is not Outcome.COPIED or recorder.refusal is not None:
            raise _failure(recorder.refusal or result, differs=recorder.differs)

    def copy(
        self,
        copy: str,
        source: str,
        uuid: str,
        *,
        on_progress: OnProgress,
        stop: threading.Event | None = None,
    ) -> None:
        """Fill a receiving namespace with the content of namespace `source` of this host; see :meth:`receive`.

        :raises CopyFailed: see :meth:`receive`
        """
        origin, row = self._state.row(source), self._state.row(uuid)
        job = CopyJob(
            uuid=uuid,
            name=row.name or uuid,
            size=row.size,
            start=row.copied,
            source=source,
            source_size=origin.size,
            parts=require_fit(self._state.view.grant(origin), row),
        )
        self._fill(job, copy_recorders.Arrival(self._records, row, copy, on_progress, source=origin), stop)

    def _fill(self, job: Job, recorder: copy_recorders.Arrival, stop: threading.Event | None) -> None:
        row = self._state.row(job.uuid)
        if row.state is State.CLAIMED and row.arrival == recorder.arrival:
            return
        result = self._engine.run([job], recorder, stop)[job.uuid]
        if result.outcome is not Outcome.COPIED or recorder.refusal is not None:
            raise _failure(recorder.refusal or result)
        LOG.info("%s received %s", row.owner, names([row]))

    def abandon(self, owner: str, arrival: str) -> None:
        """Give up what copy `arrival` has brought or should bring to `owner` here. It is dirty and unowned after that.

        :raises InvalidRequest: `owner` is not a uuid
        """
        owner = requests.owner(owner)
        with self._state.change() as table:
            rows = [row for row in self._state.ledger.held(owner) if row.arrival == arrival]
            table.follow([return_receiving(self._state, row, f"copy {arrival} abandoned") for row in rows])
        if rows:
            LOG.info("%s: copy %s is abandoned; released %s", owner, arrival, names(rows))

    # The source

    def depart(self, owner: str, departure: str, uuids: Sequence[str] | None = None) -> list[Row]:
        """Record that copy `departure` takes the content of what `owner` holds (or only `uuids`) away.

        From now on no guest of it may start here, until :meth:`stay` or a release.

        :returns: the rows, in the order of the owner's devices
        :raises InvalidRequest: `owner` is not a uuid
        :raises NotOwner: `owner` does not hold them; nothing was changed
        :raises NamespaceUnavailable: one is not complete, or departs with another copy; nothing was changed
        """
        owner = requests.owner(owner)
        with self._state.change():
            held = self._state.ledger.held(owner)
            rows = [row for row in held if uuids is None or row.uuid in uuids]
            missing = set(uuids or ()) - {row.uuid for row in rows}
            if not rows or missing:
                what = ", ".join(sorted(missing)) or "any namespace"
                raise exception.NotOwner(owner=owner, namespace=what, reason="the ledger does not record it")
            for row in rows:
                _require_departable(owner, departure, row)
            return [self._state.ledger.depart(row, departure) if row.departure is None else row for row in rows]

    def alone(self, owner: str) -> contextlib.AbstractContextManager[None]:
        """Keep other processes from moving what `owner` holds, or from ending that, during the body.

        :raises DomainRefused: another process does one of these
        :raises LedgerError: see :class:`.ledger.Ledger`
        """
        return self._state.ledger.alone(owner)

    def stay(self, owner: str) -> None:
        """End all departures of `owner`: its content stays here, and its guest may start again."""
        owner = requests.owner(owner)
        if any(row.departure is not None for row in self._state.ledger.held(owner)):
            with self._state.change():
                rows = [row for row in self._state.ledger.held(owner) if row.departure is not None]
                for row in rows:
                    self._state.ledger.depart(row, None)
            LOG.info("%s keeps %s here", owner, names(rows))

    @contextlib.contextmanager
    def hold_still(self, owner: str, uuids: Sequence[str] | None = None) -> Iterator[str]:
        """Have no guest of `owner` start on what it holds (or only `uuids`) during the body, which reads it.

        Unlike a departure of :meth:`depart`, this one ends with the process.

        :yields: the id of the departure, for :meth:`send`
        :raises VPMEMError: see :meth:`depart`
        :raises CopyFailed: it was released meanwhile
        :raises NamespaceInUse: a domain uses it all the same
        """
        departure = f"{_HELD}{secrets.token_hex(8)}"
        with self._state.ledger.hold(departure):
            try:
                rows = self.depart(owner, departure, uuids)
                yield departure
                for row in rows:
                    self.require_still(departure, row)
            finally:
                self._end(departure)

    def require_still(self, departure: str, row: Row) -> None:
        """Verify that a namespace still departs with this copy, and that no domain runs on it.

        :raises CopyFailed: it was released
        :raises NamespaceInUse: a domain runs on it
        """
        now = self._state.row(row.uuid)
        if now.departure != departure:
            raise _failure(
                Result(uuid=row.uuid, name=row.name or row.uuid, outcome=Outcome.STOPPED, reason="it was released")
            )
        if (user := self._records.user_of(now)) is not None:
            raise exception.NamespaceInUse(namespace=row.name or row.uuid, user=user)

    def end_stale(self) -> None:
        """End the departures of :meth:`hold_still` whose process has died."""
        for departure in self._state.ledger.stale_departures():
            self._end(departure)
            LOG.warning("Copy %s was interrupted; its namespaces may be used again", departure)

    def _end(self, departure: str) -> None:
        with self._state.change():
            for row in self._state.ledger.departing():
                if row.departure == departure:
                    self._state.ledger.depart(row, None)
        self._state.ledger.forget_departure(departure)

    def send(
        self,
        departure: str,
        uuid: str,
        fd: int,
        *,
        destination: model.Grant,
        start: int,
        pack: bool,
        is_wanted: Callable[[], bool] = lambda: True,
        on_progress: OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Write the content of a departing namespace into the stream `fd`.

        :param destination: the namespace that receives it
        :param start: bytes from its start that it already has
        :param is_wanted: called now and then; False stops the sender
        :param on_progress: called with what was written
        :raises CopyFailed: not everything was written
        :raises DoesNotFit: the destination is too small
        """
        row = self._state.row(uuid)
        parts = _parts(self._state.view.grant(row), destination.name, destination.size, destination.align)
        job = SendJob(
            uuid=uuid,
            name=row.name or uuid,
            size=row.size,
            start=start,
            fd=fd,
            parts=parts,
            destination_size=destination.size,
            pack=pack,
        )
        recorder = copy_recorders.Departure(self._records, departure, is_wanted, on_progress)
        result = self._engine.run([job], recorder, stop)[uuid]
        if result.outcome is not Outcome.SENT:
            raise _failure(recorder.refusal or result)

    def departed(self, departure: str, uuid: str, copied: int) -> None:
        """Record how much of the content of a departing namespace is durable at the destination."""
        self._state.ledger.departed(uuid, departure, copied)


def fits(source: model.Grant, row: Row) -> bool:
    """Whether the content of `source` fits into a namespace."""
    return layout.parts(source.size, source.align, row.size, row.align, source.hardware) is not None


def require_fit(source: model.Grant, row: Row) -> tuple[layout.Part, ...]:
    """Return the parts of a copy from `source` to a namespace. :raises DoesNotFit: the namespace is too small."""
    return _parts(source, row.name, row.size, row.align)


def _parts(source: model.Grant, name: str | None, size: int, align: int) -> tuple[layout.Part, ...]:
    parts = layout.parts(source.size, source.align, size, align, source.hardware)
    if parts is None:
        raise exception.DoesNotFit(source=source.name, source_size=source.size, namespace=name or "", size=size)
    return parts


def return_receiving(state: PoolState, row: Row, why: str) -> Row:
    """Take a namespace that a copy fills, or has filled, from its owner. Call it inside a transaction.

    It becomes unknown if nothing was written and no owner is known whose data it has, otherwise dirty.
    """
    untouched = row.state is State.RECEIVING and row.last_owner is None and not row.begun
    return state.move(row, State.UNKNOWN if untouched else State.DIRTY, why)


def _require_free(owner: str, row: Row, *, usable: bool) -> None:
    requests.require_claimable(owner, row, usable=usable)
    if row.owner is not None:
        reason = "its owner holds it already, without this copy"
        raise exception.NamespaceUnavailable(namespace=row.name or row.uuid, owner=owner, reason=reason)


def _require_arrival(owner: str, arrival: str, held: Sequence[Row], sources: Sequence[model.Grant]) -> None:
    """Verify that what the owner holds is what this copy has reserved. :raises NotOwner: it is not."""
    if {row.arrival for row in held} != {arrival} or len(held) != len(sources):
        raise exception.NotOwner(
            owner=owner,
            namespace="a namespace for this copy",
            reason=f"it already holds {names(held)} on the destination; if that is left over from an earlier move, "
            f"run 'vpmem release {owner}' there",
        )
    for row, source in zip(held, sources, strict=True):
        require_fit(source, row)


def _require_departable(owner: str, departure: str, row: Row) -> None:
    name = row.name or row.uuid
    if row.state is not State.CLAIMED:
        raise exception.NamespaceUnavailable(namespace=name, owner=owner, reason=f"it is {row.state}, not claimed")
    if row.departure not in {None, departure}:
        reason = f"copy {row.departure} takes its content away already"
        raise exception.NamespaceUnavailable(namespace=name, owner=owner, reason=reason)


def _failure(result: Result, *, differs: bool = False) -> exception.VPMEMError:
    if result.outcome is Outcome.IN_USE:
        return exception.NamespaceInUse(namespace=result.name, user=result.reason)
    if differs:
        return exception.CopyFailed(
            namespace=result.name,
            reason="what has arrived is no longer what the source has: a guest has written to one of them since",
            remedy="If it ran on the source, cancel the copy and begin it again",
        )
    remedy = {
        Outcome.MEDIA: "The destination is quarantined. Check its medium, then copy to another namespace",
        Outcome.LOST: "What has arrived is kept: the next attempt resumes",
    }.get(result.outcome, "The source still has everything. Remove the cause, then try again")
    return exception.CopyFailed(
        namespace=result.name,
        reason=result.reason or "it was stopped",
        remedy=remedy,
        resumable=result.outcome in {Outcome.LOST, Outcome.STOPPED},
    )
