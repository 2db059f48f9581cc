"""The host's durable record of namespaces, owners and states, in SQLite.

Guarantees for callers: a transaction is one commit, on disk when it returns (WAL, synchronous=FULL). A row moves to
another state only if it did not move since the caller read it. Every move adds a line to the history, and the line ids
order the moves of all processes. If the ledger cannot be read or written, an error is raised and nothing changes.
"""

import contextlib
import datetime
import operator
import os
import secrets
from collections.abc import Iterator

import msgspec

from vpmem_driver import exception, model
from vpmem_driver.ledger import file, holds, migrations, pruning, queries, state_directory
from vpmem_driver.ledger.rows import Row

FILE_NAME = file.FILE_NAME

#: The columns of a row that a move changes.
_MOVED = (
    *("state", "owner", "position", "label", "device", "last_owner"),
    *("begun", "wiped", "verified", "run", "reservation", "reason", "changed", "copied", "arrival", "departure"),
    *("device_model", "label_size"),
)
_MOVE = f"UPDATE namespace SET {', '.join(f'{column} = ?' for column in _MOVED)} WHERE uuid = ? AND changed = ?"  # noqa: S608
_moved = operator.attrgetter(*_MOVED)
#: States of a namespace that was at least partly overwritten: its content is no owner's data, even if it becomes dirty.
_OVERWRITTEN = (model.State.CLEAN, model.State.QUARANTINED)
#: States in which a namespace may contain data of its last owner, unless a wipe or copy has begun.
_PARTLY_OVERWRITTEN = (model.State.DIRTY, model.State.RECEIVING)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


