"""Claims: reserve namespaces, check or wipe them, then claim them together."""

import logging
import threading
from collections.abc import Collection, Mapping, Sequence

from vpmem_driver import exception, model
from vpmem_driver.engine import Outcome, Result
from vpmem_driver.ledger import Row
from vpmem_driver.model import State
from vpmem_driver.pool import media, requests, reservations, wipes
from vpmem_driver.pool.state import PoolState, names

LOG = logging.getLogger(__name__)


class Claims:
    """Claims namespaces for owners: all that a request asks for, or nothing."""

    def __init__(self, state: PoolState, wiper: wipes.Wiper) -> None:
        self._state = state
        self._wiper = wiper

    def claim(
        self,
        owner: str,
        wanted: Sequence[str],
        *,
        numa_node: int | None = None,
        on_progress: wipes.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[model.Grant, ...]:
        """Claim one namespace for each label of `wanted`, all or nothing. Those that are not clean are wiped first.

        :returns: a grant per label, in the order of `wanted`
        :raises InvalidRequest: owner, labels or NUMA node are invalid
        :raises InsufficientNamespaces: not enough namespaces are free; nothing was changed
        :raises VPMEMError: a namespace could not be wiped and no other is free; see :func:`.wipes.raise_for`
        """
        owner = requests.owner(owner)
        requests.require_numa_node(numa_node)
        label_ids = requests.label_ids(self._state.config, wanted)
        failures: dict[str, Result] = {}
        while True:
            try:
                reserved = self._reserve(owner, label_ids, numa_node, failures)
            except exception.InsufficientNamespaces:
                wipes.raise_for(failures.values())  # the cause, if any: without these failures there were enough
                raise
            claimed, failed = self._finish(owner, reserved, on_progress, stop)
            if not failed:
                return self._granted(owner, reserved, claimed)
            if stop is not None and stop.is_set():
                wipes.raise_for(failed.values())
            failures |= failed

    def claim_exact(
        self,
        owner: str,
        uuids: Sequence[str],
        *,
        on_progress: wipes.OnProgress | None = None,
        stop: threading.Event | None = None,
        hardware: model.Hardware | None = None,
    ) -> tuple[model.Grant, ...]:
        """Claim exactly these namespaces, in this order, all or nothing. Those that are not clean are wiped first.

        What the owner already holds does not change. What is reserved for it is wiped and claimed too.

        :param hardware: what the devices are in the owner's guest; None: as configured
        :returns: a grant for each of `uuids`
        :raises InvalidRequest: `owner` is not a uuid
        :raises UnknownNamespace: the ledger has no such namespace
        :raises NamespaceUnavailable: another owner holds one, or one is quarantined or missing; nothing was changed
        :raises VPMEMError: one could not be wiped; see :func:`.wipes.raise_for`
        """
        owner = requests.owner(owner)
        rows = self._reserve_exact(owner, uuids, hardware)
        claimed, failed = self._finish(owner, rows, on_progress, stop)
        wipes.raise_for(failed.values())
        return self._granted(owner, rows, claimed)

    def _reserve(self, owner: str, label_ids: list[int], numa_node: int | None, failures: Collection[str]) -> list[Row]:
        """Reserve a namespace for each label, except `failures`.

        :returns: the reserved rows
        :raises InsufficientNamespaces: nothing was changed
        """
        self._prepare()
        # Not durable: the caller does not learn of a reservation. If a power loss undoes it, nothing has changed.
        with self._state.change(durable=False) as table:
            self._state.require_in_service()
            chosen = table.choose(label_ids, numa_node, failures)
            shortage = table.shortage(label_ids, failures) if chosen is None else {}
            reserved = self._take(owner, self._state.rows(chosen or ()), reservations.new_id())
            table.follow(reserved)
        if chosen is None:
            raise exception.InsufficientNamespaces(
                request=",".join(self._state.config.labels[index] for index in label_ids),
                shortage=", ".join(
                    f"{self._state.config.labels[index]}: {wanted} wanted, {free} free"
                    for index, (wanted, free) in shortage.items()
                ),
            )
        return reserved

    def _prepare(self) -> None:
        self._state.hardware.prepare(self._state.view.modes)

    def _reserve_exact(self, owner: str, uuids: Sequence[str], hardware: model.Hardware | None = None) -> list[Row]:
        """Reserve exactly these namespaces. What the owner already holds does not change.

        If another claim of the same owner has reserved some of them, the others join that reservation.
        """
        self._prepare()
        with self._state.change(durable=False) as table:
            rows = self._state.rows(list(dict.fromkeys(uuids)))
            for row in rows:
                requests.require_claimable(owner, row, usable=row.uuid in self._state.view.usable)
            if any(row.owner is None for row in rows):
                self._state.require_in_service()
            reservation = next((row.reservation for row in rows if row.reservation), None) or reservations.new_id()
            new = self._take(owner, [row for row in rows if row.owner is None], reservation, hardware)
            table.follow(new)
        now = {row.uuid: row for row in [*rows, *new]}
        return [now[row.uuid] for row in rows]

    def _take(
        self, owner: str, rows: Sequence[Row], reservation: str, hardware: model.Hardware | None = None
    ) -> list[Row]:
        """Reserve `rows`. Call it inside a transaction.

        :returns: the reserved rows
        """
        return [
            self._state.move(
                row,
                row.state if row.state is State.CLEAN else State.DIRTY,
                "reserved",
                owner=owner,
                position=position,
                reservation=reservation,
                keep_wipe=row.state is State.DIRTY,
                hardware=hardware,
            )
            for position, row in enumerate(rows, start=self._state.ledger.next_position(owner))
        ]

    def _finish(
        self,
        owner: str,
        rows: Sequence[Row],
        on_progress: wipes.OnProgress | None,
        stop: threading.Event | None,
    ) -> tuple[list[Row], dict[str, Result]]:
        """Claim the reserved `rows`: check that clean ones are unused and all media good, wipe dirty ones.

        If one fails, cancel all.

        :returns: those that this call has claimed, without those that a wipe has; and the failures by uuid
        """
        claimed: list[Row] | None = []
        try:
            failed = self._in_use(rows) or media.withdraw(self._state, rows)
            if not failed:
                claimed = self._claim_clean(owner, rows)
                if claimed is None:
                    failed = self._wipe_reserved(owner, rows, on_progress, stop)
                    claimed = [] if failed else self._claim_clean(owner, rows)
        except BaseException:
            self._cancel(owner, rows, "claim cancelled")
            raise
        if failed and self._cancel(owner, rows, "claim cancelled"):
            return [], failed
        return claimed or [], {}

    def _in_use(self, rows: Sequence[Row]) -> dict[str, Result]:
        """Withdraw those of the reserved clean `rows` that a domain or a process uses: make them dirty and unowned.

        A use that began after the wipe of a clean namespace is found only here.

        :returns: the withdrawn namespaces, as failures by uuid
        :raises LibvirtError: libvirt does not answer
        """
        clean = {row.uuid: row for row in rows if row.state is State.CLEAN}
        devices = {
            self._state.view.usable[uuid].device or "": row
            for uuid, row in clean.items()
            if uuid in self._state.view.usable
        }
        if not devices:
            return {}
        found = {devices[device].uuid: user for device, user in self._wiper.users_of(devices).items()}
        withdrawn = self._withdraw(rows, found) if found else ()
        return {
            uuid: Result(uuid=uuid, name=clean[uuid].name or uuid, outcome=Outcome.IN_USE, reason=found[uuid])
            for uuid in withdrawn
        }

    def _withdraw(self, rows: Sequence[Row], users: Mapping[str, str]) -> list[str]:
        """Make those of `rows` that `users` (by uuid) use dirty and unowned, if they are still reserved.

        A namespace that is claimed by then does not change: another request of the same owner has completed the claim,
        and the user may be the owner's guest.

        :returns: the uuids of the withdrawn namespaces
        """
        withdrawn = []
        with self._state.change():
            for before in rows:
                row = self._state.row(before.uuid)
                if row.uuid in users and row.reservation == before.reservation and row.reservation is not None:
                    reason = f"in use by {users[row.uuid]}"
                    self._state.move(row, State.DIRTY, f"{reason}, though unowned", reason=reason)
                    withdrawn.append(row.uuid)
        return withdrawn

    def _wipe_reserved(
        self,
        owner: str,
        rows: Sequence[Row],
        on_progress: wipes.OnProgress | None,
        stop: threading.Event | None,
    ) -> dict[str, Result]:
        """Wipe the dirty namespaces of the reservations of `rows`. All are claimed when the last one is wiped.

        :returns: the failures by uuid
        """
        awaited = {row.reservation for row in rows} - {None}
        dirty = [
            row.uuid
            for row in self._state.ledger.held(owner)
            if row.reservation in awaited and row.state is State.DIRTY
        ]
        results = self._wiper.wipe(dirty, on_progress=on_progress, stop=stop) if dirty else []
        return {result.uuid: result for result in results if result.outcome is not Outcome.WIPED}

    def _claim_clean(self, owner: str, rows: Sequence[Row]) -> list[Row] | None:
        """Claim the reservations of `rows` if all their namespaces are clean.

        :returns: the claimed rows; None if one must be wiped first. The last wipe of a reservation claims all of it
        """
        awaited = {row.reservation for row in rows if row.reservation is not None}
        if not awaited:
            return []
        if all(row.state is State.DIRTY for row in rows if row.reservation is not None):
            return None
        with self._state.change() as table:
            reserved = [row for row in self._state.ledger.held(owner) if row.reservation in awaited]
            if any(row.state is not State.CLEAN for row in reserved):
                return None
            claimed = [reservations.claim(self._state.ledger, row) for row in reserved]
            table.follow(claimed)
        return claimed

    def _granted(self, owner: str, rows: Sequence[Row], claimed: Sequence[Row]) -> tuple[model.Grant, ...]:
        held = {row.uuid: row for row in claimed}
        if any(row.uuid not in held for row in rows):
            held = {row.uuid: row for row in self._state.ledger.held(owner) if row.state is State.CLAIMED}
        for row in rows:
            if row.uuid not in held:
                self._cancel(owner, rows, "claim cancelled")
                raise exception.NotOwner(
                    owner=owner, namespace=row.name, reason="it was released while it was being wiped"
                )
        LOG.info("%s claimed %s", owner, names(rows))
        return tuple(self._state.view.grant(held[row.uuid]) for row in rows)

    def _cancel(self, owner: str, rows: Sequence[Row], why: str) -> bool:
        """Cancel the reservations of `rows`, unless another process has completed the claim.

        What is claimed stays claimed: another caller may already have received it for the owner.

        :returns: False if all of `rows` are claimed for `owner`
        """
        with self._state.change() as table:
            now = [self._state.row(row.uuid) for row in rows]
            if all(row.owner == owner and row.state is State.CLAIMED for row in now):
                return False
            mine = {row.reservation for row in rows} - {None}
            reserved = [row for row in self._state.ledger.held(owner) if row.reservation in mine]
            table.follow(reservations.cancel(self._state.ledger, reserved, why))
        return True
