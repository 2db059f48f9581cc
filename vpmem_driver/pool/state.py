"""The state of a pool: the ledger, a view of discovery, and the compiled table, kept consistent.

The ledger is authoritative, and the table only chooses: each transaction first updates it from the ledger. The table is
built again if the host's namespaces or their labels change, and after a failed transaction.
"""

import contextlib
import dataclasses
import logging
import operator
import threading
from collections.abc import Iterator, Mapping, Sequence

from vpmem_driver import exception, model
from vpmem_driver.discovery import interface
from vpmem_driver.ledger import Ledger, Row
from vpmem_driver.model import State
from vpmem_driver.pool import labels, matching, reservations, volatile
from vpmem_driver.pool.hardware import HardwareChoice
from vpmem_driver.pool.table import Table
from vpmem_driver.pool.view import View

LOG = logging.getLogger(__name__)

#: The ledger's mark of a host that is retired.
RETIRED = "retired"
#: Modes of a dax device whose memory others write to, see :class:`vpmem_driver.model.Namespace`.
_USED_BY_OTHERS = frozenset({"system-ram", "fsdev"})

#: The fields that ledger rows and discovered namespaces have in common.
_description = operator.attrgetter("name", "size", "align", "numa_node", "mode", "device", "pmem")


class PoolState:
    """Ledger, view and table of one host. Call :meth:`reconcile` first."""

    view: View
    #: configured label index by uuid; a held namespace may still have another label
    configured: dict[str, int]
    #: problems of the configuration on this host, as of the last reconcile
    _warnings: list[str]

    def __init__(
        self,
        label_config: labels.LabelConfig,
        source: interface.Discovery,
        ledger: Ledger,
        *,
        leave_out_absent: bool = False,
        hardware: HardwareChoice | None = None,
    ) -> None:
        self.config = label_config
        self._leave_out_absent = leave_out_absent
        self.discovery = source
        self.ledger = ledger
        self.hardware = hardware or HardwareChoice()
        self._lock = threading.RLock()
        self._table: Table | None = None
        self._warned: list[str] = []

    def reconcile(self) -> None:
        """Discover the host's namespaces again: record new ones as unknown, keep the rows of missing ones.

        A volatile namespace whose state is of an earlier boot of the host loses its content.

        :raises DiscoveryFailed: discovery failed, or found no usable namespace although the ledger has some
        :raises BootUnknown: there is volatile memory, and the id of this boot cannot be read
        :raises InvalidNamespaceConfig: ``pmem_namespaces`` does not match the host
        :raises LedgerError: the ledger could not be read or written
        """
        found = self.discovery.namespaces()
        usable = {ns.uuid: ns for ns in found if ns.uuid is not None and ns.unusable is None}
        boot = volatile.boot_id() if any(ns.volatile for ns in usable.values()) else None
        with self._transaction():
            rows = {row.uuid: row for row in self.ledger.rows()}
            if rows and not usable:
                held = [f"{row.owner} holds {row.name}" for row in rows.values() if row.owner is not None]
                raise exception.DiscoveryFailed(
                    source=self.discovery.name,
                    reason="; ".join([f"it found no usable namespace, but the ledger has {len(rows)}", *held]),
                    remedy="Bring the devices or the directory back. If they are permanently gone, move the ledger "
                    f"{self.ledger.path} away",
                )
            warnings: list[str] = []
            configured = matching.match(
                self.config, found, rows, leave_out_absent=self._leave_out_absent, warn=warnings.append
            )
            changed = False
            for uuid, namespace in usable.items():
                changed |= self._record(namespace, rows.get(uuid), boot if namespace.volatile else None)
            changed |= self._distrust_used(found, rows)
            self.configured, self._warnings = configured, warnings
            self.view = View(self.config, found, usable, configured, self.hardware)
            self.label_held(self.ledger.rows() if changed else list(rows.values()))

    def _distrust_used(self, found: Sequence[model.Namespace], rows: Mapping[str, Row]) -> bool:
        """Distrust the zeros of memory that the kernel or a filesystem uses now. Return whether that changed a row."""
        used = filter(None, [rows.get(ns.uuid or "") for ns in found if ns.mode in _USED_BY_OTHERS])
        zeroed = [row for row in used if row.state is State.CLEAN or (row.state is State.DIRTY and row.wiped)]
        for row in zeroed:
            volatile.distrust_zeros(self.ledger, row, "the kernel or a filesystem uses its memory")
        return bool(zeroed)

    def _record(self, namespace: model.Namespace, row: Row | None, boot: str | None) -> bool:
        """Record what discovery reports about a namespace. Return whether that has changed its `row`.

        :param boot: id of this boot, if the namespace is volatile
        """
        if row is None:
            self.ledger.insert(namespace)
            if boot is not None:
                self.ledger.note_boot(namespace.uuid or "", boot)
            return True
        described = _description(row) != _description(namespace)
        if described:
            self._describe(row, namespace)
        if row.boot == boot or boot is None:
            return described
        volatile.lose_content(self.ledger, self.row(row.uuid), boot)
        LOG.warning("The host has restarted, so that volatile namespace %s has lost its content", row.name)
        return True

    def label_held(self, rows: Sequence[Row]) -> None:
        """Give each held namespace the label of its claim, and each other namespace the configured label.

        Call it inside a transaction.

        :param rows: all current rows of the ledger
        """
        warnings = list(self._warnings)
        config, label_of = matching.keep_held(self.config, self.configured, rows, warnings.append)
        self._warn(warnings)
        self.view = dataclasses.replace(self.view, config=config, label_of=label_of)
        if self._table is not None and not self._table.follow_host(self.view, rows, self.ledger.last_move()):
            self._table = None

    def _warn(self, warnings: list[str]) -> None:
        """Log the new warnings: each reconcile finds the old ones again."""
        known = frozenset(self._warned)
        for warning in warnings:
            if warning not in known:
                LOG.warning(warning)
        self._warned = warnings

    @contextlib.contextmanager
    def change(self, *, durable: bool = True) -> Iterator[Table]:
        """Run one ledger transaction, with a table that includes all earlier moves."""
        with self._transaction(durable=durable):
            yield self._current_table()

    @contextlib.contextmanager
    def read(self) -> Iterator[Table]:
        """Yield a table that includes all moves so far, without a transaction: other processes may move namespaces."""
        with self._lock:
            yield self._current_table()

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[None]:
        with self._lock:
            try:
                with self.ledger.transaction(durable=durable):
                    yield
            except BaseException:
                self._table = None  # it may contain changes that the ledger rolled back
                raise

    def _current_table(self) -> Table:
        last_move = self.ledger.last_move()  # read first: a row that moves after this is put again, which is harmless
        if self._table is None:
            self._table = Table(self.view, self.ledger.rows(), last_move)
        if last_move != self._table.seen:
            for row in self.ledger.changed_since(self._table.seen):
                self._table.put(row)
            self._table.seen = last_move
        return self._table

    def require_in_service(self) -> None:
        """Verify that the host is not retired.

        :raises HostRetired: it is
        """
        if self.ledger.marked(RETIRED):
            raise exception.HostRetired

    def row(self, uuid: str) -> Row:
        """Return the ledger's row of a namespace.

        :raises UnknownNamespace: the ledger has no such namespace
        """
        row = self.ledger.row(uuid)
        if row is None:
            raise exception.UnknownNamespace(namespace=uuid)
        return row

    def rows(self, uuids: Sequence[str]) -> list[Row]:
        """Return the ledger's rows of different namespaces, in the order of `uuids`.

        :raises UnknownNamespace: the ledger does not have one of them
        """
        found = {row.uuid: row for row in self.ledger.rows_of(uuids)}
        for uuid in uuids:
            if uuid not in found:
                raise exception.UnknownNamespace(namespace=uuid)
        return [found[uuid] for uuid in uuids]

    def move(
        self,
        row: Row,
        state: State,
        why: str,
        *,
        owner: str | None = None,
        position: int | None = None,
        reservation: str | None = None,
        label: str | None = None,
        keep_wipe: bool = False,
        reason: str | None = None,
        arrival: str | None = None,
        hardware: model.Hardware | None = None,
    ) -> Row:
        """Move a row to a state in the ledger.

        :param label: its new label; None keeps the current one
        :param hardware: what a new owner's device is; None: as configured
        :returns: the new row
        """
        namespace = self.view.usable.get(row.uuid)
        index = self.view.label_of.get(row.uuid)
        if label is None and index is not None:
            label = self.view.config.labels[index]
        if owner is not None and owner != row.owner and hardware is None:
            hardware = self.hardware.choose(row, label)
        return self.ledger.move(
            row,
            state,
            why,
            owner=owner,
            position=position,
            reservation=reservation,
            label=label,
            device=None if namespace is None or owner is None else namespace.device,
            keep_wipe=keep_wipe,
            reason=reason,
            arrival=arrival,
            hardware=hardware,
        )

    def _describe(self, row: Row, namespace: model.Namespace) -> None:
        """Record in the ledger what discovery reports about a known namespace."""
        if row.size != namespace.size and row.state is State.CLEAN:
            LOG.warning(
                "Size of %s changed from %d to %d bytes; its state is unknown now", row.name, row.size, namespace.size
            )
            if row.reservation is not None:
                reservations.cancel(
                    self.ledger,
                    reservations.members(self.ledger, row),
                    f"claim cancelled: the size of {row.name} changed",
                )
            self.ledger.move(self.row(row.uuid), State.UNKNOWN, "size changed")
        elif row.size != namespace.size and row.owner is not None:
            LOG.warning(
                "Size of %s changed from %d to %d bytes; %s holds it, so its state is kept",
                *(row.name, row.size, namespace.size, row.owner),
            )
        self.ledger.describe(row, namespace)


def names(rows: Sequence[Row]) -> str:
    """Return the name and uuid of each row, for a message."""
    return ", ".join(f"{row.name} ({row.uuid})" for row in rows)
