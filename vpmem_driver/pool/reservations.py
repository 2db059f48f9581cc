"""Reservations: the namespaces of a claim stay reserved until the last one is wiped, and are then claimed together.

A reserved namespace is dirty or, once wiped, clean. It has an owner and the id of the claim. The owner has not used it
yet, so a claim that fails returns each namespace to the state that describes its bytes. Call all functions inside a
transaction of the ledger.
"""

import secrets
from collections.abc import Iterable

from vpmem_driver.ledger import Ledger, Row
from vpmem_driver.model import State


def new_id() -> str:
    """Return a new id for namespaces that are reserved together."""
    return secrets.token_hex(8)


def members(ledger: Ledger, row: Row) -> list[Row]:
    """Return all namespaces of the reservation that `row` belongs to, including `row`."""
    return [held for held in ledger.held(row.owner or "") if held.reservation == row.reservation]


def claim_when_complete(ledger: Ledger, wiped: Row) -> None:
    """Record that a reserved namespace is wiped. If it was the last dirty one, claim the whole reservation."""
    others = [row for row in members(ledger, wiped) if row.uuid != wiped.uuid]
    if any(row.state is State.DIRTY for row in others):
        ledger.move(
            wiped,
            State.CLEAN,
            "wiped; reserved until the others are wiped",
            owner=wiped.owner,
            position=wiped.position,
            reservation=wiped.reservation,
        )
        return
    for row in [*others, wiped]:
        claim(ledger, row)


def claim(ledger: Ledger, row: Row) -> Row:
    """Claim a reserved namespace for its owner."""
    return ledger.move(
        row,
        State.CLAIMED,
        "wiped for its owner" if row.state is State.DIRTY else "claimed",
        owner=row.owner,
        position=row.position,
    )


def cancel(ledger: Ledger, reserved: Iterable[Row], why: str) -> list[Row]:
    """Return reserved namespaces to their previous state: clean, unknown if no byte was overwritten, otherwise dirty.

    :returns: the new rows
    """
    return [ledger.move(row, _returned(row), why, keep_wipe=row.state is State.DIRTY) for row in reserved]


def _returned(row: Row) -> State:
    """Return the state of a reserved namespace after its reservation is cancelled."""
    never_owned = row.last_owner is None and not row.begun
    return State.UNKNOWN if row.state is State.DIRTY and never_owned else row.state
