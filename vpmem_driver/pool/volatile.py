"""Volatile namespaces: the host's memory loses their content when the host restarts.

The ledger has, for each, the boot in which its state became true. In another boot nothing is known of its bytes, so
that a held one is wiped for its owner before the owner's guest starts.
"""

import os
import pathlib

from vpmem_driver import exception
from vpmem_driver.ledger import Ledger, Row
from vpmem_driver.model import State
from vpmem_driver.pool import reservations

#: A random uuid that the kernel makes at each boot (proc(5)).
BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")

#: Resource classes with this prefix, and no others, are those of volatile namespaces.
RESOURCE_CLASS_PREFIX = "CUSTOM_PMEM_NAMESPACE_VOLATILE"

_WHY = "the host has restarted; its content is lost"


def boot_id() -> str:
    """Return the id of this boot of the host.

    :raises BootUnknown: it cannot be read, or is that of a container, whose restart is not one of the host
    """
    try:
        found = BOOT_ID.read_text(encoding="ascii").strip()
        is_kernels = BOOT_ID.stat().st_dev == os.stat("/proc").st_dev
    except (OSError, ValueError) as error:
        raise exception.BootUnknown(reason=f"{BOOT_ID} cannot be read ({error})") from error
    if not is_kernels:
        raise exception.BootUnknown(reason=f"a container has put another file at {BOOT_ID}")
    return found


def distrust_zeros(ledger: Ledger, row: Row, why: str) -> Row:
    """Record that the zeros of a clean or dirty namespace may be gone. Call it inside the transaction that read `row`.

    :returns: the row after that
    """
    if row.owner is None and row.state is State.CLEAN:
        return ledger.move(row, State.UNKNOWN, why)
    return ledger.move(row, State.DIRTY, why, owner=row.owner, position=row.position, reservation=row.reservation)


def lose_content(ledger: Ledger, row: Row, boot: str) -> None:
    """Record that the host runs since boot `boot`, in which the bytes of a volatile namespace are unknown.

    A claimed one is wiped for its owner. A copy into it starts again. Call it inside the transaction that read `row`.
    """
    match row.state:
        case State.CLAIMED:
            # One reservation each: if one wipe fails, the owner keeps the others.
            claim = reservations.new_id()
            row = ledger.move(row, State.DIRTY, _WHY, owner=row.owner, position=row.position, reservation=claim)
        case State.RECEIVING:
            row = ledger.move(row, row.state, _WHY, owner=row.owner, position=row.position, arrival=row.arrival)
        case State.CLEAN | State.DIRTY:
            row = distrust_zeros(ledger, row, _WHY)
    # Nobody's data: no owner may adopt it as its own.
    ledger.note_boot(row.uuid, boot, begun=row.begun or row.state is State.DIRTY)
