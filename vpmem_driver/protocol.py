"""The protocol between the engine and its workers: JSON, one object per line.

The engine writes a task to the worker's stdin, and ``go`` when the worker is ready. The worker writes events to its
stdout. Both sides decode with types, so that neither acts on an invalid message.

The stdin of a worker that sends or receives is a Unix socket, and ``go`` carries the file descriptor of the stream
(SCM_RIGHTS): sudo and rootwrap close all other descriptors. The bytes do not pass through the engine.
"""

import enum
from typing import Annotated, Literal

import msgspec

from vpmem_driver.layout import Part

GO = b"go"
#: Maximum length of a line.
LINE_BYTES = 1 << 16

Phase = Literal["zero", "copy", "verify"]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Threads = Annotated[int, msgspec.Meta(ge=0, le=256)]


class Outcome(enum.StrEnum):
    """How the work of a worker ended.

    :cvar WIPED: every byte was read back and is zero
    :cvar SENT: the whole content was written to the stream
    :cvar COPIED: every byte was read back and is that of the source
    :cvar LOST: the stream ended early, its bytes were changed on the way, or bytes that an earlier run has written were
        changed since. What was written is durable
    :cvar STOPPED: it was stopped or not allowed to start, or its worker was killed
    :cvar BUSY: another process holds the lock; the reason names it if known. Nothing was changed
    :cvar IN_USE: a process, named in the reason, has the device mapped or open. Nothing was changed, unless the process
        came during the work
    :cvar MISSING: discovery does not find the namespace, or finds it changed. Nothing was changed
    :cvar HOST: the host failed, not the medium: for example permissions or a broken installation
    :cvar MEDIA: bytes are not what was written, or a media error killed the worker. The namespace is quarantined,
        unless it is the source of a copy
    """

    WIPED = "wiped"
    SENT = "sent"
    COPIED = "copied"
    LOST = "lost"
    STOPPED = "stopped"
    BUSY = "busy"
    IN_USE = "in_use"
    MISSING = "missing"
    HOST = "host"
    MEDIA = "media"


#: The outcomes that a worker reports as a :class:`Failure`.
FAILURES = (Outcome.LOST, Outcome.BUSY, Outcome.IN_USE, Outcome.MISSING, Outcome.HOST, Outcome.MEDIA)


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="job", tag="wipe"):
    """What to wipe, and how. It contains no path: the worker looks up the device by uuid.

    :ivar discovery: name of the discovery that finds the namespace, created with `options`
    :ivar start: number of bytes from the start that an earlier wipe has durably zeroed, or an earlier copy has durably
        written. A worker with more privileges than its parent zeroes them again: otherwise it would read, and report
        on, bytes that it has not erased
    :ivar threads: number of threads; 0 means that the worker decides
    :ivar rate: maximum bytes per second in each phase; 0 means no limit
    :ivar size: required size of the device in bytes
    """

    uuid: str
    discovery: str
    options: dict[str, str]
    start: Bytes
    threads: Threads
    rate: Bytes
    size: Bytes


class SendTask(Task, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="send"):
    """Write the content of a namespace to the stream. Offsets, and `start`, are those of the destination.

    :ivar parts: where the content goes
    :ivar length: size of the destination in bytes
    :ivar pack: compress with zstd
    """

    parts: tuple[Part, ...]
    length: Bytes
    pack: bool = False


class ReceiveTask(Task, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="receive"):
    """Overwrite a namespace with the content of the stream, and with zeros where it has none; then read it back."""


class CopyTask(Task, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="copy"):
    """Overwrite a namespace with the content of another one of this host, and with zeros elsewhere; then compare.

    :ivar source: uuid of the namespace to read
    :ivar source_size: required size of its device in bytes
    :ivar parts: where the content goes
    """

    source: str
    source_size: Bytes
    parts: tuple[Part, ...]


class Ready(msgspec.Struct, frozen=True, tag_field="event", tag="ready"):
    """The device is locked, and no other process has it mapped. Nothing is written before ``go``.

    After ``go`` the worker checks again. If it then finds such a process, it fails with IN_USE and writes nothing. It
    checks a last time when the work is done, and also fails if a process has come meanwhile.
    """


class Progress(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """The number of bytes from the start that are zero (phase zero), copied or sent (copy), or were read back (verify).

    Zeros and copied bytes are durable. In the first phase it is never less than ``Task.start``.
    """

    phase: Phase
    bytes: Bytes


class Wiped(msgspec.Struct, frozen=True, tag_field="event", tag="wiped"):
    """Every byte of the device was read back and is zero. It stays locked until stdin is closed."""


class Sent(msgspec.Struct, frozen=True, tag_field="event", tag="sent"):
    """The whole content was written to the stream."""


class Copied(msgspec.Struct, frozen=True, tag_field="event", tag="copied"):
    """Every byte of the destination was read back and is that of the source. It stays locked until stdin is closed."""


class Failure(msgspec.Struct, frozen=True, tag_field="event", tag="failed"):
    """The work is not possible, or failed. A locked device stays locked until stdin is closed."""

    outcome: Outcome
    reason: str

    def __post_init__(self) -> None:
        """Reject an outcome that is not a failure. :raises ValueError: msgspec reports it as a ValidationError."""
        if self.outcome not in FAILURES:
            raise ValueError(f"'{self.outcome}' is not a failure")


Event = Ready | Progress | Wiped | Sent | Copied | Failure
AnyTask = Task | SendTask | ReceiveTask | CopyTask

#: The exceptions of the decoders for an invalid line. Deeply nested JSON raises RecursionError.
NOT_UNDERSTOOD = (msgspec.MsgspecError, UnicodeError, RecursionError)

decode_wipe_task = msgspec.json.Decoder(Task).decode
decode_copy_task = msgspec.json.Decoder(SendTask | ReceiveTask | CopyTask).decode
decode_task = msgspec.json.Decoder(AnyTask).decode
decode_event = msgspec.json.Decoder(Event).decode


def encode(message: AnyTask | Event) -> bytes:
    """Encode a message as one line."""
    return msgspec.json.encode(message) + b"\n"
