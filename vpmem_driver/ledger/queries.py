"""The questions that the ledger answers. None of them changes it."""

import dataclasses
from collections.abc import Collection, Iterator

import msgspec

from vpmem_driver.ledger import file
from vpmem_driver.ledger.rows import Move, Row

#: Number of history lines read at a time.
_HISTORY_CHUNK = 1000
_ROW_COLUMNS = ", ".join(Row.__struct_fields__)
_MOVE_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Move))


class Queries(file.LedgerFile):
    """The part of a ledger that reads."""

    def rows(self) -> list[Row]:
        """Return every namespace ever recorded, sorted by name and uuid."""
        return self._select("ORDER BY name, uuid")

    def row(self, uuid: str) -> Row | None:
        """Return the row of one namespace."""
        return next(iter(self._select("WHERE uuid = ?", uuid)), None)

    def rows_of(self, uuids: Collection[str]) -> list[Row]:
        """Return the rows of these namespaces, in no order, without those that are not recorded."""
        return self._select(f"WHERE uuid IN ({', '.join('?' * len(uuids))})", *uuids)

    def named(self, name: str, uuids: Collection[str] = ()) -> list[Row]:
        """Return the namespaces with that name, and those of `uuids`, sorted by name and uuid."""
        wanted = ", ".join("?" * len(uuids))
        return self._select(f"WHERE name = ? OR uuid IN ({wanted}) ORDER BY name, uuid", name, *uuids)

    def held(self, owner: str) -> list[Row]:
        """Return the namespaces that `owner` holds or has reserved, in the order of its devices."""
        return self._select("WHERE owner = ? ORDER BY position", owner)

    def departing(self) -> list[Row]:
        """Return the namespaces whose content a copy takes away."""
        return self._select("WHERE departure IS NOT NULL ORDER BY name, uuid")

    def next_position(self, owner: str) -> int:
        """Return the position for the next device of `owner`, after all that it holds or has reserved."""
        with self._lock:
            ((position,),) = self._fetch(
                "SELECT coalesce(max(position), -1) + 1 FROM namespace WHERE owner = ?", (owner,)
            )
            return int(position)

    def changed_since(self, move_id: int) -> list[Row]:
        """Return the rows that moved after history line `move_id`."""
        return self._select("WHERE uuid IN (SELECT uuid FROM history WHERE id > ?)", move_id)

    def last_move(self) -> int:
        """Return the id of the newest history line, 0 if there is none."""
        with self._lock:
            ((move_id,),) = self._fetch("SELECT coalesce(max(id), 0) FROM history")
            return int(move_id)

    def history(self, *, uuid: str | None = None, owner: str | None = None, limit: int | None = None) -> Iterator[Move]:
        """Yield the newest `limit` lines (None: all), oldest first, of one namespace or owner if given.

        Lines are read on demand, in bounded memory, and no transaction remains open in between.
        """
        chosen = "(? IS NULL OR uuid = ?) AND (? IS NULL OR owner = ?)"
        values = (uuid, uuid, owner, owner)
        with self._lock:
            ((before, last),) = self._fetch(
                f"SELECT min(id) - 1, max(id) FROM (SELECT id FROM history WHERE {chosen} ORDER BY id DESC LIMIT ?)",  # noqa: S608
                (*values, -1 if limit is None else limit),
            )
        while True:
            with self._lock:
                lines = self._fetch(
                    f"SELECT {_MOVE_COLUMNS} FROM history WHERE id > ? AND id <= ? AND {chosen} ORDER BY id LIMIT ?",  # noqa: S608
                    (before, last, *values, _HISTORY_CHUNK),
                )
            if not lines:
                return
            yield from (Move(*line) for line in lines)
            before = lines[-1][0]

    def marked(self, name: str) -> bool:
        """Return whether :meth:`mark` has recorded `name`."""
        with self._lock:
            return bool(self._fetch("SELECT 1 FROM mark WHERE name = ?", (name,)))

    def _select(self, rest: str, *values: object) -> list[Row]:
        with self._lock:
            found = self._fetch(f"SELECT {_ROW_COLUMNS} FROM namespace {rest}", values)  # noqa: S608
        try:
            return msgspec.convert(found, list[Row], strict=False)  # converts SQLite's 0 and 1 to bool
        except msgspec.ValidationError as error:
            raise self._corrupt(str(error)) from error
