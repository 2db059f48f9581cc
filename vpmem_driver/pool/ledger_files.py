"""Checks and backups of the ledger for front ends, without a lock and without a change."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator

from oslo_config import cfg

from vpmem_driver import exception
from vpmem_driver.ledger import FILE_NAME
from vpmem_driver.ledger.reader import LedgerReader


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """A ledger without faults.

    :ivar namespaces: number of namespaces
    :ivar changes: number of lines of the history
    """

    path: pathlib.Path
    namespaces: int
    changes: int


def check(conf: cfg.ConfigOpts) -> Checked:
    """Check the whole ledger.

    :raises LedgerError: it does not exist, cannot be read, or is damaged
    """
    with _reader(conf) as ledger:
        return Checked(ledger.path, len(ledger.rows()), ledger.check_all())


def backup(conf: cfg.ConfigOpts, path: pathlib.Path) -> None:
    """Write a copy of the ledger to a new file.

    :raises FileExistsError: the file exists
    :raises OSError: the file cannot be written
    :raises LedgerError: the ledger does not exist, cannot be read, or is damaged
    """
    with _reader(conf) as ledger:
        ledger.check_all()
        ledger.backup(path)


@contextlib.contextmanager
def _reader(conf: cfg.ConfigOpts) -> Iterator[LedgerReader]:
    path = pathlib.Path(conf.vpmem.state_path, FILE_NAME)
    try:
        ledger = LedgerReader(path.parent)
    except FileNotFoundError as error:
        raise exception.LedgerError(
            path=path, reason="it does not exist yet", remedy="Check [vpmem] state_path"
        ) from error
    with contextlib.closing(ledger):
        yield ledger
