"""How fast the wipes and copies of other processes are: the ledger has their progress, and is read a few times."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator

from vpmem_driver.pool import Progress, Row, progress_of

#: A worker reports about five times a second. The time between two reports gives a speed, if they are far enough apart.
_LEAST_SECONDS = 0.5
#: A listing waits no longer for them.
PATIENCE_SECONDS = 1.0
_POLL_SECONDS = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Speed:
    """Bytes per second of one wipe or copy, and about how many seconds are left."""

    bytes_per_second: float
    seconds_left: float


@dataclasses.dataclass(slots=True)
class _Watch:
    """The first and the last progress of a wipe or copy that was seen, with the times."""

    start: tuple[float, int]
    first: tuple[float, int] | None = None
    last: tuple[float, int] | None = None

    def see(self, now: float, done: int) -> None:
        newest = self.last or self.first or self.start
        if done < newest[1]:  # another one has begun
            self.start, self.first, self.last = (now, done), None, None
        elif done > newest[1]:
            if self.first is None:
                self.first = (now, done)
            else:
                self.last = (now, done)

    @property
    def is_done(self) -> bool:
        """Whether the speed is known well enough."""
        return self.first is not None and self.last is not None and self.last[0] - self.first[0] >= _LEAST_SECONDS

    def speed(self) -> float:
        """Return bytes per second; 0 without progress. The time before the first progress is known only roughly."""
        begin, end = (self.start, self.first) if self.last is None else (self.first, self.last)
        if begin is None or end is None or end[0] <= begin[0]:
            return 0.0
        return (end[1] - begin[1]) / (end[0] - begin[0])


def measure(
    read: Callable[[], Iterable[Row]],
    *,
    patience: float = PATIENCE_SECONDS,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[list[Row], dict[str, Speed]]:
    """Read the rows; if a wipe or copy has begun on any, read them until its speed is known or `patience` is over.

    :returns: the last rows, and the wipes and copies that make progress, by uuid
    """
    rows = list(read())
    begin = now()
    watches = {uuid: _Watch((begin, progress.done)) for uuid, progress in _under_way(rows)}
    while watches and now() - begin < patience and not all(watch.is_done for watch in watches.values()):
        sleep(_POLL_SECONDS)
        rows = list(read())
        for uuid, progress in _under_way(rows):
            if uuid in watches:
                watches[uuid].see(now(), progress.done)
    running = {}
    for uuid, progress in _under_way(rows):
        speed = watches[uuid].speed() if uuid in watches else 0.0
        if speed > 0:
            running[uuid] = Speed(speed, (progress.total - progress.done) / speed)
    return rows, running


def _under_way(rows: Iterable[Row]) -> Iterator[tuple[str, Progress]]:
    for row in rows:
        if (progress := progress_of(row)) is not None:
            yield row.uuid, progress
