"""This host's durable record of namespaces, owners and states, in SQLite.

Everything that others rely on: a transaction is one commit, on disk when it returns (WAL, synchronous=FULL); a row
moves only when nobody has moved it since the caller saw it; every move leaves a line in the history, whose id orders
all moves of all processes. A ledger that cannot be read or written raises and changes nothing.
"""

import dataclasses
import datetime
import os
import secrets
from collections.abc import Iterator

import msgspec

from vpmem_driver import exception, model
from vpmem_driver.ledger import file, migrations

FILE_NAME = file.FILE_NAME

#: How many lines of the history are read at a time.
_HISTORY_CHUNK = 1000


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One namespace as the ledger has it. Sizes are bytes.

    :ivar owner: who holds it (claimed), or has it reserved (dirty or clean)
    :ivar position: its place among the owner's devices
    :ivar label: under which it was claimed last
    :ivar last_owner: whose bytes may be in it: the last to have held it, claimed
    :ivar begun: whether a wipe has overwritten any of it since it became dirty
    :ivar wiped: how many bytes from the start that wipe has durably zeroed
    :ivar verified: how many bytes from the start that wipe has read back as zeros
    :ivar run: fencing token of the wipe that may write and report now; a new wipe, and any move that ends or begins a
        dirty spell, invalidates it
    :ivar reservation: id of the claim that this namespace is reserved for; all of one claim are claimed together
    :ivar reason: why it is quarantined, or not wiped yet
    :ivar changed: id of the history line that last moved it
    """

    uuid: str
    name: str | None
    size: int
    align: int
    numa_node: int | None
    mode: str
    device: str | None
    pmem: bool
    state: model.State
    owner: str | None
    position: int | None
    label: str | None
    last_owner: str | None
    begun: bool
    wiped: int
    verified: int
    run: str | None
    reservation: str | None
    reason: str | None
    changed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Move:
    """One line of the history: when, which, from and to which state, for whom, why. ``at`` is UTC, ISO 8601."""

    id: int
    at: str
    uuid: str
    name: str | None
    from_state: str | None
    to_state: str
    owner: str | None
    reason: str


_ROW_COLUMNS = ", ".join(Row.__struct_fields__)
#: What a move changes of a row.
_MOVED = (
    *("state", "owner", "position", "label", "device", "last_owner"),
    *("begun", "wiped", "verified", "run", "reservation", "reason", "changed"),
)
_MOVE = f"UPDATE namespace SET {', '.join(f'{column} = ?' for column in _MOVED)} WHERE uuid = ? AND changed = ?"  # noqa: S608
#: What is in them is no owner's data, even when they are dirty again: a wipe has overwritten all or a part of it.
_OVERWRITTEN = (model.State.CLEAN, model.State.QUARANTINED)
_MOVE_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Move))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


class Ledger(file.LedgerFile):
    """An open ledger. Any number of threads, and of processes that have the same file open, may use it."""

    def __init__(self, state_path: str | os.PathLike[str]) -> None:
        """Open the ledger below `state_path`, or make it; see :class:`~vpmem_driver.ledger.file.LedgerFile`."""
        super().__init__(state_path, migrations.SCRIPTS)

    def rows(self) -> list[Row]:
        """Every namespace ever seen, by name and uuid."""
        return self._select("ORDER BY name, uuid")

    def row(self, uuid: str) -> Row | None:
        """The row of one namespace."""
        return next(iter(self._select("WHERE uuid = ?", uuid)), None)

    def held(self, owner: str) -> list[Row]:
        """What `owner` holds or has reserved, in the order of its devices."""
        return self._select("WHERE owner = ? ORDER BY position", owner)

    def next_position(self, owner: str) -> int:
        """The place of the next device of `owner`: after all that it holds or has reserved."""
        with self._lock:
            ((position,),) = self._fetch(
                "SELECT coalesce(max(position), -1) + 1 FROM namespace WHERE owner = ?", (owner,)
            )
            return int(position)

    def changed_since(self, move_id: int) -> list[Row]:
        """The rows that were moved after history line `move_id`."""
        return self._select("WHERE uuid IN (SELECT uuid FROM history WHERE id > ?)", move_id)

    def last_move(self) -> int:
        """The id of the newest history line, 0 when there is none."""
        with self._lock:
            ((move_id,),) = self._fetch("SELECT coalesce(max(id), 0) FROM history")
            return int(move_id)

    def history(self, *, uuid: str | None = None, owner: str | None = None, limit: int | None = None) -> Iterator[Move]:
        """The newest `limit` lines (all when None), oldest first, of one namespace or owner if given.

        They are read as they are consumed: in bounded memory, and with no transaction open in between.
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

    def insert(self, namespace: model.Namespace) -> int:
        """Record a namespace that was never seen, as unknown. Inside a transaction.

        :returns: the id of its history line
        """
        assert namespace.uuid is not None  # noqa: S101  discovery gives every usable namespace one
        move_id = self._note(
            namespace.uuid, namespace.name, before=None, after=model.State.UNKNOWN, owner=None, why="first seen"
        )
        self._execute(
            "INSERT INTO namespace (uuid, name, size, align, numa_node, mode, device, pmem, state, changed) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                namespace.uuid,
                namespace.name,
                namespace.size,
                namespace.align,
                namespace.numa_node,
                namespace.mode,
                namespace.device,
                namespace.pmem,
                model.State.UNKNOWN,
                move_id,
            ),
        )
        return move_id

    def describe(self, row: Row, namespace: model.Namespace) -> None:
        """Take over what discovery says of a known namespace; state and owner stay. Inside a transaction.

        The device of a held namespace stays as it was granted: what the guest's domain XML may still say. A wipe
        begins anew where the size has changed.
        """
        self._execute(
            "UPDATE namespace SET name = ?, wiped = CASE WHEN size = ? THEN wiped ELSE 0 END, "
            "verified = CASE WHEN size = ? THEN verified ELSE 0 END, run = CASE WHEN size = ? THEN run END, "
            "size = ?, align = ?, numa_node = ?, mode = ?, pmem = ?, device = ? WHERE uuid = ?",
            (
                namespace.name,
                *[namespace.size] * 4,
                namespace.align,
                namespace.numa_node,
                namespace.mode,
                namespace.pmem,
                row.device if row.owner is not None else namespace.device,
                row.uuid,
            ),
        )

    def move(
        self,
        row: Row,
        state: model.State,
        why: str,
        *,
        owner: str | None = None,
        position: int | None = None,
        reservation: str | None = None,
        label: str | None = None,
        device: str | None = None,
        keep_wipe: bool = False,
        reason: str | None = None,
    ) -> Row:
        """Move one namespace to `state`, for `owner`, and record `why`.

        Inside the transaction that `row` was read in. `label` and `device` are kept when not given.

        :param reservation: id of the claim that a dirty or clean namespace is reserved for
        :param keep_wipe: dirty before and after, with nothing written in between: its wipe keeps progress and token
        :returns: the row after the move
        :raises LedgerError: the namespace was moved since it was read
        """
        move_id = self._note(
            row.uuid, row.name, before=row.state, after=state, owner=owner if owner is not None else row.owner, why=why
        )
        last_owner = row.owner if row.state is model.State.CLAIMED else row.last_owner
        moved = msgspec.structs.replace(
            row,
            state=state,
            owner=owner,
            position=position,
            label=row.label if label is None else label,
            device=row.device if device is None else device,
            last_owner=None if state is model.State.UNKNOWN else last_owner,
            begun=(keep_wipe and row.begun) or (row.state in _OVERWRITTEN and state is model.State.DIRTY),
            wiped=row.wiped if keep_wipe else 0,
            verified=row.verified if keep_wipe else 0,
            run=row.run if keep_wipe else None,
            reservation=reservation,
            reason=reason,
            changed=move_id,
        )
        done = self._execute(_MOVE, (*(getattr(moved, column) for column in _MOVED), row.uuid, row.changed))
        if done.rowcount != 1:
            raise exception.LedgerError(
                path=self.path,
                reason=f"namespace {row.name} ({row.uuid}) was moved since it was read, {row.state}",
                remedy="Try again.",
            )
        return moved

    def begin_wipe(self, uuid: str, wiped: int, *, start: int | None = None) -> str | None:
        """Record that a wipe overwrites a dirty namespace of which `wiped` bytes are zero. A transaction of its own.

        :param start: the byte that the wipe begins with, if it is not `wiped`
        :returns: the fencing token that :meth:`progress`, :meth:`explain` and the outcome must present; None when the
            namespace is not dirty or another wipe has changed its progress: then nothing may be overwritten
        """
        run = secrets.token_hex(8)
        with self.transaction():
            done = self._execute(
                "UPDATE namespace SET begun = 1, wiped = ?, verified = 0, run = ?, reason = NULL "
                "WHERE uuid = ? AND state = 'dirty' AND wiped = ?",
                (wiped if start is None else start, run, uuid, wiped),
            )
        return run if done.rowcount == 1 else None

    def progress(self, uuid: str, run: str, *, wiped: int | None = None, verified: int | None = None) -> bool:
        """Record how many bytes from the start a wipe has durably zeroed, or read back. A transaction of its own.

        :returns: False when `run` is no longer the namespace's wipe; nothing was recorded, and it must stop
        """
        with self.transaction():
            done = self._execute(
                "UPDATE namespace SET wiped = coalesce(?, wiped), verified = coalesce(?, verified) "
                "WHERE uuid = ? AND run = ?",
                (wiped, verified, uuid, run),
            )
        return done.rowcount == 1

    def explain(self, row: Row, run: str | None, reason: str) -> None:
        """Record why a dirty namespace is not wiped yet. A transaction of its own.

        Ignored when `run` is no longer the namespace's wipe or, before a wipe has begun (None), when the namespace was
        moved since `row` was read.
        """
        with self.transaction():
            self._execute(
                "UPDATE namespace SET reason = ? WHERE uuid = ? AND state = 'dirty' "
                "AND (run = ? OR (? IS NULL AND changed = ?))",
                (reason, row.uuid, run, run, row.changed),
            )

    def marked(self, name: str) -> bool:
        """Whether :meth:`mark` has recorded `name`."""
        with self._lock:
            return bool(self._fetch("SELECT 1 FROM mark WHERE name = ?", (name,)))

    def mark(self, name: str) -> None:
        """Record durably that something is done which is done once for each ledger. A transaction of its own."""
        with self.transaction():
            self._execute("INSERT INTO mark (name, at) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, _now()))

    def _note(self, uuid: str, name: str | None, *, before: str | None, after: str, owner: str | None, why: str) -> int:
        done = self._execute(
            "INSERT INTO history (at, uuid, name, from_state, to_state, owner, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (_now(), uuid, name, before, after, owner, why),
        )
        assert done.lastrowid is not None  # noqa: S101  an INSERT into a rowid table has one
        return done.lastrowid

    def _select(self, rest: str, *values: object) -> list[Row]:
        with self._lock:
            found = self._fetch(f"SELECT {_ROW_COLUMNS} FROM namespace {rest}", values)  # noqa: S608
        try:
            return msgspec.convert(found, list[Row], strict=False)  # SQLite's 0 and 1 are bool
        except msgspec.ValidationError as error:
            raise self._corrupt(str(error)) from error
