"""Restore a ledger from a backup. What happened since the backup is not known, so it claims nothing about the bytes.

* A namespace that was not claimed is unknown: since then it may have been claimed, and may have anybody's content.
  A clean one too: it is no longer certain that every byte is zero.
* A claimed one stays claimed for its owner, so that nothing overwrites it, unless the domains say otherwise: if only
  other domains have it, it is unknown, and :mod:`vpmem_driver.checkup.agreement` finds whose it is.
* A departure of an export has ended, because no program runs. That of a move stays, and the move can be resumed or
  cancelled.
* One-time steps are to be done again: nova-compute trusts Nova's records once more, as with a new ledger.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from oslo_config import cfg

from vpmem_driver import discovery, exception
from vpmem_driver.ledger import FILE_NAME, Ledger, Row, replacement, state_directory
from vpmem_driver.ledger.reader import LedgerReader
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import State
from vpmem_driver.pool import comparison, copies
from vpmem_driver.pool.comparison import Use


@dataclasses.dataclass(frozen=True, slots=True)
class Restored:
    """What becomes of one namespace of the backup."""

    uuid: str
    name: str | None
    backup_state: str
    backup_owner: str | None
    state: str
    owner: str | None
    reason: str


def plan(conf: cfg.ConfigOpts, backup: pathlib.Path, domains: Domains) -> list[Restored]:
    """Return what :func:`restore` would do, and change nothing. Raises the same errors.

    :returns: sorted by name and uuid
    """
    directory = pathlib.Path(conf.vpmem.state_path)
    replacement.require_replaceable(directory)
    with _draft(None) as draft:
        return _prepare(conf, backup, draft, domains)


def restore(conf: cfg.ConfigOpts, backup: pathlib.Path, domains: Domains) -> tuple[list[Restored], pathlib.Path | None]:
    """Put a backup in the place of the ledger that `conf` describes, which is missing or damaged.

    :returns: as :func:`plan`; and the file that has the ledger that was there, if there was one
    :raises InvalidRequest: the backup cannot be used
    :raises LedgerError: the ledger is not damaged, or a program uses it
    :raises HostError: discovery or libvirt did not answer; nothing was changed
    """
    directory = pathlib.Path(conf.vpmem.state_path)
    replacement.require_replaceable(directory)
    with replacement.exclusive(directory), _draft(directory) as draft:
        replacement.require_replaceable(directory)  # again, now that nobody can change it
        restored = _prepare(conf, backup, draft, domains)
        return restored, replacement.replace(directory, draft / FILE_NAME)


@contextlib.contextmanager
def _draft(parent: pathlib.Path | None) -> Iterator[pathlib.Path]:
    """Make a directory for the draft, in `parent` or where temporary files are.

    :raises LedgerError: it cannot be made
    """
    try:
        made = tempfile.mkdtemp(prefix=".restore-", dir=parent)
    except OSError as error:
        raise state_directory.error_of(pathlib.Path(parent or tempfile.gettempdir(), FILE_NAME), error) from error
    try:
        yield pathlib.Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _prepare(conf: cfg.ConfigOpts, backup: pathlib.Path, draft: pathlib.Path, domains: Domains) -> list[Restored]:
    _copy(backup, draft / FILE_NAME)
    try:
        with contextlib.closing(Ledger(draft)) as ledger:  # checks it, and converts it from an older version
            with contextlib.closing(LedgerReader(draft)) as reader:
                reader.check_all()
            rows = ledger.rows()
            found = discovery.from_conf(conf).namespaces()
            uses = comparison.uses_of(domains.domain_xml(), found, rows)
            with ledger.transaction():
                restored = [_restore_row(ledger, row, uses) for row in rows]
                ledger.unmark_all()
    except (exception.LedgerCorrupt, exception.LedgerVersion) as error:
        raise _unusable(backup, error.reason) from error
    return restored


def _copy(backup: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the backup.

    :raises InvalidRequest: it cannot be read, or is not a copy in one file
    """
    try:
        if not stat.S_ISREG(backup.stat().st_mode):
            raise _unusable(backup, "it is not a regular file")
        log = backup.with_name(backup.name + "-wal")
        if log.is_file() and log.stat().st_size:
            raise _unusable(backup, f"a part of it is in {log}: it is not a backup, but a ledger in use")
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with backup.open("rb") as source, os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(source, copy)
    except (OSError, ValueError) as error:
        raise _unusable(backup, getattr(error, "strerror", None) or str(error)) from error


def _unusable(backup: pathlib.Path, reason: str) -> exception.InvalidRequest:
    return exception.InvalidRequest(
        what="file", value=backup, reason=reason, remedy="Give a file that 'vpmem ledger backup' has written"
    )


def _restore_row(ledger: Ledger, row: Row, uses: Mapping[str, Sequence[Use]]) -> Restored:
    now, reason = row, _other_users(row, uses.get(row.uuid, ()))
    if row.state is not State.CLAIMED:
        reason = f"{row.state} in the backup; it may have been claimed since"
    if row.state is not State.CLAIMED or reason is not None:
        now = ledger.move(row, State.UNKNOWN, f"ledger restored: {reason}")
    elif row.departure is not None and copies.ends_with_its_process(row.departure):
        now = ledger.depart(row, None)
    reason = reason or "claimed in the backup"
    return Restored(row.uuid, row.name, row.state, row.owner, now.state, now.owner, reason)


def _other_users(row: Row, uses: Sequence[Use]) -> str | None:
    """Return who has a claimed namespace instead of its owner; None if nobody has it, or its owner has."""
    if not uses or any(use.owner == row.owner for use in uses):
        return None
    return f"{uses[0].user} has it, not {row.owner}"
