"""Holdings: what an owner has is adopted from its guest, released, or renewed."""

import logging
import types
from collections.abc import Collection, Iterable, Mapping, Sequence

from vpmem_driver import exception, model
from vpmem_driver.ledger import Row
from vpmem_driver.model import State
from vpmem_driver.pool import copies, requests, reservations
from vpmem_driver.pool.state import PoolState, names

LOG = logging.getLogger(__name__)


class Holdings:
    """Changes what owners hold, without a wipe and without a guest's start."""

    def __init__(self, state: PoolState) -> None:
        self._state = state

    def adopt(
        self,
        owner: str,
        uuids: Sequence[str],
        *,
        why: str = "a guest holds it",
        label_of: Mapping[str, str] = types.MappingProxyType({}),
        in_domain: bool = False,
        hardware_of: Mapping[str, model.Hardware] = types.MappingProxyType({}),
    ) -> tuple[model.Grant, ...]:
        """Claim namespaces that the guest of `owner` already uses, in this order, and keep their content.

        Nothing is wiped. What the owner already holds does not change. A dirty namespace returns only to the owner
        whose data it still contains.

        :param why: reason for the history
        :param label_of: labels by uuid, for namespaces that the owner has under a label other than the configured one
        :param in_domain: a domain of the owner uses the namespaces; clean ones are then adopted too
        :param hardware_of: what the guest's device is, by uuid; the default is that of Nova's in-tree driver
        :raises InvalidRequest: `owner` is not a uuid
        :raises UnknownNamespace: the ledger has no such namespace
        :raises NotOwner: another owner holds one, or one contains another owner's data; nothing was changed
        :raises NamespaceUnavailable: one is clean; nothing was changed
        """
        owner = requests.owner(owner)
        with self._state.change():
            rows = [self._state.row(uuid) for uuid in uuids]
            for row in rows:
                requests.require_adoptable(owner, row, in_domain=in_domain)
            position = self._state.ledger.next_position(owner)
            for row in rows:
                if row.owner is None:
                    label = label_of.get(row.uuid)
                    self._state.move(
                        row,
                        State.CLAIMED,
                        f"adopted: {why}",
                        owner=owner,
                        position=position,
                        label=label,
                        hardware=hardware_of.get(row.uuid, model.IN_TREE),
                    )
                    position += 1
            self._state.label_held(self._state.ledger.rows())
        LOG.info("%s adopted %s: %s", owner, names(rows), why)
        return tuple(self._state.view.grant(row) for row in self._state.ledger.held(owner) if row.uuid in uuids)

    def release(
        self, owner: str, uuids: Collection[str] | None = None, *, why: str = "released"
    ) -> tuple[model.Record, ...]:
        """Release all that `owner` holds, or only `uuids`. They are dirty and unowned when this returns.

        A reserved namespace was never used by the owner: it returns to the state that describes its bytes, and so do
        the other namespaces of the same claim.

        :param why: reason for the history
        :returns: the released namespaces
        :raises InvalidRequest: `owner` is not a uuid
        :raises NotOwner: `owner` does not hold them; nothing was changed
        """
        owner = requests.owner(owner)
        with self._state.change() as table:
            released = self.held(owner, uuids)
            now = {
                row.uuid: row
                for release in (self._release_claimed, self._release_receiving, self._release_reserved)
                for row in release(released, why)
            }
            table.follow(now.values())
            if any(self._state.configured.get(uuid) != self._state.view.label_of.get(uuid) for uuid in now):
                self._state.label_held(self._state.ledger.rows())
        LOG.info("%s released %s", owner, names(released))
        return tuple(self._state.view.record(now[row.uuid]) for row in released)

    def renew(self, owner: str, uuids: Collection[str] | None = None) -> None:
        """Mark all that `owner` holds, or only `uuids`, for a wipe, and reserve it for the same owner.

        :meth:`claim_exact` waits for the wipes.

        :raises InvalidRequest: `owner` is not a uuid
        :raises NotOwner: `owner` does not hold them; nothing was changed
        """
        owner = requests.owner(owner)
        with self._state.change():
            renewed = self.held(owner, uuids)
            for row in renewed:
                if row.state is State.CLAIMED:
                    # One reservation each: if one wipe fails, the owner keeps the others.
                    self._state.move(
                        row,
                        State.DIRTY,
                        "renewed",
                        owner=owner,
                        position=row.position,
                        reservation=reservations.new_id(),
                    )
        LOG.info("%s keeps %s, to be wiped", owner, names(renewed))

    def releasable(self, owner: str, uuids: Collection[str] | None = None) -> tuple[model.Record, ...]:
        """Return what :meth:`release` would release, and change nothing. Raises the same errors."""
        return tuple(self._state.view.record(row) for row in self.held(requests.owner(owner), uuids))

    def _release_claimed(self, rows: Iterable[Row], why: str) -> list[Row]:
        return [self._state.move(row, State.DIRTY, why) for row in rows if row.state is State.CLAIMED]

    def _release_receiving(self, rows: Iterable[Row], why: str) -> list[Row]:
        return [copies.return_receiving(self._state, row, why) for row in rows if row.state is State.RECEIVING]

    def _release_reserved(self, rows: Iterable[Row], why: str) -> list[Row]:
        """Cancel the reservations that `rows` belong to.

        :returns: the new rows of every namespace of these reservations
        """
        cancelled = {row.reservation: row for row in rows if row.reservation is not None}
        return [
            released
            for row in cancelled.values()
            for released in reservations.cancel(self._state.ledger, reservations.members(self._state.ledger, row), why)
        ]

    def held(self, owner: str, uuids: Collection[str] | None) -> list[Row]:
        """Return the rows of `owner`, or only those of `uuids`.

        :raises NotOwner: `owner` does not hold one of them, or holds nothing
        """
        held = {row.uuid: row for row in self._state.ledger.held(owner)}
        require_any(owner, held)
        for uuid in uuids or ():
            if uuid not in held:
                row = self._state.row(uuid)
                raise exception.NotOwner(
                    owner=owner,
                    namespace=row.name or uuid,
                    reason=f"it belongs to {row.owner}" if row.owner else f"it is {row.state} and unowned",
                )
        return [held[uuid] for uuid in (held if uuids is None else dict.fromkeys(uuids))]


def require_any(owner: str, held: Collection[object]) -> None:
    """Refuse an owner that holds nothing.

    :raises NotOwner: `held` is empty
    """
    if not held:
        raise exception.NotOwner(owner=owner, namespace="any namespace", reason="the ledger records none for it")
