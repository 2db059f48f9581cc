"""Remove old lines of the history that nothing needs any more."""

import datetime
import itertools
import json
import time

from vpmem_driver.ledger import file

#: Lines read at a time, and removed in one transaction: a claim waits a few milliseconds at most.
_BATCH = 1000
#: Pause after each transaction, in which other threads and processes write.
_PAUSE_SECONDS = 0.01
_INTERVAL = datetime.timedelta(days=1)
_MARK = "history pruned"


class PrunableFile(file.LedgerFile):
    """A ledger file whose history does not grow without limit."""

    def prune_history(self, days: int) -> int:
        """Remove the lines that are older than `days` days, in small transactions, at most once in 24 hours.

        What explains the state of a namespace stays, however old: all lines since it last became claimed or unknown. So
        its newest line always stays, and no id is used twice. The pages become free for new lines; the file keeps its
        size.

        :returns: the number of removed lines
        :raises LedgerError: the ledger could not be read or written; the lines of a transaction are removed or not
        """
        now = datetime.datetime.now(datetime.UTC)
        limit = _text(now - datetime.timedelta(days=days))
        if not self._is_due(now, limit):
            return 0
        with self.transaction(durable=False):
            self._execute(
                "INSERT INTO mark (name, at) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET at = excluded.at",
                (_MARK, _text(now)),
            )
        return self._remove(limit, self._explained_from())

    def _is_due(self, now: datetime.datetime, limit: str) -> bool:
        with self._lock:
            ((oldest, pruned),) = self._fetch(
                "SELECT (SELECT at FROM history ORDER BY id LIMIT 1), (SELECT at FROM mark WHERE name = ?)", (_MARK,)
            )
        is_recent = pruned is not None and _text(now - _INTERVAL) < pruned <= _text(now)
        return oldest is not None and oldest < limit and not is_recent

    def _explained_from(self) -> dict[str, int]:
        """Return, by uuid, the id of the line from which on the history explains the namespace's state.

        A line that another process adds meanwhile only moves that id up.
        """
        found: dict[str, int] = {}
        last, end = 0, 0
        with self._lock:
            ((end,),) = self._fetch("SELECT coalesce(max(id), 0) FROM history")
        while last < end:
            with self._lock:
                found |= dict(
                    self._fetch(
                        "SELECT uuid, max(id) FROM history WHERE id > ? AND id <= ? "
                        "AND to_state IN ('claimed', 'unknown') AND from_state IS NOT to_state GROUP BY uuid",
                        (last, last + _BATCH),
                    )
                )
            last += _BATCH
        return found

    def _remove(self, limit: str, explained_from: dict[str, int]) -> int:
        """Remove lines from the oldest on, to the first that is not older than `limit`."""
        removed = last = 0
        while True:
            with self._lock:
                lines = self._fetch("SELECT id, at, uuid FROM history WHERE id > ? ORDER BY id LIMIT ?", (last, _BATCH))
            old = list(itertools.takewhile(lambda line: line[1] < limit, lines))
            unneeded = [line_id for line_id, _, uuid in old if line_id < explained_from.get(uuid, 0)]
            if unneeded:
                with self.transaction(durable=False):
                    self._execute(
                        "DELETE FROM history WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(unneeded),)
                    )
                removed += len(unneeded)
                time.sleep(_PAUSE_SECONDS)
            if not old or len(old) < len(lines):
                return removed
            last = old[-1][0]


def _text(at: datetime.datetime) -> str:
    """Return a time as the history has it."""
    return at.isoformat(timespec="milliseconds")
