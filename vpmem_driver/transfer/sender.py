"""The sending side of a transfer: bring all that an owner holds to another host."""

import logging
import time
from collections.abc import Callable, Sequence

from vpmem_driver import exception, model
from vpmem_driver.pool import Pool, Row, wipes
from vpmem_driver.transfer import messages
from vpmem_driver.transfer.connection import Connection, ConnectionLost

LOG = logging.getLogger(__name__)

#: Starts a new connection to the destination.
Connect = Callable[[], Connection]

#: How often a lost connection is made again without anything more arriving, and after how many seconds. If only this
#: side has noticed the loss, the other side's worker has the namespace until it has heard nothing for some minutes
#: (engine.process.SILENCE_SECONDS).
_RETRIES = (1.0, 5.0, 15.0, 60.0, 240.0)


class Sender:
    """The transfer of what one owner holds. It may be run again: it resumes."""

    def __init__(
        self,
        pool: Pool,
        connect: Connect,
        *,
        owner: str,
        copy: str,
        pack: bool,
        on_progress: wipes.OnProgress,
        retries: Sequence[float] | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Store the arguments.

        :param copy: id of the copy, the same for each run
        :param pack: compress the streams
        :param retries: seconds to wait before each new attempt after a lost connection, from the first one again
            whenever more has arrived (default: _RETRIES)
        """
        self._pool = pool
        self._connect = connect
        self._owner = owner
        self._copy = copy
        self._pack = pack
        self._on_progress = on_progress
        self._retries = _RETRIES if retries is None else retries
        self._pause = pause
        self._again = False
        #: what has been received, or compared, in this run
        self._arrived: set[str] = set()
        #: the bytes of each namespace that have been durable at the destination
        self._furthest: dict[str, int] = {}

    def send(
        self, uuids: Sequence[str], targets: Sequence[str | None], *, again: bool = False
    ) -> tuple[messages.Expecting, ...]:
        """Copy the namespaces `uuids` of the owner, in this order. They must depart with this copy.

        :param targets: name or uuid of each namespace at the destination; None: any free one of the label
        :param again: compare what an earlier run has completed with what the source has now
        :returns: the namespaces at the destination, which are claimed there for the owner
        :raises TransferRefused: the destination does not accept it; nothing was changed there
        :raises CopyFailed, ConnectionLost: it is not complete, and the source has everything
        """
        self._again = again
        self._arrived.clear()
        self._furthest.clear()
        retries = iter(self._retries)
        while True:
            before = sum(self._furthest.values())
            try:
                return self._attempt(uuids, targets)
            except (_Retry, ConnectionLost) as error:
                if sum(self._furthest.values()) > before:
                    retries = iter(self._retries)
                seconds = next(retries, None)
                if seconds is not None:
                    LOG.warning("%s Trying again in %.0f s", error, seconds)
                    self._pause(seconds)
                elif isinstance(error, _Retry):
                    raise exception.CopyFailed(
                        namespace=error.namespace,
                        reason=f"{len(self._retries)} further attempts brought nothing more: {error.reason}",
                        remedy="The source still has everything. Check the connection, then try again",
                    ) from error
                else:
                    raise

    def offer(self, uuids: Sequence[str], targets: Sequence[str | None]) -> tuple[messages.Expecting, ...]:
        """Have the destination reserve the namespaces that :meth:`send` fills; nothing is copied yet.

        :raises TransferRefused: the destination does not accept it; nothing was changed there
        :raises ConnectionLost: the destination cannot be reached
        """
        with self._connect() as connection:
            return self._offer(connection, self._rows(uuids), targets)

    def preview(self, uuids: Sequence[str], targets: Sequence[str | None]) -> tuple[messages.Expecting, ...]:
        """Return the namespaces that :meth:`send` would fill now. Nothing is changed on either side.

        :raises TransferRefused: the destination would not accept the copy
        :raises ConnectionLost: the destination did not answer
        """
        with self._connect() as connection:
            return self._offer(connection, self._rows(uuids), targets, reserve=False)

    def abandon(self) -> None:
        """Have the destination release what has arrived.

        :raises TransferRefused, ConnectionLost: it may still hold it
        """
        with self._connect() as connection:
            connection.write(messages.Abandon(copy=self._copy, owner=self._owner))
            answer = connection.read()
            if isinstance(answer, messages.Refused):
                raise exception.TransferRefused(host=connection.host, reason=answer.reason)
            if not isinstance(answer, messages.Abandoned):
                raise ConnectionLost(host=connection.host, reason="it did not confirm that it gave the copy up")

    def _rows(self, uuids: Sequence[str]) -> list[Row]:
        held = {row.uuid: row for row in self._pool.held(self._owner)}
        return [held[uuid] for uuid in uuids]

    def _attempt(self, uuids: Sequence[str], targets: Sequence[str | None]) -> tuple[messages.Expecting, ...]:
        rows = self._rows(uuids)
        with self._connect() as connection:
            accepted = self._offer(connection, rows, targets)
            for index, (row, expecting) in enumerate(zip(rows, accepted, strict=True)):
                if not expecting.complete or (self._again and row.uuid not in self._arrived):
                    self._send_one(connection, index, row, expecting)
                    self._arrived.add(row.uuid)
        return accepted

    def _offer(
        self, connection: Connection, rows: Sequence[Row], targets: Sequence[str | None], *, reserve: bool = True
    ) -> tuple[messages.Expecting, ...]:
        hardware = [row.hardware or model.IN_TREE for row in rows]
        version = 2 if any(each != model.IN_TREE for each in hardware) else 1
        connection.write(
            messages.Offer(
                version=3 if self._again else version,
                copy=self._copy,
                owner=self._owner,
                namespaces=tuple(
                    messages.Offered(
                        name=row.name or row.uuid,
                        label=row.label,
                        size=row.size,
                        align=row.align,
                        namespace=target,
                        hardware=each,
                    )
                    for row, target, each in zip(rows, targets, hardware, strict=True)
                ),
                reserve=reserve,
                again=self._again,
            )
        )
        answer = connection.read()
        if isinstance(answer, messages.Refused):
            raise exception.TransferRefused(host=connection.host, reason=answer.reason)
        if not isinstance(answer, messages.Accepted) or len(answer.namespaces) != len(rows):
            raise ConnectionLost(host=connection.host, reason="it did not answer the offer")
        return answer.namespaces

    def _send_one(self, connection: Connection, index: int, row: Row, expecting: messages.Expecting) -> None:
        name = row.name or row.uuid
        connection.write(messages.Begin(index))
        answer = connection.read()
        if not isinstance(answer, messages.Ready):
            raise _failure(connection, name, answer, compared=expecting.complete)
        ended: list[messages.FromReceiver] = []

        def is_wanted() -> bool:
            while not ended and (message := connection.poll()) is not None:
                self._handle(row, expecting, message, ended)
            return not ended

        try:
            self._pool.copies.send(
                self._copy,
                row.uuid,
                connection.fd,
                destination=grant_of(self._owner, expecting),
                start=answer.start,
                pack=self._pack,
                is_wanted=is_wanted,
            )
        except exception.CopyFailed as error:
            if not error.resumable:
                raise
            connection.end_stream()
            # The receiver may have ended first, and then knows the cause.
            while not ended:
                try:
                    self._handle(row, expecting, connection.read(), ended)
                except ConnectionLost:
                    raise _Retry(name, error.reason) from error
        while not ended:
            self._handle(row, expecting, connection.read(), ended)
        if not isinstance(ended[0], messages.Received):
            raise _failure(connection, name, ended[0], compared=expecting.complete)
        self._pool.copies.require_still(self._copy, row)  # since its last byte was sent, nobody has looked

    def _handle(
        self,
        row: Row,
        expecting: messages.Expecting,
        message: messages.FromReceiver,
        ended: list[messages.FromReceiver],
    ) -> None:
        if not isinstance(message, messages.Progress):
            ended.append(message)
            return
        done = min(message.done, expecting.size)
        if message.phase == "copy":
            self._pool.copies.departed(self._copy, row.uuid, done)
            self._furthest[row.uuid] = max(done, self._furthest.get(row.uuid, 0))
        self._on_progress(
            wipes.WipeProgress(
                uuid=row.uuid, name=row.name or row.uuid, phase=message.phase, done=done, size=expecting.size
            )
        )


class _Retry(Exception):
    """A copy failed in a way that another attempt may not."""

    def __init__(self, namespace: str, reason: str) -> None:
        super().__init__(f"Copy of namespace {namespace}: {reason.rstrip('.')}.")
        self.namespace = namespace
        self.reason = reason.rstrip(".")


def _failure(connection: Connection, name: str, answer: messages.FromReceiver, *, compared: bool) -> Exception:
    if isinstance(answer, messages.Failed) and answer.retry:
        return _Retry(name, answer.reason)
    if isinstance(answer, messages.Failed):
        remedy = (
            "If its guest ran here, cancel the move and begin it again. "
            f"If it ran on {connection.host}, define it there and run the move again"
            if compared
            else "Remove the cause there"
        )
        return exception.CopyFailed(
            namespace=name, reason=f"{connection.host}: {answer.reason}".rstrip("."), remedy=remedy
        )
    if isinstance(answer, messages.Refused):
        return exception.TransferRefused(host=connection.host, reason=answer.reason)
    return ConnectionLost(host=connection.host, reason="it answered out of turn")


def grant_of(owner: str, expecting: messages.Expecting, hardware: model.Hardware = model.IN_TREE) -> model.Grant:
    """Return a namespace at the destination as a grant, for a domain that is defined there."""
    return model.Grant(
        owner=owner,
        uuid=expecting.uuid,
        name=expecting.name,
        label=None,
        size=expecting.size,
        align=expecting.align,
        numa_node=None,
        device=expecting.device,
        known_device=None,
        pmem=expecting.pmem,
        hardware=hardware,
    )
