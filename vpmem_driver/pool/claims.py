"""Claims: namespaces are reserved, looked at or wiped, and then claimed together."""

import logging
import secrets
import threading
from collections.abc import Collection, Mapping, Sequence

from vpmem_driver import exception, model, reservations, wiping
from vpmem_driver.ledger import Row
from vpmem_driver.model import State
from vpmem_driver.pool import requests
from vpmem_driver.pool.books import Books, names
from vpmem_driver.wipe import Outcome

LOG = logging.getLogger(__name__)


class Claims:
    """How a pool gives namespaces to owners: all that one claim asks for, or nothing."""

    def __init__(self, books: Books, wiper: wiping.Wiper) -> None:
        self._books = books
        self._wiper = wiper

    def claim(
        self,
        owner: str,
        wanted: Sequence[str],
        *,
        numa_node: int | None = None,
        on_progress: wiping.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[model.Grant, ...]:
        """Claim one namespace for each label of `wanted`, all or nothing, wiping first what is not clean.

        :returns: a grant per label, in the order of `wanted`
        :raises InvalidRequest: owner, labels or NUMA node are wrong
        :raises InsufficientNamespaces: there are not enough free ones; nothing was changed
        :raises VPMEMError: a namespace could not be wiped and no other is free; see :func:`wiping.raise_for`
        """
        owner = requests.owner(owner)
        requests.numa_node(numa_node)
        label_ids = requests.label_ids(self._books.config, wanted)
        failures: dict[str, wiping.Result] = {}
        while True:
            try:
                reserved = self._reserve(owner, label_ids, numa_node, failures)
            except exception.InsufficientNamespaces:
                wiping.raise_for(failures.values())  # without these there would have been enough
                raise
            failed = self._finish(owner, reserved, on_progress, stop)
            if not failed:
                return self._granted(owner, reserved)
            if stop is not None and stop.is_set():
                wiping.raise_for(failed.values())
            failures |= failed

    def claim_exact(
        self,
        owner: str,
        uuids: Sequence[str],
        *,
        on_progress: wiping.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[model.Grant, ...]:
        """Claim exactly these, in this order, all or nothing, wiping first what is not clean.

        What the owner has already stays as it is; what is reserved for it is wiped to the end.

        :returns: a grant for each of `uuids`
        :raises InvalidRequest: `owner` is no uuid
        :raises UnknownNamespace: the ledger has no such namespace
        :raises NamespaceUnavailable: one is somebody else's, quarantined or missing; nothing was changed
        :raises VPMEMError: one could not be wiped; see :func:`wiping.raise_for`
        """
        owner = requests.owner(owner)
        rows = self._reserve_exact(owner, uuids)
        failed = self._finish(owner, rows, on_progress, stop)
        wiping.raise_for(failed.values())
        return self._granted(owner, rows)

    def _reserve(self, owner: str, label_ids: list[int], numa_node: int | None, failures: Collection[str]) -> list[Row]:
        """Reserve a namespace for each label, leaving out `failures`.

        :returns: the rows after that
        :raises InsufficientNamespaces: nothing was changed
        """
        # Nobody is told of a reservation: if a power loss takes it away, the namespaces are as they were.
        with self._books.change(durable=False) as table:
            chosen = table.choose(label_ids, numa_node, failures)
            shortage = table.shortage(label_ids, failures) if chosen is None else {}
            reserved = self._take(owner, [self._books.row(uuid) for uuid in chosen or ()], new_reservation())
            table.follow(reserved)
        if chosen is None:
            raise exception.InsufficientNamespaces(
                request=",".join(self._books.config.labels[index] for index in label_ids),
                shortage=", ".join(
                    f"{self._books.config.labels[index]}: {wanted} wanted, {free} free"
                    for index, (wanted, free) in shortage.items()
                ),
            )
        return reserved

    def _reserve_exact(self, owner: str, uuids: Sequence[str]) -> list[Row]:
        """As :meth:`_reserve`, for exactly these; what the owner has already stays as it is.

        What another claim of the same owner has reserved and this one adds are then claimed together.
        """
        with self._books.change(durable=False) as table:
            rows = [self._books.row(uuid) for uuid in dict.fromkeys(uuids)]
            for row in rows:
                requests.exact(owner, row, usable=row.uuid in self._books.view.usable)
            reservation = next((row.reservation for row in rows if row.reservation), None) or new_reservation()
            new = self._take(owner, [row for row in rows if row.owner is None], reservation)
            table.follow(new)
        now = {row.uuid: row for row in [*rows, *new]}
        return [now[row.uuid] for row in rows]

    def _take(self, owner: str, rows: Sequence[Row], reservation: str) -> list[Row]:
        """Reserve `rows`, inside a transaction.

        :returns: the rows after that
        """
        return [
            self._books.move(
                row,
                row.state if row.state is State.CLEAN else State.DIRTY,
                "reserved",
                owner=owner,
                position=position,
                reservation=reservation,
                keep_wipe=row.state is State.DIRTY,
            )
            for position, row in enumerate(rows, start=self._books.ledger.next_position(owner))
        ]

    def _finish(
        self,
        owner: str,
        rows: Sequence[Row],
        on_progress: wiping.OnProgress | None,
        stop: threading.Event | None,
    ) -> dict[str, wiping.Result]:
        """Claim the reserved `rows`: look for users of what is clean, wipe what is dirty. If one fails, cancel all.

        :returns: those that failed; none when all are claimed
        """
        try:
            failed = self._in_use(rows) or self._wipe_reserved(owner, rows, on_progress, stop)
            if not failed:
                self._claim_clean(owner, rows)
        except BaseException:
            self._cancel(owner, rows, "claim called off")
            raise
        if failed and self._cancel(owner, rows, "claim called off"):
            return failed
        return {}

    def _in_use(self, rows: Sequence[Row]) -> dict[str, wiping.Result]:
        """Those of the reserved clean `rows` that a guest or a process uses: they are dirty and unowned from now on.

        A namespace is clean since its wipe, and nobody looked at it after that.

        :raises LibvirtError: libvirt cannot tell
        """
        clean = {row.uuid: row for row in rows if row.state is State.CLEAN}
        devices = {
            self._books.view.usable[uuid].device or "": row
            for uuid, row in clean.items()
            if uuid in self._books.view.usable
        }
        if not devices:
            return {}
        found = {devices[device].uuid: user for device, user in self._wiper.users_of(devices).items()}
        withdrawn = self._withdraw(rows, found) if found else ()
        return {
            uuid: wiping.Result(uuid=uuid, name=clean[uuid].name or uuid, outcome=Outcome.IN_USE, reason=found[uuid])
            for uuid in withdrawn
        }

    def _withdraw(self, rows: Sequence[Row], users: Mapping[str, str]) -> list[str]:
        """Make dirty and unowned what of the reserved `rows` is in use by `users` (by uuid), though nobody holds it.

        What is claimed by now stays: another request of the same owner has finished the claim, and the user may be the
        owner's guest.

        :returns: the uuids of what was withdrawn
        """
        withdrawn = []
        with self._books.change():
            for before in rows:
                row = self._books.row(before.uuid)
                if row.uuid in users and row.reservation == before.reservation and row.reservation is not None:
                    reason = f"in use by {users[row.uuid]}"
                    self._books.move(row, State.DIRTY, f"{reason}, though unowned", reason=reason)
                    withdrawn.append(row.uuid)
        return withdrawn

    def _wipe_reserved(
        self,
        owner: str,
        rows: Sequence[Row],
        on_progress: wiping.OnProgress | None,
        stop: threading.Event | None,
    ) -> dict[str, wiping.Result]:
        """Wipe all that is dirty of the reservations that `rows` are in: they are claimed when the last is wiped.

        :returns: those that failed
        """
        awaited = {row.reservation for row in rows} - {None}
        dirty = [
            row.uuid
            for row in self._books.ledger.held(owner)
            if row.reservation in awaited and row.state is State.DIRTY
        ]
        results = self._wiper.wipe(dirty, on_progress=on_progress, stop=stop) if dirty else []
        return {result.uuid: result for result in results if result.outcome is not Outcome.WIPED}

    def _claim_clean(self, owner: str, rows: Sequence[Row]) -> None:
        """Claim the reservations of `rows` in which all is clean: no wipe does it for them."""
        if all(row.state is State.DIRTY or row.reservation is None for row in rows):
            return
        with self._books.change() as table:
            awaited = {row.reservation for row in rows} - {None}
            reserved = [row for row in self._books.ledger.held(owner) if row.reservation in awaited]
            if all(row.state is State.CLEAN for row in reserved):
                table.follow([reservations.claim(self._books.ledger, row) for row in reserved])

    def _granted(self, owner: str, rows: Sequence[Row]) -> tuple[model.Grant, ...]:
        held = {row.uuid: row for row in self._books.ledger.held(owner) if row.state is State.CLAIMED}
        for row in rows:
            if row.uuid not in held:
                self._cancel(owner, rows, "claim called off")
                raise exception.NotOwner(
                    owner=owner, namespace=row.name, reason="it was released while it was being wiped"
                )
        LOG.info("%s is given %s", owner, names(rows))
        return tuple(self._books.view.grant(held[row.uuid]) for row in rows)

    def _cancel(self, owner: str, rows: Sequence[Row], why: str) -> bool:
        """Give up what of `rows` is still reserved, unless the claim has been completed by another process meanwhile.

        What is claimed stays: another caller may have been told that it is the owner's.

        :returns: False when all of `rows` are claimed for `owner`
        """
        with self._books.change() as table:
            now = [self._books.row(row.uuid) for row in rows]
            if all(row.owner == owner and row.state is State.CLAIMED for row in now):
                return False
            mine = {row.reservation for row in rows} - {None}
            reserved = [row for row in self._books.ledger.held(owner) if row.reservation in mine]
            table.follow(reservations.cancel(self._books.ledger, reserved, why))
        return True


def new_reservation() -> str:
    """An id for the namespaces that are reserved together."""
    return secrets.token_hex(8)
