"""The receiving side of a transfer: the program that ssh starts on the destination, and its conversation."""

import contextlib
import logging
import os
from collections.abc import Callable, Sequence

from vpmem_driver import exception, model
from vpmem_driver.pool import Pool, Row, wipes
from vpmem_driver.transfer import messages
from vpmem_driver.transfer.messages import Abandon, Begin, Offer

LOG = logging.getLogger(__name__)

#: Verifies that the sender may bring this. Returns the uuid of the namespace for each offered one, or None for any of
#: their labels. Raises a VPMEMError for a transfer that is not expected.
Expected = Callable[[Pool, Offer], Sequence[str] | None]
#: Verifies that the guest of this owner is not on this host, so that what has arrived may be released. Raises a
#: VPMEMError.
RequireAway = Callable[[str], None]


class Receiver:
    """One connection of a sender."""

    def __init__(self, pool: Pool, expected: Expected, require_away: RequireAway, requests: int, replies: int) -> None:
        """`requests` and `replies` are file descriptors: what the sender writes and reads."""
        self._pool = pool
        self._expected = expected
        self._require_away = require_away
        self._requests = requests
        self._replies = replies

    def serve(self) -> bool:
        """Answer the sender until it closes the connection.

        :returns: False if something failed, and the sender was told so
        :raises OSError: the connection was lost
        :raises LedgerError: the ledger could not be read or written
        """
        try:
            return self._converse()
        except messages.Garbled as error:
            self._reply(messages.Refused(f"the sender's message is not understood: {error}"))
        except exception.VPMEMError as error:
            self._reply(messages.Refused(str(error)))
        return False

    def _converse(self) -> bool:
        """See :meth:`serve`. :raises Garbled, VPMEMError: the sender is to be told so."""
        first = self._read()
        if isinstance(first, Abandon):
            self._abandon(first)
        elif isinstance(first, Offer):
            return self._serve_offer(first)
        elif first is not None:
            raise messages.Garbled("the first message is not an offer")
        return True

    def _abandon(self, message: Abandon) -> None:
        arrived = [row for row in self._pool.held(message.owner) if row.arrival == message.copy]
        for row in arrived:
            if row.departure is not None:
                reason = f"copy {row.departure} takes its content away from there"
                raise exception.NamespaceUnavailable(namespace=row.name or row.uuid, owner=message.owner, reason=reason)
        if any(row.state is model.State.CLAIMED for row in arrived):  # what is incomplete, no guest can have
            self._require_away(message.owner)
        self._pool.copies.abandon(message.owner, message.copy)
        self._reply(messages.Abandoned())

    def _serve_offer(self, offer: Offer) -> bool:
        rows = self._accept(offer)
        if not offer.reserve:
            return True
        while (message := self._read()) is not None:
            if not isinstance(message, Begin) or message.index >= len(rows):
                raise messages.Garbled("a message is not allowed here")
            if not self._receive(offer, rows[message.index]):
                return False
        return True

    def _accept(self, offer: Offer) -> list[Row]:
        if not 1 <= offer.version <= messages.VERSION:
            raise messages.Garbled(f"it has version {offer.version}, and this host has version {messages.VERSION}")
        if not offer.namespaces:
            raise messages.Garbled("it offers no namespace")
        uuids = self._expected(self._pool, offer)
        sources = [model.Grant.elsewhere(offered, offer.owner) for offered in offer.namespaces]
        if uuids is not None and not offer.reserve:
            raise messages.Garbled("an offer that only asks cannot name namespaces")
        if uuids is not None:
            rows = self._pool.copies.expect_exact(offer.owner, offer.copy, uuids, sources)
        elif offer.reserve:
            rows = self._pool.copies.expect_labels(offer.owner, offer.copy, sources)
        else:
            rows = self._pool.copies.preview_labels(offer.owner, offer.copy, sources)
        self._reply(messages.Accepted(tuple(map(self._expecting, rows))))
        return rows

    def _expecting(self, row: Row) -> messages.Expecting:
        grant = self._pool.grant(row)
        return messages.Expecting(
            uuid=row.uuid,
            name=grant.name,
            size=row.size,
            align=row.align,
            device=grant.device,
            pmem=row.pmem,
            complete=row.state is model.State.CLAIMED,
        )

    def _receive(self, offer: Offer, row: Row) -> bool:
        """Receive one namespace, or compare it if it is complete. :returns: False if that failed."""

        def report(event: wipes.WipeProgress) -> None:
            self._reply(messages.Progress(event.phase, event.done))

        copies = self._pool.copies
        compares = offer.again and row.state is model.State.CLAIMED
        fill = copies.compare if compares else copies.receive
        try:
            fill(
                offer.copy,
                row.uuid,
                self._requests,
                on_ready=lambda start: self._reply(messages.Ready(start)),
                on_progress=report,
            )
        except exception.VPMEMError as error:
            LOG.warning("Copy %s to %s: %s", offer.copy, row.name, error)
            now = self._pool.held(offer.owner)
            retry = any(held.uuid == row.uuid and held.state is model.State.RECEIVING for held in now)
            if compares:
                retry = isinstance(error, exception.CopyFailed) and error.resumable
            with contextlib.suppress(BrokenPipeError):  # the connection is what failed
                reason = error.reason if isinstance(error, exception.CopyFailed) else str(error)
                self._reply(messages.Failed(reason, retry))
            return False
        self._reply(messages.Received())
        return True

    def _read(self) -> messages.FromSender | None:
        line = messages.read_line(self._requests)
        return None if line is None else messages.decode_from_sender(line)

    def _reply(self, message: messages.FromReceiver) -> None:
        os.write(self._replies, messages.encode(message))
