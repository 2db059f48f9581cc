"""The progress of a wipe or a copy, as the ledger has it."""

import dataclasses

from vpmem_driver.ledger import Row
from vpmem_driver.model import State


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """A wipe or a copy that has begun; whether a process still works on it is not known.

    :ivar percent: of the present pass
    :ivar verb: what the present pass does: wiped, received, copied or verified
    :ivar done: bytes of all passes
    :ivar total: bytes of all passes at the end
    """

    percent: int
    verb: str
    done: int
    total: int


def progress_of(row: Row) -> Progress | None:
    """Return the progress of a namespace that is being wiped, received or copied elsewhere; None for any other."""
    if row.state is State.DIRTY and row.begun:
        return _two_passes(row, row.wiped, "wiped")
    if row.state is State.RECEIVING:
        return _two_passes(row, row.copied, "received")
    if row.departure is not None:
        return Progress(100 * row.copied // row.size, "copied", row.copied, row.size)
    return None


def _two_passes(row: Row, written: int, verb: str) -> Progress:
    now, verb = (row.verified, "verified") if row.verified else (written, verb)
    return Progress(100 * now // row.size, verb, written + row.verified, 2 * row.size)
