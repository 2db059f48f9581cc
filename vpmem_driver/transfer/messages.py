"""What the two sides of a transfer say to each other: JSON, one object per line.

::

    sender                               receiver
    Offer: owner, copy, namespaces  ──►
                                    ◄──  Accepted: the namespaces that expect them, or Refused
                                         (the end, if the offer only asks)
    Begin: which one                ──►
                                    ◄──  Ready: from which byte on
    the stream (vpmem_driver.stream) ─►
                                    ◄──  Progress …, Received or Failed
    Begin: the next one …           ──►

    Abandon: owner, copy            ──►
                                    ◄──  Abandoned

The sender writes nothing after Begin until it has read Ready, so that no byte of the stream is taken for a line. After
Failed, the connection is of no use any more. A new one with the same offer resumes.
"""

import os
from collections.abc import Callable
from typing import Annotated

import msgspec

from vpmem_driver.model import IN_TREE, Hardware
from vpmem_driver.protocol import LINE_BYTES, NOT_UNDERSTOOD, Bytes

#: Increase it with every change that an older version does not understand. Version 2 has offers with hardware other
#: than :data:`vpmem_driver.model.IN_TREE`, and version 3 those that compare again; other offers are those of version 1.
VERSION = 3

_Text = Annotated[str, msgspec.Meta(max_length=255)]
_Path = Annotated[str, msgspec.Meta(max_length=4096)]
_Id = Annotated[str, msgspec.Meta(pattern="^[0-9a-f-]{8,64}$")]


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """One namespace of the sender.

    :ivar namespace: name or uuid of the namespace that should receive it; None: any free one of the label
    :ivar hardware: what the guest's device is, and stays
    """

    name: _Text
    label: _Text | None
    size: Bytes
    align: Bytes
    namespace: _Text | None = None
    hardware: Hardware = IN_TREE


class Offer(msgspec.Struct, frozen=True, kw_only=True, tag_field="message", tag="offer"):
    """All namespaces of one owner, in the order of its devices.

    :ivar reserve: False to ask only which namespaces would be reserved; nothing follows
    :ivar again: what is complete may be begun, too: it is compared with what the source has now
    """

    version: int
    copy: _Id
    owner: _Id
    namespaces: tuple[Offered, ...]
    reserve: bool = True
    again: bool = False


class Begin(msgspec.Struct, frozen=True, tag_field="message", tag="begin"):
    """The stream of a namespace follows, once the receiver is ready. `index` counts from 0."""

    index: Annotated[int, msgspec.Meta(ge=0)]


class Abandon(msgspec.Struct, frozen=True, kw_only=True, tag_field="message", tag="abandon"):
    """Give up all that a copy has brought, in a conversation without an offer."""

    copy: _Id
    owner: _Id


class Expecting(msgspec.Struct, frozen=True, kw_only=True):
    """One namespace of the receiver.

    :ivar device: its current path; None while it is missing
    :ivar pmem: whether stores are persistent without msync
    :ivar complete: it was received already
    """

    uuid: _Id
    name: _Text
    size: Bytes
    align: Bytes
    device: _Path | None
    pmem: bool
    complete: bool


class Accepted(msgspec.Struct, frozen=True, tag_field="message", tag="accepted"):
    """The namespaces that expect the content, in the order of the offer."""

    namespaces: tuple[Expecting, ...]


class Refused(msgspec.Struct, frozen=True, tag_field="message", tag="refused"):
    """The receiver changes nothing."""

    reason: str


class Ready(msgspec.Struct, frozen=True, tag_field="message", tag="ready"):
    """The receiver has locked the namespace, and has its first `start` bytes already."""

    start: Bytes


class Progress(msgspec.Struct, frozen=True, tag_field="message", tag="progress"):
    """`done` bytes are durable (phase copy) or were read back (phase verify)."""

    phase: Annotated[str, msgspec.Meta(pattern="^(copy|verify)$")]
    done: Bytes


class Received(msgspec.Struct, frozen=True, tag_field="message", tag="received"):
    """Every byte was read back from the medium, and the namespace is claimed for the owner."""


class Failed(msgspec.Struct, frozen=True, tag_field="message", tag="failed"):
    """The namespace is not complete. With `retry`, the same offer over a new connection resumes."""

    reason: str
    retry: bool


class Abandoned(msgspec.Struct, frozen=True, tag_field="message", tag="abandoned"):
    """What had arrived is released."""


FromSender = Offer | Begin | Abandon
FromReceiver = Accepted | Refused | Ready | Progress | Received | Failed | Abandoned

_decode_from_sender: Callable[[bytes], FromSender] = msgspec.json.Decoder(FromSender).decode
_decode_from_receiver: Callable[[bytes], FromReceiver] = msgspec.json.Decoder(FromReceiver).decode


class Garbled(Exception):
    """The other side sent something that is not a message."""


def encode(message: FromSender | FromReceiver) -> bytes:
    """Encode a message as one line."""
    return msgspec.json.encode(message) + b"\n"


def decode_from_sender(line: bytes) -> FromSender:
    """Decode a line. :raises Garbled: it is not a message of a sender."""
    try:
        return _decode_from_sender(line)
    except NOT_UNDERSTOOD as error:
        raise Garbled(str(error)) from error


def decode_from_receiver(line: bytes) -> FromReceiver:
    """Decode a line. :raises Garbled: it is not a message of a receiver."""
    try:
        return _decode_from_receiver(line)
    except NOT_UNDERSTOOD as error:
        raise Garbled(str(error)) from error


def read_line(fd: int) -> bytes | None:
    """Read one line, and not a byte more. :returns: None at the end of the file. :raises Garbled: it is too long."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(fd, 1)
        if not piece:
            return None
        line += piece
        if len(line) > LINE_BYTES:
            raise Garbled("a line is too long")
    return bytes(line)
