"""Compares what every process was told with the ledger and the bytes. It uses no code of the package.

The history of the ledger orders all moves of all processes, and each line of an account says between which two lines
its operation was. So for each operation that was reported done there is exactly one line of the history, and for each
line of the history that gives or takes a namespace exactly one operation.
"""

import bisect
import collections
import dataclasses
import json
import pathlib
import random
import sqlite3

from . import host

#: How many violations are kept: the first ones say what has happened.
MOST_VIOLATIONS = 20
#: How many namespaces are read at each look.
SAMPLES = 6


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One line of the history."""

    id: int
    uuid: str
    before: str | None
    after: str
    owner: str | None
    reason: str


@dataclasses.dataclass
class Life:
    """What the history says of one namespace.

    :ivar holder: who holds it now
    :ivar contains: whose bytes may be in it: the last holder, until it is wiped
    :ivar ids: of its lines, in their order
    :ivar states: state and holder after each of these lines
    """

    state: str | None = None
    holder: str | None = None
    contains: str | None = None
    ids: list[int] = dataclasses.field(default_factory=list)
    states: list[tuple[str, str | None]] = dataclasses.field(default_factory=list)

    def between(self, first: int, last: int) -> list[tuple[str, str | None]]:
        """Every state and holder that it had from line `first` to line `last`, both included."""
        begin = max(bisect.bisect_right(self.ids, first) - 1, 0)
        return self.states[begin : max(bisect.bisect_right(self.ids, last), begin + 1)]


@dataclasses.dataclass
class Waits:
    """How long callers waited for one kind of operation."""

    done: int = 0
    refused: int = 0
    seconds: float = 0.0
    longest: float = 0.0


class Checker:
    """:meth:`look` at intervals, and :meth:`finish` when every process has ended."""

    def __init__(self, where: host.Host, rng: random.Random) -> None:
        self._host = where
        self._rng = rng
        self._database: sqlite3.Connection | None = None
        self._read: dict[pathlib.Path, int] = {}
        self._lives: dict[str, Life] = collections.defaultdict(Life)
        self._last_line = 0
        self._unchecked: list[dict] = []
        #: ids of the lines that no operation was told of yet, by owner and uuid
        self._given: dict[tuple[str | None, str], list[int]] = {}
        self._taken: dict[tuple[str | None, str], list[int]] = {}
        #: what the owner has written last; None while it writes
        self._written: dict[tuple[str, str], int | None] = {}
        self.waits: dict[str, Waits] = collections.defaultdict(Waits)
        self.operations: collections.Counter[str] = collections.Counter()
        self.samples = 0
        self.violations: list[str] = []

    @property
    def total(self) -> int:
        return sum(self.operations.values())

    @property
    def history_lines(self) -> int:
        return self._last_line

    def look(self) -> None:
        """Check all that was written since the last look, and the bytes of a few namespaces."""
        self._read_accounts()  # first: what was told is in the history that is read then
        told, self._unchecked = self._unchecked, []
        self._read_history()
        for operation in told:
            self._check(operation)
        for path in self._rng.sample(sorted(self._host.memory.iterdir()), SAMPLES):
            self._check_bytes(path)

    def finish(self) -> None:
        """Every process has released what it held, and has ended."""
        self.look()
        for what, lines in (("given to", self._given), ("taken from", self._taken)):
            for (owner, uuid), ids in lines.items():
                self._wrong(f"lines {ids} of the history: {uuid} was {what} {owner}, and nobody was told")
        for name, state, owner, reservation in self._query("SELECT name, state, owner, reservation FROM namespace"):
            if owner is not None or reservation is not None or state not in {"clean", "dirty", "unknown"}:
                self._wrong(f"at the end {name} is {state}, owner {owner}, reservation {reservation}")
        ((verdict,),) = self._query("PRAGMA integrity_check")
        if verdict != "ok":
            self._wrong(f"integrity_check: {verdict}")

    def finish_wiped(self) -> None:
        """All that was dirty is wiped."""
        self._read_history()
        for uuid, name, state in self._query("SELECT uuid, name, state FROM namespace"):
            if state == "clean" and not host.is_zero(self._host.memory / name):
                self._wrong(f"at the end {name} ({uuid}) is clean and not all zero")
            if state not in {"clean", "unknown"}:
                self._wrong(f"at the end {name} ({uuid}) is wiped, and {state}")

    def close(self) -> None:
        """Close the ledger."""
        if self._database is not None:
            self._database.close()

    def _wrong(self, what: str) -> None:
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(what)

    def _query(self, statement: str, *values: object) -> list[tuple]:
        if self._database is None:
            uri = f"{self._host.ledger.as_uri()}?mode=ro"
            self._database = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)
        return self._database.execute(statement, values).fetchall()

    # The accounts

    def _read_accounts(self) -> None:
        """Read what was written down since the last time. The operations are checked at the next look."""
        for path in sorted(self._host.root.glob("*.account")):
            begin = self._read.get(path, 0)
            with path.open("rb") as file:
                file.seek(begin)
                text = file.read()
            complete, _, _ = text.rpartition(b"\n")
            self._read[path] = begin + len(complete) + 1 if complete else begin
            for line in complete.splitlines():
                entry = json.loads(line)
                if "writes" in entry:
                    owner, uuid, generation = entry["writes"]
                    self._written[owner, uuid] = generation
                else:
                    self._unchecked.append(entry)
                    self.operations[path.stem] += 1

    def _check(self, told: dict) -> None:
        kind, owner, first, last = told["kind"], told.get("owner"), told.get("first", 0), told.get("last", 0)
        waits = self.waits[kind]
        waits.refused += bool(told.get("refused"))
        waits.done += not told.get("refused")
        waits.seconds += told.get("seconds", 0.0)
        waits.longest = max(waits.longest, told.get("seconds", 0.0))
        if told.get("failed"):
            self._wrong(f"{kind}: {told['failed']}")
        for uuid in told.get("got", ()):
            self._match(self._given, kind, owner, uuid, first, last)
        for uuid in told.get("gave", ()):
            self._match(self._taken, kind, owner, uuid, first, last)
        for uuid in told.get("kept", ()):
            if any(holder != owner for _, holder in self._lives[uuid].between(first, last)):
                self._wrong(f"{kind}: {owner} was told that it holds {uuid}, and it did not (lines {first} to {last})")
        for uuid in told.get("wiped", ()):
            if all(state == "dirty" for state, _ in self._lives[uuid].between(first, last)):
                self._wrong(f"{kind}: {uuid} was said to be wiped, and was dirty (lines {first} to {last})")
        if told.get("seen"):
            uuid, state, holder = told["seen"]
            holder = holder if state == "claimed" else None
            if (state, holder) not in self._lives[uuid].between(first, last):
                self._wrong(
                    f"{kind}: {uuid} was listed as {state} for {holder}, which it was at no time of lines {first} to "
                    f"{last}"
                )

    def _match(
        self,
        lines: dict[tuple[str | None, str], list[int]],
        kind: str,
        owner: str | None,
        uuid: str,
        first: int,
        last: int,
    ) -> None:
        """Find the one line of the history for what somebody was told, and take it off the list."""
        ids = lines.get((owner, uuid), [])
        found = [move for move in ids if first < move <= last]
        if len(found) != 1:
            self._wrong(f"{kind}: {owner} was told of {uuid}, and lines {first} to {last} have it {len(found)} times")
            return
        ids.remove(found[0])
        if not ids:
            del lines[owner, uuid]

    # The history

    def _read_history(self) -> None:
        if not self._host.ledger.exists():
            return
        statement = "SELECT id, uuid, from_state, to_state, owner, reason FROM history WHERE id > ? ORDER BY id"
        for line in self._query(statement, self._last_line):
            self._follow(Line(*line))

    def _follow(self, line: Line) -> None:
        life = self._lives[line.uuid]
        if line.id != self._last_line + 1:
            self._wrong(f"the history has line {line.id} after line {self._last_line}")
        self._last_line = line.id
        if line.before != life.state:
            self._wrong(f"line {line.id} has {line.uuid} {line.before}, which was {life.state}")
        if line.before == "claimed":
            if line.after == "claimed":
                self._wrong(f"line {line.id}: {line.uuid} goes from {life.holder} to {line.owner} directly")
            self._taken.setdefault((life.holder, line.uuid), []).append(line.id)
            life.contains, life.holder = life.holder, None
        if line.after == "clean" or line.reason == "wiped for its owner":
            life.contains = None
        if line.after == "quarantined":
            self._wrong(f"line {line.id}: {line.uuid} is quarantined: {line.reason}")
        if line.after == "claimed":
            if life.contains not in {None, line.owner}:
                self._wrong(f"line {line.id}: {line.uuid} is given to {line.owner} with the bytes of {life.contains}")
            self._given.setdefault((line.owner, line.uuid), []).append(line.id)
            life.holder = line.owner
        life.state = line.after
        life.ids.append(line.id)
        life.states.append((line.after, life.holder))

    # The bytes

    def _check_bytes(self, path: pathlib.Path) -> None:
        """Compare one namespace with what the ledger says, if neither changes meanwhile."""
        before = self._row(path.name)
        if before is None:
            return
        uuid, state, owner, _ = before
        written = self._written.get((owner, uuid))
        if state == "clean":
            right = host.is_zero(path)
        elif state == "claimed" and written:
            right = host.has_content(str(path), owner, uuid, written)
        else:
            return
        self._read_accounts()
        if self._row(path.name) == before and self._written.get((owner, uuid)) == written:
            self.samples += 1
            if not right:
                self._wrong(f"{path.name} ({uuid}) is {state} for {owner}, and its bytes are others")

    def _row(self, name: str) -> tuple | None:
        if not self._host.ledger.exists():
            return None
        found = self._query("SELECT uuid, state, owner, changed FROM namespace WHERE name = ?", name)
        return found[0] if found else None
