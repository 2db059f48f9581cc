"""Decides whether ledger, bytes and history are as the invariants want them. No code of the package is used.

It is asked after every step of every process, while all others stand still. So what a step changed, and whether it
might, is known exactly: bytes may change in a dirty namespace by a wipe that the ledger knows has begun, and in a
claimed one by its owner's guest; nowhere else.
"""

import dataclasses
import pathlib
import sqlite3
import typing

from tests.torture.world import PAGE, UNIT, Namespace, World, contents, is_zero

#: The invariant of the package that each check is of; a check without one may have another cause.
INVARIANTS = {
    "two owners": "at most one owner",
    "taken away": "nobody but its owner gives it up",
    "not asked for": "only who asks is given something",
    "overwritten": "only the owner's guest changes what is claimed, and only a wipe that has begun what is dirty",
    "clean is not zero": "clean only after every byte is zero",
    "granted is not zero": "a new owner gets zeros",
    "granted unwiped": "a new owner gets zeros",
    "granted in use": "nobody is given what somebody else uses",
    "adopted from another": "nobody gets the bytes of another",
    "adopted half wiped": "an owner gets its bytes back as it left them",
    "unknown is overwritten": "unknown is what nobody has overwritten",
    "progress": "progress is told after the bytes are zero",
    "quarantined": "quarantined only when the medium fails",
    "told too early": "the ledger is durable before anybody is told",
    "told but not held": "what an owner is told is in the ledger",
    "told released": "released is dirty before the owner is told",
    "told wiped": "wiped is clean before anybody is told",
    "lost": "what was told outlives a power loss",
    "identity": "a namespace is its uuid, not its name",
    "history": "every move leaves its line",
}


class Violation(Exception):
    """An invariant is broken, or, with a check that is not one of INVARIANTS, something else is wrong."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check


@dataclasses.dataclass(frozen=True)
class Row:
    """What the ledger says of one namespace."""

    uuid: str
    name: str
    size: int
    state: str
    owner: str | None
    wiped: int
    begun: int


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the history."""

    id: int
    uuid: str
    before: str | None
    after: str
    owner: str | None


def read_ledger(path: pathlib.Path, after: int) -> tuple[dict[str, Row], list[Line], int]:
    """All rows by uuid, the lines with an id above `after`, and how many lines there are in all."""
    if not path.exists():
        return {}, [], 0
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=0)
    try:
        database.execute("BEGIN")  # one moment for all
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'history'").fetchone():
            return {}, [], 0
        rows = database.execute("SELECT uuid, name, size, state, owner, wiped, begun FROM namespace").fetchall()
        lines = database.execute(
            "SELECT id, uuid, from_state, to_state, owner FROM history WHERE id > ? ORDER BY id", (after,)
        ).fetchall()
        (count,) = database.execute("SELECT count(*) FROM history").fetchone()
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY and not after:
            return {}, [], 0  # it is being made
        raise Violation("ledger", f"it cannot be read: {error}") from error
    finally:
        database.close()
    return {row[0]: Row(*row) for row in rows}, [Line(*line) for line in lines], count


@dataclasses.dataclass(eq=False)
class Tenure:
    """The time for which an owner holds a namespace, by the history.

    :ivar adopted: the owner got it as it was, whoever uses it
    :ivar told: some process was told that the owner has it
    """

    owner: str
    uuid: str
    line: int
    adopted: bool
    told: bool = False


@dataclasses.dataclass
class Life:
    """What the history says of one namespace so far.

    :ivar left: who held it last, and the bytes of then; None when somebody else has changed them since
    :ivar unknown: its bytes when it was last unknown; None when they have been changed from outside
    :ivar ended: the last line that ended a tenure of each owner
    """

    state: str | None = None
    line: int = 0
    tenure: Tenure | None = None
    left: tuple[str, bytes] | None = None
    unknown: bytes | None = None
    ended: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Step:
    """Who has just run, and what it might do.

    :ivar who: in words
    :ivar wipes: it is a process that wipes
    :ivar mapped: inodes that guests have mapped, and had mapped already when it was told to go
    :ivar writes: inode, and the unit that it writes there again and again for its owner
    """

    who: str
    wipes: bool = False
    mapped: frozenset[int] = frozenset()
    writes: tuple[int, bytes] | None = None


