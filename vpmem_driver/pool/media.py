"""Bad media. A claim asks the kernel for the bad ranges of a namespace; ``vpmem repair`` clears them.

A claim quarantines a namespace that has bad ranges, unless it is unknown. An unknown one stays as it is: it may
contain the data of a guest that this ledger does not know, and can still be adopted. A claimed namespace is never
changed.
"""

import logging
import os
import subprocess
from collections.abc import Sequence

from vpmem_driver import exception
from vpmem_driver.discovery import badblocks
from vpmem_driver.engine import Outcome, Result
from vpmem_driver.ledger import Row
from vpmem_driver.model import State
from vpmem_driver.pool.state import PoolState

LOG = logging.getLogger(__name__)

#: Clearing a range takes milliseconds; a scrub of the bus that runs is waited for.
_LIMIT_SECONDS = 600.0


def bad(state: PoolState, row: Row) -> str | None:
    """Describe the bad ranges of a namespace; None if none are known, or nobody can tell (a warning then)."""
    namespace = state.view.usable.get(row.uuid)
    if namespace is None or namespace.device is None:
        return None
    try:
        ranges = state.discovery.bad_ranges(namespace.device)
    except exception.HostToolError as error:
        LOG.warning("Namespace %s: %s", row.name, error)
        return None
    return badblocks.text(ranges) if ranges else None


def withdraw(state: PoolState, reserved: Sequence[Row]) -> dict[str, Result]:
    """Quarantine those of the reserved rows that have bad ranges.

    :returns: all that have, as failures by uuid. The caller cancels the reservation of the others
    """
    found = {row.uuid: reason for row in reserved if row.reservation is not None and (reason := bad(state, row))}
    if not found:
        return {}
    failed = {}
    with state.change():
        for before in reserved:
            row = state.row(before.uuid)
            if row.uuid not in found or row.reservation is None or row.reservation != before.reservation:
                continue
            known = row.state is State.CLEAN or row.begun or row.last_owner is not None
            if known:
                quarantine(state, row, found[row.uuid])
            outcome = Outcome.MEDIA if known else Outcome.HOST
            failed[row.uuid] = Result(uuid=row.uuid, name=row.name or row.uuid, outcome=outcome, reason=found[row.uuid])
    return failed


def quarantine(state: PoolState, row: Row, reason: str) -> Row:
    """Quarantine an unowned or reserved namespace. Call it inside a transaction."""
    LOG.error("Namespace %s (%s) is quarantined: %s", row.name, row.uuid, reason)
    return state.move(row, State.QUARANTINED, reason, reason=reason)


def clear_errors(device: str) -> None:
    """Have ndctl clear the bad ranges of a device. Its exit status says little; look at the ranges afterwards.

    :raises HostToolError: it cannot be run
    """
    name = badblocks.namespace_of(device)
    if name is None:
        return  # no namespace of the NVDIMM bus, so that nothing is known of its media
    try:
        done = subprocess.run(
            ("ndctl", "clear-errors", name),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_LIMIT_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise exception.HostToolError(
            what=f"'ndctl clear-errors {name}'",
            reason=getattr(error, "strerror", None) or type(error).__name__,
            remedy="Install the package ndctl, and run this as root. The namespace stays quarantined",
        ) from error
    LOG.debug("ndctl clear-errors %s ended with %d; standard error: %s", name, done.returncode, done.stderr)
