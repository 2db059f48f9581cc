"""The namespaces of host and ledger at one moment, read without a lock and without a change.

Unlike a :class:`~vpmem_driver.pool.Pool`, a snapshot also shows a host on which something is broken.
"""

import contextlib
import dataclasses
import datetime
import pathlib
import time
from collections.abc import Iterator, Mapping

from oslo_config import cfg

from vpmem_driver import discovery, exception, model
from vpmem_driver.discovery import interface
from vpmem_driver.ledger import FILE_NAME, Move, Row
from vpmem_driver.ledger.reader import LedgerReader
from vpmem_driver.pool import hardware, labels, matching
from vpmem_driver.pool.progress import Progress, progress_of
from vpmem_driver.pool.state import RETIRED
from vpmem_driver.pool.view import View

#: To see whether a wipe makes progress, wait at most this long for its next report. A worker sends five a second.
_PATIENCE_SECONDS = 1.0
_POLL_SECONDS = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of a host.

    :ivar records: every namespace of host and ledger, sorted by name and uuid
    :ivar found: what discovery finds; None if it failed
    :ivar rows: rows of the ledger by uuid; empty if it cannot be read or does not exist yet
    :ivar moved_at: time of the last move by uuid
    :ivar active: uuids of the namespaces whose wipe or copy makes progress
    :ivar ledger: the ledger file
    :ivar has_ledger: whether the ledger was read
    :ivar errors: what could not be read, and the entries of the configuration that do not match the host
    :ivar is_retired: no owner gets a namespace of this host (:meth:`.Maintenance.retire`)
    """

    records: tuple[model.Record, ...]
    found: tuple[model.Namespace, ...] | None
    rows: Mapping[str, Row]
    moved_at: Mapping[str, datetime.datetime]
    active: frozenset[str]
    ledger: pathlib.Path
    has_ledger: bool
    errors: tuple[exception.VPMEMError, ...]
    is_retired: bool = False

    def progress(self, uuid: str | None) -> Progress | None:
        """Return the progress of a wipe or copy; None if there is none."""
        row = self.rows.get(uuid or "")
        return None if row is None else progress_of(row)

    @property
    def owners(self) -> frozenset[str]:
        """The owners that hold or have reserved a namespace."""
        return frozenset(row.owner for row in self.rows.values() if row.owner is not None)


def read(conf: cfg.ConfigOpts, *, source: interface.Discovery | None = None) -> Snapshot:
    """Return a snapshot of the host that `conf` describes. It takes at most a second longer than discovery.

    :param source: the discovery to use instead of ``[vpmem] discovery``
    :raises ConfigurationError: an option has the wrong form
    """
    config = labels.parse(conf.libvirt.pmem_namespaces)
    choice = hardware.from_conf(conf, config)
    source = source or discovery.from_conf(conf)
    errors: list[exception.VPMEMError] = []
    path = pathlib.Path(conf.vpmem.state_path, FILE_NAME)
    rows: dict[str, Row] = {}
    moved_at: dict[str, datetime.datetime] = {}
    active: frozenset[str] = frozenset()
    has_ledger = is_retired = False
    found: tuple[model.Namespace, ...] | None = None
    try:
        found = source.namespaces()
    except exception.VPMEMError as error:
        errors.append(error)
    try:
        with contextlib.suppress(FileNotFoundError), contextlib.closing(LedgerReader(path.parent)) as ledger:
            rows, moved_at = _contents(ledger)
            active = _active(ledger, rows)
            is_retired = ledger.marked(RETIRED)
            has_ledger = True
    except exception.VPMEMError as error:
        errors.append(error)
    records = _records(config, choice, found, rows, errors)
    return Snapshot(records, found, rows, moved_at, active, path, has_ledger, tuple(errors), is_retired)


def recent_moves(snapshot: Snapshot, since: datetime.datetime) -> Iterator[tuple[Move, datetime.datetime]]:
    """Yield the moves since a time, newest first, with their times. Without a ledger there are none."""
    if not snapshot.has_ledger:
        return
    with contextlib.closing(LedgerReader(snapshot.ledger.parent)) as ledger:
        for move in ledger.newest():
            at = datetime.datetime.fromisoformat(move.at)
            if at < since:
                return
            yield move, at


def _contents(ledger: LedgerReader) -> tuple[dict[str, Row], dict[str, datetime.datetime]]:
    with ledger.snapshot():
        rows = {row.uuid: row for row in ledger.rows()}
        times = ledger.moved_at()
    moved_at = {}
    for uuid, text in times.items():
        with contextlib.suppress(ValueError):
            moved_at[uuid] = datetime.datetime.fromisoformat(text)
    return rows, moved_at


def _active(ledger: LedgerReader, rows: Mapping[str, Row]) -> frozenset[str]:
    """Return the namespaces whose wipe or copy makes progress within the patience."""
    before = {row.uuid: progress for row in rows.values() if (progress := progress_of(row)) is not None}
    active: set[str] = set()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while before.keys() - active and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        now = {row.uuid: progress_of(row) for row in ledger.rows()}
        active |= {uuid for uuid, progress in before.items() if now.get(uuid) != progress}
    return frozenset(active)


def _records(
    config: labels.LabelConfig,
    choice: hardware.HardwareChoice,
    found: tuple[model.Namespace, ...] | None,
    rows: Mapping[str, Row],
    errors: list[exception.VPMEMError],
) -> tuple[model.Record, ...]:
    label_of: dict[str, int] = {}
    if found is not None:
        errors += _mismatches(config, found, rows)
        with contextlib.suppress(exception.InvalidNamespaceConfig):  # it is among the mismatches
            label_of = matching.match(config, found, rows, leave_out_absent=True, warn=_ignore)
    config, label_of = matching.keep_held(config, label_of, rows.values(), _ignore)
    usable = {ns.uuid: ns for ns in found or () if ns.uuid is not None and ns.unusable is None}
    view = View(config, found or (), usable, label_of, choice)
    records = list(view.records(rows.values()))
    if found is None:  # nothing is known about the devices
        records = [dataclasses.replace(record, state=rows[record.uuid or ""].state.value) for record in records]
    records += [view.unrecorded(ns) for uuid, ns in usable.items() if uuid not in rows]
    return tuple(sorted(records, key=lambda record: (record.name or "", record.uuid or "")))


def _mismatches(
    config: labels.LabelConfig, found: tuple[model.Namespace, ...], rows: Mapping[str, Row]
) -> list[exception.VPMEMError]:
    """Return the first error that the command line would report for `pmem_namespaces`."""
    try:
        matching.match(config, found, rows, warn=_ignore)
    except exception.InvalidNamespaceConfig as error:
        return [error]
    return []


def _ignore(_warning: str) -> None:
    """Ignore a warning that another error repeats."""
