"""What an engine and its child processes say to each other: JSON, one object a line.

The parent writes a :class:`Task` to the child's stdin, and ``go`` when the child is ready. The child writes events to
its stdout. Both ends decode by type, so that neither acts on what it does not understand.
"""

import enum
from typing import Annotated, Literal

import msgspec

GO = b"go"
#: Longer lines are no part of the protocol.
LINE_BYTES = 1 << 16

Phase = Literal["zero", "verify"]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Threads = Annotated[int, msgspec.Meta(ge=0, le=256)]


class Outcome(enum.StrEnum):
    """How a wipe ended.

    :cvar WIPED: every byte was read back and is zero
    :cvar STOPPED: it was asked to stop, was not allowed to start, or its process was killed
    :cvar BUSY: another process holds the lock; the reason names it if known. Nothing was changed
    :cvar IN_USE: a process, named in the reason, has the device mapped or open. Nothing was changed
    :cvar MISSING: discovery does not find the namespace, or not as it was. Nothing was changed
    :cvar HOST: the host is at fault: permissions, a broken installation. The medium is not to blame
    :cvar MEDIA: the zeros did not take, or the medium killed the worker. To be quarantined
    """

    WIPED = "wiped"
    STOPPED = "stopped"
    BUSY = "busy"
    IN_USE = "in_use"
    MISSING = "missing"
    HOST = "host"
    MEDIA = "media"


#: The outcomes that a worker reports as a :class:`Failure`.
FAILURES = (Outcome.BUSY, Outcome.IN_USE, Outcome.MISSING, Outcome.HOST, Outcome.MEDIA)


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to wipe, and how. No path: the child looks the device up by uuid.

    :ivar discovery: name of the Discovery that finds it; `options` make it
    :ivar start: bytes from the start that an earlier wipe left zero and durable. A child that may do more than its
        parent zeroes them again: else it would read back, and tell about, what it has not erased
    :ivar threads: 0 leaves it to the child
    :ivar rate: most bytes per second, for each of the two phases; 0 is no limit
    :ivar size: bytes that the device must have
    """

    uuid: str
    discovery: str
    options: dict[str, str]
    start: Bytes
    threads: Threads
    rate: Bytes
    size: Bytes


class Ready(msgspec.Struct, frozen=True, tag_field="event", tag="ready"):
    """The device is locked, and no other process has it mapped. Nothing is written before ``go``.

    After ``go`` the child looks for such processes again. When it finds one, it fails as IN_USE, and writes nothing.
    """


class Progress(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """In phase zero, so many bytes from the start are durably zero; in phase verify, so many were read back.

    In phase zero that is never less than ``Task.start``.
    """

    phase: Phase
    bytes: Bytes


class Wiped(msgspec.Struct, frozen=True, tag_field="event", tag="wiped"):
    """Every byte of the device was read back and is zero. It stays locked until stdin is closed."""


class Failure(msgspec.Struct, frozen=True, tag_field="event", tag="failed"):
    """The wipe cannot be done, or went wrong. What was locked stays locked until stdin is closed."""

    outcome: Outcome
    reason: str

    def __post_init__(self) -> None:
        """Refuse an outcome that is no failure. :raises ValueError: msgspec reports it as a ValidationError."""
        if self.outcome not in FAILURES:
            raise ValueError(f"'{self.outcome}' is no failure")


Event = Ready | Progress | Wiped | Failure

#: What the decoders raise for a line that is not of the protocol. Nested deeply enough, JSON ends in a RecursionError.
NOT_UNDERSTOOD = (msgspec.MsgspecError, UnicodeError, RecursionError)

decode_task = msgspec.json.Decoder(Task).decode
decode_event = msgspec.json.Decoder(Event).decode


def encode(message: Task | Event) -> bytes:
    """One line."""
    return msgspec.json.encode(message) + b"\n"
