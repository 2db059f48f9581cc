"""Maintenance: wipe, repair and retire what no owner holds."""

import dataclasses
import threading
from collections.abc import Callable, Collection, Iterable

from vpmem_driver import exception, model
from vpmem_driver.engine import Outcome, Result
from vpmem_driver.ledger import Row
from vpmem_driver.model import State
from vpmem_driver.pool import media, wipes
from vpmem_driver.pool.state import RETIRED, PoolState


class Maintenance:
    """Works on the unowned namespaces of one host, for its operator and in the background."""

    def __init__(self, state: PoolState, wiper: wipes.Wiper, reconcile: Callable[[], None]) -> None:
        self._state = state
        self._wiper = wiper
        self._reconcile = reconcile

    def wipeable(self, uuids: Collection[str] | None = None) -> tuple[model.Record, ...]:
        """Return what :meth:`wipe` would wipe, and change nothing. Raises the same errors."""
        return tuple(self._state.view.record(row) for row in self._to_wipe(uuids))

    def wipe(
        self,
        uuids: Collection[str] | None = None,
        *,
        on_progress: wipes.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> list[Result]:
        """Wipe `uuids`, or all dirty namespaces, and wait until they end. An interrupted wipe resumes.

        `uuids` may also contain unknown and quarantined namespaces, at the operator's request. Clean ones are skipped.

        :raises UnknownNamespace: the ledger has no such namespace
        :raises NamespaceClaimed: one is claimed; nothing was changed
        :raises NamespaceMissing: one is not on the host; nothing was changed
        """
        with self._state.change():
            before = self._to_wipe(uuids)
            self._mark_dirty(before, "wipe requested by the operator")
        return self._wipe_requested(before, on_progress, stop)

    def dirty(self) -> list[str]:
        """Return the uuids of the dirty namespaces that are on this host."""
        return [row.uuid for row in self._to_wipe(None)]

    def wipe_dirty(
        self,
        uuids: Collection[str],
        *,
        on_progress: wipes.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> list[Result]:
        """Wipe the dirty namespaces among `uuids`, and wait until they end. The others do not change."""
        return self._wiper.wipe(uuids, on_progress=on_progress, stop=stop)

    def repair(self, uuid: str, *, on_progress: wipes.OnProgress | None = None) -> list[Result]:
        """Clear the bad ranges of an unowned namespace, wipe it, and look for bad ranges again.

        It is quarantined until all that has succeeded, so that no claim takes it.

        :raises UnknownNamespace, NamespaceMissing: the ledger has no such namespace, or it is not on the host
        :raises NamespaceClaimed: an owner holds or has reserved it
        :raises NamespaceInUse: a domain, running or in its definition, or a process has it
        :raises HostToolError: ndctl cannot be run
        """
        self.repairable(uuid)
        device = self._state.view.usable[uuid].device or ""
        user = self._wiper.users_of([device]).get(device) or self._wiper.domains.user_of(device, defined=True)
        if user is not None:
            raise exception.NamespaceInUse(namespace=self._state.row(uuid).name or uuid, user=user)
        with self._state.change():
            self.repairable(uuid)
            row = self._state.row(uuid)
            if row.state is not State.QUARANTINED:
                media.quarantine(self._state, row, media.bad(self._state, row) or "repair requested by the operator")
        media.clear_errors(device)
        self._reconcile()  # ndctl has disabled and enabled the namespace
        results = self.wipe([uuid], on_progress=on_progress)
        return [self._look_again(result) for result in results]

    def repairable(self, uuid: str) -> model.Record:
        """Return the record of a namespace that :meth:`repair` would repair. Raises the same errors, if known now."""
        row = self._state.row(uuid)
        if row.owner is not None:
            raise exception.NamespaceClaimed(namespace=row.name or row.uuid, owner=row.owner)
        if row.uuid not in self._state.view.usable:
            raise exception.NamespaceMissing(namespace=row.name or row.uuid)
        return self._state.view.record(row)

    def _look_again(self, result: Result) -> Result:
        """Return the result of a wipe, or a failure if the namespace still has bad ranges: it is quarantined then."""
        reason = media.bad(self._state, self._state.row(result.uuid))
        if reason is None or result.outcome is not Outcome.WIPED:
            return result
        with self._state.change():
            row = self._state.row(result.uuid)
            if row.state is State.CLEAN and row.owner is None:
                media.quarantine(self._state, row, reason)
        return dataclasses.replace(result, outcome=Outcome.MEDIA, reason=reason)

    def retirable(self) -> tuple[model.Record, ...]:
        """Return what :meth:`retire` would wipe, and change nothing. Raises the same errors."""
        return tuple(self._state.view.record(row) for row in self._to_retire())

    def retire(
        self, *, on_progress: wipes.OnProgress | None = None, stop: threading.Event | None = None
    ) -> list[Result]:
        """Let no owner have a namespace of this host from now on, and wipe them all, clean ones too.

        A namespace without a label that was never claimed or wiped here is not this program's, and is left alone.

        :raises NamespaceClaimed: an owner holds or has reserved one; nothing was changed
        """
        with self._state.change():
            before = self._to_retire()
            self._state.ledger.add_mark(RETIRED)
            self._mark_dirty(before, "host retired")
        return self._wipe_requested(before, on_progress, stop)

    def is_retired(self) -> bool:
        """Whether :meth:`retire` was called, and :meth:`return_to_service` was not."""
        return self._state.ledger.marked(RETIRED)

    def return_to_service(self) -> bool:
        """Let owners have namespaces of this host again. :returns: False if it was not retired."""
        with self._state.change():
            return self._state.ledger.unmark(RETIRED)

    def _to_wipe(self, uuids: Collection[str] | None) -> list[Row]:
        if uuids is None:
            return [
                row
                for row in self._state.ledger.rows()
                if row.state is State.DIRTY and row.uuid in self._state.view.usable
            ]
        rows = [self._state.row(uuid) for uuid in dict.fromkeys(uuids)]
        for row in rows:
            if row.state in {State.CLAIMED, State.RECEIVING}:
                raise exception.NamespaceClaimed(namespace=row.name or row.uuid, owner=row.owner)
            if row.uuid not in self._state.view.usable:
                raise exception.NamespaceMissing(namespace=row.name or row.uuid)
        return [row for row in rows if row.state is not State.CLEAN]

    def _to_retire(self) -> list[Row]:
        """Return the rows of this program's namespaces that are on this host.

        :raises NamespaceClaimed: an owner holds or has reserved a namespace, also one that is missing
        """
        rows = self._state.ledger.rows()
        for row in rows:
            if row.owner is not None:
                raise exception.NamespaceClaimed(namespace=row.name or row.uuid, owner=row.owner)
        view = self._state.view
        return [
            row
            for row in rows
            if row.uuid in view.usable and (row.uuid in view.label_of or row.state is not State.UNKNOWN)
        ]

    def _mark_dirty(self, rows: Iterable[Row], why: str) -> None:
        for row in rows:
            if row.state is not State.DIRTY:
                self._state.move(row, State.DIRTY, why)

    def _wipe_requested(
        self, before: list[Row], on_progress: wipes.OnProgress | None, stop: threading.Event | None
    ) -> list[Result]:
        """Wipe namespaces that are dirty now.

        :param before: their rows before they became dirty
        """
        try:
            return self._wiper.wipe([row.uuid for row in before], on_progress=on_progress, stop=stop)
        finally:
            self._restore_unknown(before)

    def _restore_unknown(self, before: list[Row]) -> None:
        """Move what was unknown, and was not overwritten, back to unknown: a guest may still turn out to use it."""
        with self._state.change():
            for old in before:
                row = self._state.row(old.uuid)
                untouched = row.state is State.DIRTY and row.owner is None and row.last_owner is None and not row.begun
                if old.state is State.UNKNOWN and untouched:  # otherwise it may contain the data of a later owner
                    self._state.move(row, State.UNKNOWN, "not wiped")