class Rules(typing.Protocol):
    """What processes were asked to do, and so may."""

    def may_end(self, tenure: Tenure) -> bool:
        """Whether some process may end this tenure."""

    def may_begin(self, owner: str, uuid: str) -> bool:
        """Whether some process may give this namespace to that owner."""

    def may_adopt(self, owner: str, uuid: str) -> bool:
        """Whether some process may give it to that owner as it is."""


def changed_to(old: bytes, new: bytes, written: bytes) -> bool:
    """Whether each unit of `new` is `written`, or was so in `old`."""
    if new == written * (len(new) // UNIT):
        return True
    return all(new[at : at + UNIT] in (written, old[at : at + UNIT]) for at in range(0, len(new), UNIT))


class Checker:
    """Keeps what was seen, and compares. `rules` is set before the first check."""

    rules: Rules

    def __init__(self, world: World) -> None:
        self._world = world
        self.rows: dict[str, Row] = {}
        self._before: dict[str, Row] = {}
        self.lives: dict[str, Life] = {}
        self.last_line = 0
        self._lines = 0
        self._inodes: dict[str, int] = {}
        self.durable_line = 0
        self._durable: tuple[dict[str, Row], dict[str, Life], int, int] = ({}, {}, 0, 0)

    # What a power loss leaves

    def note_durable(self) -> None:
        """All that was committed so far is on the disk."""
        self.durable_line = self.last_line
        lives = {uuid: dataclasses.replace(life, ended=dict(life.ended)) for uuid, life in self.lives.items()}
        self._durable = (self.rows, lives, self.last_line, self._lines)

    def has_lasting_wipes(self) -> bool:
        """Whether each wipe that has begun is on the disk."""
        durable = self._durable[0]
        return all(uuid in durable and durable[uuid].begun for uuid, row in self.rows.items() if row.begun)

    def go_back(self) -> None:
        """The ledger has lost what was not durable."""
        held = {tenure.uuid: tenure for tenure in self.tenures()}
        self.rows, lives, self.last_line, self._lines = self._durable
        self.lives = {uuid: dataclasses.replace(life, ended=dict(life.ended)) for uuid, life in lives.items()}
        for tenure in held.values():
            if tenure.told and self.tenure(tenure.uuid) is not tenure:
                raise Violation("lost", f"{tenure.owner} was told that it has {self.name(tenure.uuid)}; power was lost")
        for uuid, row in self.rows.items():
            life, namespace = self.lives[uuid], self.namespace(uuid)
            was = life.unknown if row.state == "unknown" else life.left[1] if life.left is not None else None
            if row.state not in {"unknown", "dirty"} or row.begun or was is None or namespace is None:
                continue
            if was != namespace.content:
                raise Violation("lost", f"power was lost: the ledger has no wipe of {row.name}, which has begun")

    # What is known

    def namespace(self, uuid: str) -> Namespace | None:
        return self._world.by_inode(self._inodes.get(uuid))

    def uuid_of(self, namespace: Namespace) -> str | None:
        return next((uuid for uuid, inode in self._inodes.items() if inode == namespace.inode), None)

    def row_of(self, namespace: Namespace) -> Row | None:
        uuid = self.uuid_of(namespace)
        return None if uuid is None else self.rows.get(uuid)

    def present(self) -> list[Row]:
        """What the ledger says of namespaces that are there."""
        return [row for row in self.rows.values() if self.namespace(row.uuid) is not None]

    def tenures(self) -> list[Tenure]:
        return [life.tenure for life in self.lives.values() if life.tenure is not None]

    def tenure(self, uuid: str) -> Tenure | None:
        life = self.lives.get(uuid)
        return None if life is None else life.tenure

    def has_come_round(self, uuid: str, line: int, state: str) -> bool:
        """Whether it was claimed after a line of the history, and has been written to or released since."""
        life, namespace = self.lives.get(uuid), self.namespace(uuid)
        if life is None or namespace is None or life.state != state or is_zero(namespace.content):
            return False
        return life.tenure.line > line if life.tenure is not None else max(life.ended.values(), default=0) > line

    def name(self, uuid: str) -> str:
        namespace = self.namespace(uuid)
        return uuid if namespace is None else namespace.name

    # The check

    def check(self, step: Step, *, ledger: bool = True) -> list[Namespace]:
        """Look at the bytes, and at the ledger if the step may have changed it.

        :returns: those whose bytes have changed
        :raises Violation: something is not as it must be
        """
        lines: list[Line] = []
        if ledger:
            self._before = self.rows
            self.rows, lines, count = read_ledger(self._world.ledger_path, self.last_line)
            self._lines += len(lines)
            if count != self._lines:
                raise Violation("history", f"it had {self._lines} lines and has {count}")
            self._learn_identities()
        changed = [namespace for namespace in self._world.namespaces if self._changed(namespace, step)]
        if ledger or changed:
            self._check_rows()
        for line in lines:
            self._follow(line)
        if ledger:
            self._check_history()
        return changed

    def _learn_identities(self) -> None:
        for uuid, row in self.rows.items():
            if uuid not in self._inodes:
                namespace = self._world.by_name(row.name)
                if namespace is not None:
                    self._inodes[uuid] = namespace.inode

    def _changed(self, namespace: Namespace, step: Step) -> bool:
        now, before = namespace.read(), namespace.content
        if now == before:
            return False
        namespace.content = now
        if namespace.lost is not None and not now[namespace.lost]:
            namespace.lost = None
        pages = [at for at in range(0, len(now), PAGE) if now[at : at + PAGE] != before[at : at + PAGE]]
        old = b"".join(before[at : at + PAGE] for at in pages)
        new = b"".join(now[at : at + PAGE] for at in pages)
        fault = self._fault(namespace, step, old, new)
        if fault is not None:
            raise Violation(
                "overwritten",
                f"{step.who} changed {len(pages)} pages of {namespace.name} from byte {pages[0]} on, {fault}; "
                f"it had {contents(old)}; now {contents(new)}",
            )
        return True

    def _fault(self, namespace: Namespace, step: Step, old: bytes, new: bytes) -> str | None:
        """Why this change of some pages is not allowed; None when it is."""
        if step.writes is not None and step.writes[0] == namespace.inode and changed_to(old, new, step.writes[1]):
            self._note_late(namespace)
            return None
        uuid = self.uuid_of(namespace)
        life = self.lives.get(uuid or "")
        row = self.rows.get(uuid or "")
        if row is None or life is None:
            return "which the ledger does not know"
        if life.tenure is not None or row.state == "claimed":
            return f"which is claimed by {row.owner}"
        if row.state != "dirty":
            return f"which is {row.state}"
        return self._fault_of_wipe(namespace, step, row, changed_to(old, new, bytes(UNIT)))

    def _fault_of_wipe(self, namespace: Namespace, step: Step, row: Row, zeroed: bool) -> str | None:
        """The same for a namespace that is dirty."""
        if not row.begun:
            return "and the ledger does not say that its wipe has begun"
        if not step.wipes:
            return "and it is no process that wipes"
        if namespace.inode in step.mapped:
            return "which a guest has had mapped since before"
        return None if zeroed else "and did not write zeros"

    def _note_late(self, namespace: Namespace) -> None:
        """A guest may write on when its owner has released: that, too, is what the owner left."""
        life = self.lives.get(self.uuid_of(namespace) or "")
        if life is not None and life.tenure is None and life.left is not None:
            life.left = (life.left[0], namespace.content)

    def _check_rows(self) -> None:
        for row in self.rows.values():
            namespace = self.namespace(row.uuid)
            if namespace is None or namespace.size != row.size:
                continue  # it has changed its size, and the ledger has yet to hear of it
            if row.state == "clean" and not is_zero(namespace.content):
                raise Violation("clean is not zero", f"{row.name} is clean, and has {contents(namespace.content)}")
            if row.state == "dirty" and namespace.lost is None and not is_zero(namespace.content[: row.wiped]):
                raise Violation(
                    "progress",
                    f"the ledger says that {row.wiped} bytes of {row.name} are zero; they have "
                    f"{contents(namespace.content[: row.wiped])}",
                )

    def _check_history(self) -> None:
        for uuid, life in self.lives.items():
            row = self.rows.get(uuid)
            if row is None:
                raise Violation("history", f"{self.name(uuid)} is in the history and no longer in the ledger")
            if row.state != life.state:
                raise Violation("history", f"{row.name} is {row.state}, and by its history {life.state}")
            holder = life.tenure.owner if life.tenure is not None else None
            if row.state == "claimed" and row.owner != holder:
                raise Violation("history", f"{row.name} is claimed by {row.owner}, and by its history by {holder}")

    def _follow(self, line: Line) -> None:
        """Take over one line of the history."""
        self.last_line = max(self.last_line, line.id)
        life = self.lives.setdefault(line.uuid, Life())
        namespace = self.namespace(line.uuid)
        name = self.name(line.uuid)
        if line.before != life.state:
            raise Violation("history", f"line {line.id} has {name} {line.before}; it was {life.state}")
        owner = line.owner if line.after == "claimed" else None
        held = life.tenure
        if held is not None and held.owner != owner:
            self._end(life, held, line, name)
        if owner is not None and (held is None or held.owner != owner):
            self._begin(life, owner, line, namespace)
        if line.after == "quarantined" and namespace is not None and not namespace.may_fail:
            raise Violation("quarantined", f"{name}, though its medium has not failed")
        if line.after == "clean" and namespace is not None:
            namespace.may_fail = False
        if line.after == "unknown" and namespace is not None:
            if line.before != "dirty":
                life.unknown = namespace.content
            elif life.unknown not in {None, namespace.content}:
                raise Violation(
                    "unknown is overwritten", f"{name} is unknown, with {contents(namespace.content)} in it"
                )
        life.state, life.line = line.after, line.id

    def _end(self, life: Life, held: Tenure, line: Line, name: str) -> None:
        if line.after == "claimed":
            raise Violation("two owners", f"{name} went from {held.owner} to {line.owner} directly")
        if not self.rules.may_end(held):
            raise Violation(
                "taken away",
                f"{held.owner} {'was told that it has' if held.told else 'had'} {name}, and it became {line.after} "
                "though nobody asked for that",
            )
        namespace = self.namespace(held.uuid)
        life.left = None if namespace is None else (held.owner, namespace.content)
        life.ended[held.owner] = line.id
        life.tenure = None

    def _begin(self, life: Life, owner: str, line: Line, namespace: Namespace | None) -> None:
        name = self.name(line.uuid)
        if not self.rules.may_begin(owner, line.uuid):
            raise Violation("not asked for", f"{name} became {owner}'s, who did not ask for it")
        before = self._before.get(line.uuid)
        reserved = before is not None and before.owner == owner
        life.tenure = Tenure(owner, line.uuid, line.id, adopted=not reserved and line.before != "clean")
        if namespace is None:
            return  # its file is gone
        content = namespace.content
        if not life.tenure.adopted:
            if not is_zero(content):
                raise Violation("granted is not zero", f"{name} became {owner}'s with {contents(content)} in it")
        elif not self.rules.may_adopt(owner, line.uuid):
            raise Violation("granted unwiped", f"{name}, {line.before}, became {owner}'s as it was")
        elif line.before != "unknown":
            self._check_adopted(life, owner, name, content)

    def _check_adopted(self, life: Life, owner: str, name: str, content: bytes) -> None:
        """What was given back as it was must be what its owner left."""
        if life.left is None or life.left[0] != owner:
            raise Violation("adopted from another", f"{owner} adopted {name}, with {contents(content)} in it")
        if life.left[1] != content:
            raise Violation(
                "adopted half wiped",
                f"{owner} adopted {name}, in which it had left {contents(life.left[1])}; now {contents(content)}",
            )

    def forget_left(self, namespace: Namespace) -> None:
        """Somebody else has changed its bytes: nobody's are in it any more as they were."""
        for lives in (self.lives, self._durable[1]):
            life = lives.get(self.uuid_of(namespace) or "")
            if life is not None:
                life.unknown = None
                life.left = None if life.left is None else (life.left[0], namespace.content)

    # What processes were told

    def told(self, owner: str, uuid: str, since: int) -> Tenure | None:
        """Note that somebody was told, after line `since`, that `owner` has it.

        :returns: the tenure; None when it has ended since, as somebody else asked for
        """
        life = self.lives.get(uuid, Life())
        if life.tenure is not None and life.tenure.owner == owner:
            self.require_durable(life.tenure.line, f"{owner} was told that it has {self.name(uuid)}")
            life.tenure.told = True
            return life.tenure
        if life.ended.get(owner, 0) > since:
            return None
        row = self.rows.get(uuid)
        raise Violation(
            "told but not held",
            f"{owner} was told that it has {self.name(uuid)}; in the ledger it is "
            f"{'not there' if row is None else f'{row.state}, owner {row.owner}'}",
        )

    def require_durable(self, line: int, what: str) -> None:
        """What somebody was told must be on the disk."""
        if line > self.durable_line:
            raise Violation("told too early", f"{what}, and history line {line} is not durable yet")
