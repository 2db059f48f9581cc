"""The compiled table of one host's namespaces, kept in step with the ledger's rows."""

import logging
from collections.abc import Iterable, Sequence

from vpmem_driver import _fastalloc, ledger, model
from vpmem_driver.model import State
from vpmem_driver.pool.view import View

LOG = logging.getLogger(__name__)

_TABLE_STATES = {
    State.CLEAN: _fastalloc.CLEAN,
    State.DIRTY: _fastalloc.DIRTY,
    State.UNKNOWN: _fastalloc.UNKNOWN,
    State.CLAIMED: _fastalloc.CLAIMED,
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
        self._uuids = [row.uuid for row in rows]
        self._index = {uuid: index for index, uuid in enumerate(self._uuids)}
        self._table = _fastalloc.NamespaceTable(
            [view.label_of.get(row.uuid, -1) for row in rows],
            [row.size for row in rows],
            [-1 if row.numa_node is None or not 0 <= row.numa_node < _MOST_NODES else row.numa_node for row in rows],
            [row.name or "" for row in rows],
            [self._state(row) for row in rows],
            [row.owner for row in rows],
        )

    def put(self, row: ledger.Row) -> None:
        """Update state and owner of one row."""
        index = self._index.get(row.uuid)
        if index is not None:  # otherwise another process discovered it, and this process has not yet
            self._table.put(index, self._state(row), row.owner)

    def follow(self, moved: Iterable[ledger.Row]) -> None:
        """Update these rows, whose moves are newer than all others in the table."""
        for row in moved:
            self.put(row)
            self.seen = max(self.seen, row.changed)

    def claim(
        self, owner: str, label_ids: Sequence[int], numa_node: int | None, barred: Iterable[ledger.Row]
    ) -> list[str] | None:
        """Choose one namespace for each label, except those of `barred`, and mark them as taken.

        :returns: their uuids in the order of the labels; None if there are not enough
        """
        barred = [row for row in barred if row.owner is None]
        for row in barred:
            if (index := self._index.get(row.uuid)) is not None:
                self._table.put(index, _fastalloc.UNAVAILABLE, None)
        chosen = self._table.claim(owner, label_ids, -1 if numa_node is None else numa_node)
        for row in barred:
            self.put(row)
        return None if chosen is None else [self._uuids[index] for index in chosen]

    def shortage(self, label_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return the wanted and the free number for each label that has too few, by label index."""
        return self._table.shortage(label_ids)

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
            return _fastalloc.CLAIMED if row.state is State.CLAIMED else _fastalloc.DIRTY  # reserved
        return _TABLE_STATES[row.state] if row.uuid in self._view.usable else _fastalloc.UNAVAILABLE


def _representable(rows: Sequence[ledger.Row]) -> list[ledger.Row]:
    """Return the rows that the table can hold. A row with an impossible size must not block the others."""
    for row in rows:
        if row.size > _MOST_BYTES:
            LOG.warning(
                "Namespace %s (%s) is ignored: the ledger records an impossible size of %d bytes. "
                "'vpmem namespace show %s' shows its record",
                *(row.name, row.uuid, row.size, row.uuid),
            )
    return [row for row in rows if row.size <= _MOST_BYTES]
