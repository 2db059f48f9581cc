"""The ledger: where it is, who can change it, and whether there is room."""

import os
import pathlib
import stat
from collections.abc import Iterator

from vpmem_driver import hostpaths, storage
from vpmem_driver.checkup import finding
from vpmem_driver.checkup.finding import Finding
from vpmem_driver.faults import checks as faults
from vpmem_driver.pool.snapshot import Snapshot
from vpmem_driver.sizes import MIB, in_words

#: Free bytes below which the ledger cannot be used, and below which it soon cannot.
_LEAST, _LITTLE = 2 * MIB, 64 * MIB


def content(snapshot: Snapshot) -> Iterator[Finding]:
    """Report what was read. What could not be read is among the findings about namespaces."""
    if snapshot.has_ledger:
        yield finding.ok("ledger", f"{snapshot.ledger}: {len(snapshot.rows)} namespaces, checked")
    elif not os.path.lexists(snapshot.ledger):
        yield finding.ok(
            "ledger", f"{snapshot.ledger} does not exist yet; the first command that changes something makes it"
        )


def directory(path: pathlib.Path) -> Iterator[Finding]:
    """Check the directory of the ledger, or its nearest parent that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    yield from _access(path)
    kind = hostpaths.filesystem(str(path))
    if kind in storage.LOST:
        yield finding.warning("ledger storage", faults.LEDGER_STORAGE, f"{path} is on {kind}: {storage.LOST[kind]}")
    else:
        yield finding.ok("ledger storage", f"{path} is on {kind}")
    yield from _room(path)


def _access(path: pathlib.Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield finding.unseen("ledger access", f"{path}: {error.strerror}")
        return
    if mode & 0o022 and not mode & stat.S_ISVTX:
        yield finding.failure(
            "ledger access", faults.LEDGER_ACCESS, f"other users may write to {path} (mode {stat.S_IMODE(mode):04o})"
        )
    else:
        yield finding.ok("ledger access", f"only one user may write to {path}")


def _room(path: pathlib.Path) -> Iterator[Finding]:
    try:
        space = os.statvfs(path)
    except OSError as error:
        yield finding.unseen("ledger space", f"{path}: {error.strerror}")
        return
    free = space.f_bavail * space.f_frsize
    if space.f_flag & os.ST_RDONLY:
        yield finding.failure(
            "ledger space", faults.LEDGER_SPACE, f"the filesystem of {path} is read-only", "Mount it read-write"
        )
    elif free < _LEAST:
        yield finding.failure("ledger space", faults.LEDGER_SPACE, f"{in_words(free)} are free in {path}")
    elif free < _LITTLE:
        yield finding.warning("ledger space", faults.LEDGER_SPACE, f"only {in_words(free)} are free in {path}")
    else:
        yield finding.ok("ledger space", f"{in_words(free)} free")
