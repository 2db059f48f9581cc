"""The protocol between the engine and its workers: JSON, one object per line.

The engine writes a :class:`Task` to the worker's stdin, and ``go`` when the worker is ready. The worker writes events
to its stdout. Both sides decode with types, so that neither acts on an invalid message.
"""

import enum
from typing import Annotated, Literal

import msgspec

GO = b"go"
#: Maximum length of a line.
LINE_BYTES = 1 << 16

Phase = Literal["zero", "verify"]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Threads = Annotated[int, msgspec.Meta(ge=0, le=256)]


class Outcome(enum.StrEnum):
    """How a wipe ended.

    :cvar WIPED: every byte was read back and is zero
    :cvar STOPPED: it was stopped or not allowed to start, or its worker was killed
    :cvar BUSY: another process holds the lock; the reason names it if known. Nothing was changed
    :cvar IN_USE: a process, named in the reason, has the device mapped or open. Nothing was changed
    :cvar MISSING: discovery does not find the namespace, or finds it changed. Nothing was changed
    :cvar HOST: the host failed, not the medium: for example permissions or a broken installation
    :cvar MEDIA: bytes are not zero after zeroing, or a media error killed the worker. The namespace is quarantined
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
    """What to wipe, and how. It contains no path: the worker looks up the device by uuid.

    :ivar discovery: name of the discovery that finds the namespace, created with `options`
    :ivar start: number of bytes from the start that an earlier wipe has durably zeroed. A worker with more privileges
        than its parent zeroes them again: otherwise it would read, and report on, bytes that it has not erased
    :ivar threads: number of threads; 0 means that the worker decides
    :ivar rate: maximum bytes per second in each of the two phases; 0 means no limit
    :ivar size: required size of the device in bytes
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

    After ``go`` the worker checks again. If it then finds such a process, it fails with IN_USE and writes nothing.
    """


class Progress(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """The number of bytes from the start that are durably zero (phase zero) or were read back (phase verify).

    In phase zero it is never less than ``Task.start``.
    """

    phase: Phase
    bytes: Bytes


class Wiped(msgspec.Struct, frozen=True, tag_field="event", tag="wiped"):
    """Every byte of the device was read back and is zero. It stays locked until stdin is closed."""


class Failure(msgspec.Struct, frozen=True, tag_field="event", tag="failed"):
    """The wipe is not possible, or failed. A locked device stays locked until stdin is closed."""

    outcome: Outcome
    reason: str

    def __post_init__(self) -> None:
        """Reject an outcome that is not a failure. :raises ValueError: msgspec reports it as a ValidationError."""
        if self.outcome not in FAILURES:
            raise ValueError(f"'{self.outcome}' is not a failure")


Event = Ready | Progress | Wiped | Failure

#: The exceptions of the decoders for an invalid line. Deeply nested JSON raises RecursionError.
NOT_UNDERSTOOD = (msgspec.MsgspecError, UnicodeError, RecursionError)

decode_task = msgspec.json.Decoder(Task).decode
decode_event = msgspec.json.Decoder(Event).decode


def encode(message: Task | Event) -> bytes:
    """Encode a message as one line."""
    return msgspec.json.encode(message) + b"\n"
