"""The compiled table of one host's namespaces, kept in step with the ledger's rows."""

from collections.abc import Collection, Iterable, Sequence

from vpmem_driver import _fastalloc, ledger, model
from vpmem_driver.model import State
from vpmem_driver.pool.view import View

_TABLE_STATES = {
    State.CLEAN: _fastalloc.CLEAN,
    State.DIRTY: _fastalloc.DIRTY,
    State.UNKNOWN: _fastalloc.UNKNOWN,
    State.CLAIMED: _fastalloc.CLAIMED,
    State.QUARANTINED: _fastalloc.UNAVAILABLE,
}


class Table:
    """Chooses. It is made from the rows of one moment; :meth:`put` takes over each that has changed since.

    :ivar seen: the newest history line that is in it; who moves rows and the table alike says so (:meth:`saw`)
    """

    def __init__(self, view: View, rows: Sequence[ledger.Row], seen: int) -> None:
        self.seen = seen
        self._view = view
        self._uuids = [row.uuid for row in rows]
        self._index = {uuid: index for index, uuid in enumerate(self._uuids)}
        self._table = _fastalloc.NamespaceTable(
            [view.label_of.get(row.uuid, -1) for row in rows],
            [row.size for row in rows],
            [-1 if row.numa_node is None else row.numa_node for row in rows],
            [row.name or "" for row in rows],
            [self._state(row) for row in rows],
            [row.owner for row in rows],
        )

    def put(self, row: ledger.Row) -> None:
        """Take over state and owner of one row."""
        index = self._index.get(row.uuid)
        if index is not None:  # else another process discovered it, and this one has yet to
            self._table.put(index, self._state(row), row.owner)

    def saw(self, moved: Iterable[ledger.Row]) -> None:
        """Note that the moves of these rows, the newest of all, are in it."""
        self.seen = max((row.changed for row in moved), default=self.seen)

    def claim(
        self, owner: str, label_ids: Sequence[int], numa_node: int | None, barred: Iterable[ledger.Row]
    ) -> list[str] | None:
        """Choose and take one namespace for each label, leaving out those that are `barred`.

        :returns: their uuids in the order of the labels; None when there are not enough
        """
        barred = [row for row in barred if row.owner is None]
        for row in barred:
            self._table.put(self._index[row.uuid], _fastalloc.UNAVAILABLE, None)
        chosen = self._table.claim(owner, label_ids, -1 if numa_node is None else numa_node)
        for row in barred:
            self.put(row)
        return None if chosen is None else [self._uuids[index] for index in chosen]

    def claim_exact(self, owner: str, uuids: Sequence[str]) -> None:
        """Take exactly these, which are free."""
        self._table.claim_exact(owner, [self._index[uuid] for uuid in uuids])

    def shortage(self, label_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """How many are wanted and how many are free, for each label of which there are too few."""
        return self._table.shortage(label_ids)

    def release(self, owner: str, uuids: Collection[str]) -> None:
        """Take back exactly `uuids` from `owner`."""
        self._table.release_exact(owner, [self._index[uuid] for uuid in uuids])

    def inventory(self) -> tuple[model.Inventory, ...]:
        """How many of each label there are, in the order of the configuration."""
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
        if row.owner is None and row.uuid not in self._view.usable:
            return _fastalloc.UNAVAILABLE
        return _TABLE_STATES[row.state]
