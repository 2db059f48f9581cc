"""A claim's reservation: its namespaces stay reserved until the last of them is wiped, and are then claimed together.

A reserved namespace is dirty or, once wiped, clean; it has an owner and the id of the claim. No caller has been told of
it, so a claim that fails returns each one to the state that its bytes are in. All functions run inside a transaction
of the ledger.
"""

from collections.abc import Iterable

from vpmem_driver.ledger import Ledger, Row
from vpmem_driver.model import State


def members(ledger: Ledger, row: Row) -> list[Row]:
    """Everything that the claim of the reserved `row` has reserved, itself included."""
    return [held for held in ledger.held(row.owner or "") if held.reservation == row.reservation]


def claim_when_complete(ledger: Ledger, wiped: Row) -> None:
    """Record that a reserved namespace is wiped; claim its whole reservation when no other is still dirty."""
    others = [row for row in members(ledger, wiped) if row.uuid != wiped.uuid]
    if any(row.state is State.DIRTY for row in others):
        ledger.move(
            wiped,
            State.CLEAN,
            "wiped; reserved until the others are",
            owner=wiped.owner,
            position=wiped.position,
            reservation=wiped.reservation,
        )
        return
    for row in [*others, wiped]:
        claim(ledger, row)


def claim(ledger: Ledger, row: Row) -> Row:
    """Give a reserved namespace to its owner."""
    return ledger.move(
        row,
        State.CLAIMED,
        "wiped for its owner" if row.state is State.DIRTY else "claimed",
        owner=row.owner,
        position=row.position,
    )


def cancel(ledger: Ledger, reserved: Iterable[Row], why: str) -> list[Row]:
    """Return reserved namespaces to what they were: clean, unknown as long as nothing is overwritten, else dirty."""
    return [ledger.move(row, _returned(row), why, keep_wipe=row.state is State.DIRTY) for row in reserved]


def _returned(row: Row) -> State:
    """The state of a reserved namespace without its reservation."""
    never_owned = row.last_owner is None and not row.begun
    return State.UNKNOWN if row.state is State.DIRTY and never_owned else row.state
