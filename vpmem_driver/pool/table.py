"""The compiled table of one host's namespaces, kept in step with the ledger's rows."""

import logging
from collections.abc import Collection, Iterable, Sequence

from vpmem_driver import _fastalloc, ledger, model
from vpmem_driver.model import State
from vpmem_driver.pool.view import View

LOG = logging.getLogger(__name__)

_TABLE_STATES = {
    State.CLEAN: _fastalloc.CLEAN,
    State.DIRTY: _fastalloc.DIRTY,
    State.UNKNOWN: _fastalloc.UNKNOWN,
    State.QUARANTINED: _fastalloc.UNAVAILABLE,
}

#: The table's nodes are C ints.
_MOST_NODES = 2**31
#: More bytes than any device has (physical addresses of x86-64 have 52 bits). The sum of 2048 such sizes fits 64 bits.
_MOST_BYTES = 2**52


class Table:
    """Chooses namespaces for claims. It is built from ledger rows; :meth:`put` updates it for each row that changes.

    :ivar seen: id of the newest history line that the table includes
    """

    def __init__(self, view: View, rows: Sequence[ledger.Row], seen: int) -> None:
        self.seen = seen
        self._view = view
        rows = _representable(rows)
        self._columns = _columns(view, rows)
        self._uuids, self._labels, sizes, nodes, names = self._columns
        self._index = {uuid: index for index, uuid in enumerate(self._uuids)}
        self._states = [self._state(row) for row in rows]
        self._free = {uuid for uuid, state in zip(self._uuids, self._states, strict=True) if _is_free(state)}
        self._table = _fastalloc.NamespaceTable(self._labels, sizes, nodes, names, self._states)

    def follow_host(self, view: View, rows: Sequence[ledger.Row], seen: int) -> bool:
        """Update the table after a reconcile.

        :param rows: all rows of the ledger
        :returns: False if namespaces, labels, sizes, nodes or names have changed, so that a new table is needed
        """
        rows = _representable(rows)
        if _columns(view, rows) != self._columns:
            return False
        self._view = view
        self.seen = seen
        for row in rows:
            self.put(row)
        return True

    def put(self, row: ledger.Row) -> None:
        """Update state and owner of one row."""
        index = self._index.get(row.uuid)
        if index is None:
            return  # another process discovered it, and this process has not yet
        state = self._state(row)
        if state != self._states[index]:
            self._states[index] = state
            self._table.put(index, state)
            (self._free.add if _is_free(state) else self._free.discard)(row.uuid)

    def follow(self, moved: Iterable[ledger.Row]) -> None:
        """Update these rows, whose moves are newer than all others in the table."""
        for row in moved:
            self.put(row)
            self.seen = max(self.seen, row.changed)

    def choose(
        self, label_ids: Sequence[int], numa_node: int | None = None, without: Collection[str] = ()
    ) -> list[str] | None:
        """Choose one free namespace for each label. They stay free until :meth:`follow` or :meth:`put`.

        :param without: uuids of namespaces that must not be chosen
        :returns: their uuids in the order of the labels; None if there are not enough
        """
        barred = [self._index[uuid] for uuid in self._free.intersection(without)]
        for index in barred:
            self._table.put(index, _fastalloc.UNAVAILABLE)
        chosen = self._table.choose(label_ids, -1 if numa_node is None else numa_node)
        for index in barred:
            self._table.put(index, self._states[index])
        return None if chosen is None else [self._uuids[index] for index in chosen]

    def free(self, label_id: int, without: Collection[str] = ()) -> int:
        """Return the number of free namespaces of a label, not counting `without`."""
        clean, dirty, unknown, _, _ = self._table.counts(label_id)
        barred = [uuid for uuid in self._free.intersection(without) if self._labels[self._index[uuid]] == label_id]
        return clean + dirty + unknown - len(barred)

    def shortage(self, label_ids: Sequence[int], without: Collection[str] = ()) -> dict[int, tuple[int, int]]:
        """Return the wanted and the free number, not counting `without`, for each label that has too few."""
        wanted = {label: (label_ids.count(label), self.free(label, without)) for label in dict.fromkeys(label_ids)}
        return {label: (count, free) for label, (count, free) in wanted.items() if free < count}

    def inventory(self) -> tuple[model.Inventory, ...]:
        """Return the number of namespaces of each label, in the order of the configuration."""
        config = self._view.config
        return tuple(
            model.Inventory(
                label=label,
                resource_class=resource_class,
                total=sum(count := self._table.counts(index)),
                clean=count[0],
                dirty=count[1],
                unknown=count[2],
                claimed=count[3],
                unavailable=count[4],
            )
            for index, (label, resource_class) in enumerate(zip(config.labels, config.resource_classes, strict=True))
        )

    def _state(self, row: ledger.Row) -> int:
        if row.owner is not None:
            return _fastalloc.CLAIMED  # or reserved
        return _TABLE_STATES[row.state] if row.uuid in self._view.usable else _fastalloc.UNAVAILABLE


def _is_free(state: int) -> bool:
    return state <= _fastalloc.UNKNOWN


def _columns(view: View, rows: Sequence[ledger.Row]) -> tuple[list[str], list[int], list[int], list[int], list[str]]:
    """Return the uuids, labels, sizes, nodes and names of the rows, as arguments of the compiled table."""
    return (
        [row.uuid for row in rows],
        [view.label_of.get(row.uuid, -1) for row in rows],
        [row.size for row in rows],
        [-1 if row.numa_node is None or not 0 <= row.numa_node < _MOST_NODES else row.numa_node for row in rows],
        [row.name or "" for row in rows],
    )


def _representable(rows: Sequence[ledger.Row]) -> Sequence[ledger.Row]:
    """Return the rows that the table can hold. A row with an impossible size must not block the others."""
    for row in rows:
        if row.size > _MOST_BYTES:
            LOG.warning(
                "Namespace %s (%s) is ignored: the ledger records an impossible size of %d bytes. "
                "'vpmem namespace show %s' shows its record",
                *(row.name, row.uuid, row.size, row.uuid),
            )
    return [row for row in rows if row.size <= _MOST_BYTES]