class Ledger(queries.Queries, pruning.PrunableFile):
    """An open ledger. Any number of threads and processes may use the same file."""

    def __init__(self, state_path: str | os.PathLike[str]) -> None:
        """Open the ledger in `state_path`, or create it; see :class:`~vpmem_driver.ledger.file.LedgerFile`."""
        super().__init__(state_path, migrations.SCRIPTS)

    def insert(self, namespace: model.Namespace) -> int:
        """Record a new namespace as unknown. Call it inside a transaction.

        :returns: the id of its history line
        """
        assert namespace.uuid is not None  # noqa: S101  every usable namespace has one
        move_id = self._note(
            namespace.uuid, namespace.name, before=None, after=model.State.UNKNOWN, owner=None, why="discovered"
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

    def note_boot(self, uuid: str, boot: str, *, begun: bool = False) -> None:
        """Record in which boot of the host the state of a volatile namespace is true. Call it inside a transaction."""
        self._execute("UPDATE namespace SET boot = ?, begun = ? WHERE uuid = ?", (boot, begun, uuid))

    def describe(self, row: Row, namespace: model.Namespace) -> None:
        """Update a known namespace from discovery; state and owner do not change. Call it inside a transaction.

        A held namespace keeps the device path of its claim, which the guest's domain XML may still contain. If the size
        has changed, a wipe or copy starts again from the beginning.
        """
        self._execute(
            "UPDATE namespace SET name = ?, wiped = CASE WHEN size = ? THEN wiped ELSE 0 END, "
            "verified = CASE WHEN size = ? THEN verified ELSE 0 END, run = CASE WHEN size = ? THEN run END, "
            "copied = CASE WHEN size = ? THEN copied ELSE 0 END, "
            "size = ?, align = ?, numa_node = ?, mode = ?, pmem = ?, device = ? WHERE uuid = ?",
            (
                namespace.name,
                *[namespace.size] * 5,
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
        arrival: str | None = None,
        hardware: model.Hardware | None = None,
    ) -> Row:
        """Move one namespace to `state`, for `owner`, and record `why`. A departure ends.

        Call it inside the transaction that read `row`. Without `label` or `device`, the current one is kept.
        So is the hardware; the default of a new owner is :data:`vpmem_driver.model.IN_TREE`. Without an owner there is
        none.

        :param reservation: id of the claim that a dirty or clean namespace is reserved for
        :param keep_wipe: keep progress and token of the wipe: the namespace remains dirty and nothing was written to it
        :param arrival: id of the copy that fills the namespace, or has filled it
        :returns: the row after the move
        :raises LedgerError: the namespace moved since it was read
        """
        move_id = self._note(
            row.uuid, row.name, before=row.state, after=state, owner=owner if owner is not None else row.owner, why=why
        )
        last_owner = row.owner if row.state is model.State.CLAIMED else row.last_owner
        hardware = None if owner is None else hardware or row.hardware or model.IN_TREE
        moved = msgspec.structs.replace(
            row,
            state=state,
            owner=owner,
            position=position,
            label=row.label if label is None else label,
            device=row.device if device is None else device,
            last_owner=None if state is model.State.UNKNOWN else last_owner,
            begun=state in _PARTLY_OVERWRITTEN
            and (
                row.state in _OVERWRITTEN or (row.begun and (keep_wipe or model.State.RECEIVING in {row.state, state}))
            ),
            wiped=row.wiped if keep_wipe else 0,
            verified=row.verified if keep_wipe else 0,
            run=row.run if keep_wipe else None,
            reservation=reservation,
            reason=reason,
            changed=move_id,
            copied=0,
            arrival=arrival,
            departure=None,
            device_model=None if hardware is None else hardware.device_model,
            label_size=None if hardware is None else hardware.label_size,
        )
        done = self._execute(_MOVE, (*_moved(moved), row.uuid, row.changed))
        if done.rowcount != 1:
            raise self._has_changed(row)
        return moved

    def _has_changed(self, row: Row) -> exception.LedgerError:
        return exception.LedgerError(
            path=self.path,
            reason=f"namespace {row.name} ({row.uuid}) has changed since it was read as {row.state}",
            remedy="Try again",
        )

    def begin_wipe(self, uuid: str, wiped: int, *, start: int | None = None) -> str | None:
        """Record, in its own transaction, that a wipe starts on a dirty namespace of which `wiped` bytes are zero.

        :param start: the first byte of the wipe, if it is not `wiped`
        :returns: the fencing token for :meth:`progress`, :meth:`explain` and the outcome. None if the namespace is not
            dirty or another wipe has changed its progress: then the caller must not overwrite anything
        """
        run = secrets.token_hex(8)
        with self.transaction():
            done = self._execute(
                "UPDATE namespace SET begun = 1, wiped = ?, verified = 0, run = ?, reason = NULL "
                "WHERE uuid = ? AND state = 'dirty' AND wiped = ?",
                (wiped if start is None else start, run, uuid, wiped),
            )
        return run if done.rowcount == 1 else None

    def begin_copy(self, uuid: str, arrival: str, copied: int) -> str | None:
        """Record, in its own transaction, that a copy writes to a receiving namespace from byte `copied` on.

        :returns: the fencing token for :meth:`progress`, :meth:`explain` and the outcome. None if the namespace does
            not wait for copy `arrival`, or another run has changed its progress: then the caller must not write
        """
        run = secrets.token_hex(8)
        with self.transaction():
            done = self._execute(
                "UPDATE namespace SET begun = 1, verified = 0, run = ?, reason = NULL "
                "WHERE uuid = ? AND state = 'receiving' AND arrival = ? AND copied = ?",
                (run, uuid, arrival, copied),
            )
        return run if done.rowcount == 1 else None

    def progress(
        self,
        uuid: str,
        run: str,
        *,
        wiped: int | None = None,
        copied: int | None = None,
        verified: int | None = None,
    ) -> bool:
        """Record, in its own transaction, how many bytes from the start are durable or read back.

        :returns: False if `run` is no longer the current wipe or copy; then nothing was recorded, and it must stop
        """
        with self.transaction():
            done = self._execute(
                "UPDATE namespace SET wiped = coalesce(?, wiped), copied = coalesce(?, copied), "
                "verified = coalesce(?, verified) WHERE uuid = ? AND run = ?",
                (wiped, copied, verified, uuid, run),
            )
        return done.rowcount == 1

    def depart(self, row: Row, departure: str | None) -> Row:
        """Record which copy takes the content of a claimed namespace away, or that none does any more (None).

        Call it inside the transaction that read `row`.

        :returns: the row after that
        :raises LedgerError: the namespace moved since it was read
        """
        why = f"copied away: {departure}" if departure is not None else f"kept: copy {row.departure} ended"
        changed = self._note(row.uuid, row.name, before=row.state, after=row.state, owner=row.owner, why=why)
        done = self._execute(
            "UPDATE namespace SET departure = ?, copied = 0, changed = ? WHERE uuid = ? AND changed = ?",
            (departure, changed, row.uuid, row.changed),
        )
        if done.rowcount != 1:
            raise self._has_changed(row)
        return msgspec.structs.replace(row, departure=departure, copied=0, changed=changed)

    def departed(self, uuid: str, departure: str, copied: int) -> bool:
        """Record, in its own transaction, how many bytes of a copy are durable at its destination.

        :returns: False if the namespace is no longer the source of this copy; then nothing was recorded
        """
        with self.transaction():
            done = self._execute(
                "UPDATE namespace SET copied = min(size, ?) WHERE uuid = ? AND departure = ?",
                (copied, uuid, departure),
            )
        return done.rowcount == 1

    @contextlib.contextmanager
    def hold(self, departure: str) -> Iterator[None]:
        """Have the departure end with this process during the body, however it ends; see :mod:`.holds`.

        :raises LedgerError: that is not possible
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(holds.hold(self.path.parent, departure))
            except OSError as error:
                raise state_directory.error_of(self.path, error) from error
            yield

    @contextlib.contextmanager
    def alone(self, owner: str) -> Iterator[None]:
        """Keep others from moving what `owner` holds during the body; see :mod:`.holds`.

        :raises DomainRefused: another process moves it
        :raises LedgerError: that is not possible
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(holds.alone(self.path.parent, owner))
            except BlockingIOError:
                raise exception.DomainRefused(
                    domain=owner,
                    reason="another process moves it, or cancels that",
                    remedy="Wait until that has ended, or stop it; then try again",
                ) from None
            except OSError as error:
                raise state_directory.error_of(self.path, error) from error
            yield

    def stale_departures(self) -> list[str]:
        """Return the departures of :meth:`hold` whose process has died.

        :raises LedgerError: the directory cannot be read
        """
        try:
            return holds.stale(self.path.parent)
        except OSError as error:
            raise state_directory.error_of(self.path, error) from error

    def forget_departure(self, departure: str) -> None:
        """Remove what :meth:`hold` has left of a departure, after no namespace has it any more.

        :raises LedgerError: that failed
        """
        try:
            holds.forget(self.path.parent, departure)
        except OSError as error:
            raise state_directory.error_of(self.path, error) from error

    def explain(self, row: Row, run: str | None, reason: str) -> None:
        """Record, in its own transaction, why a dirty namespace is not wiped yet, or a receiving one not complete.

        Does nothing if `run` is no longer the current wipe or copy or, before it has begun (None), if the namespace
        moved since `row` was read.
        """
        with self.transaction():
            self._execute(
                "UPDATE namespace SET reason = ? WHERE uuid = ? AND state IN ('dirty', 'receiving') "
                "AND (run = ? OR (? IS NULL AND changed = ?))",
                (reason, row.uuid, run, run, row.changed),
            )

    def mark(self, name: str) -> None:
        """Record durably, in its own transaction, that a one-time step for this ledger is done."""
        with self.transaction():
            self.add_mark(name)

    def add_mark(self, name: str) -> None:
        """Like :meth:`mark`, inside a transaction of the caller."""
        self._execute("INSERT INTO mark (name, at) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, _now()))

    def unmark(self, name: str) -> bool:
        """Forget `name`. Call it inside a transaction. :returns: False if it was not marked."""
        return self._execute("DELETE FROM mark WHERE name = ?", (name,)).rowcount == 1

    def unmark_all(self) -> None:
        """Have the one-time steps done again. Call it inside a transaction."""
        self._execute("DELETE FROM mark")

    def _note(self, uuid: str, name: str | None, *, before: str | None, after: str, owner: str | None, why: str) -> int:
        done = self._execute(
            "INSERT INTO history (at, uuid, name, from_state, to_state, owner, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (_now(), uuid, name, before, after, owner, why),
        )
        assert done.lastrowid is not None  # noqa: S101  always set after an INSERT into a rowid table
        return done.lastrowid
