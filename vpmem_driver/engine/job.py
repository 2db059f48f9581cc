"""The input of an engine run, its result, and the interface of its recorder."""

import dataclasses
import typing
from typing import Protocol

from vpmem_driver import protocol
from vpmem_driver.layout import Part
from vpmem_driver.protocol import Outcome


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One namespace to wipe, and the base of the other jobs.

    :ivar size: bytes
    :ivar start: number of bytes from the start that an earlier wipe has durably zeroed
    :cvar phases: what a worker reports progress of, in this order; each ends at :attr:`length` bytes
    :cvar success: outcome of the job if its worker reports :attr:`done`
    :cvar bus_error: outcome if a memory error kills its worker
    """

    uuid: str
    name: str
    size: int
    start: int = 0

    phases: typing.ClassVar[tuple[protocol.Phase, ...]] = ("zero", "verify")
    done: typing.ClassVar[type[protocol.Event]] = protocol.Wiped
    success: typing.ClassVar[Outcome] = Outcome.WIPED
    bus_error: typing.ClassVar[Outcome] = Outcome.MEDIA

    @property
    def length(self) -> int:
        """Bytes at which each phase ends."""
        return self.size

    @property
    def stream(self) -> int | None:
        """File descriptor that the worker reads from or writes to; None if it has no stream."""
        return None

    def task(self, **settings: typing.Any) -> protocol.AnyTask:
        """Return the task for the worker. `settings` are the other fields of the task."""
        return protocol.Task(uuid=self.uuid, size=self.size, start=self.start, **settings)

    def ended(self, outcome: Outcome, reason: str = "") -> "Result":
        """Return a result of this job."""
        return Result(uuid=self.uuid, name=self.name, outcome=outcome, reason=reason)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SendJob(Job):
    """One namespace whose content goes into a stream. Offsets are those of the destination.

    :ivar fd: where to write the stream
    :ivar parts: where the content goes
    :ivar destination_size: bytes
    :ivar start: number of bytes from the start that the destination already has
    :ivar pack: compress with zstd
    """

    fd: int
    parts: tuple[Part, ...]
    destination_size: int
    pack: bool = False

    phases: typing.ClassVar[tuple[protocol.Phase, ...]] = ("copy",)
    done: typing.ClassVar[type[protocol.Event]] = protocol.Sent
    success: typing.ClassVar[Outcome] = Outcome.SENT
    bus_error: typing.ClassVar[Outcome] = Outcome.HOST

    @property
    def length(self) -> int:
        """See :class:`Job`."""
        return self.destination_size

    @property
    def stream(self) -> int | None:
        """See :class:`Job`."""
        return self.fd

    def task(self, **settings: typing.Any) -> protocol.SendTask:
        """See :class:`Job`."""
        return protocol.SendTask(
            uuid=self.uuid,
            size=self.size,
            start=self.start,
            parts=self.parts,
            length=self.destination_size,
            pack=self.pack,
            **settings,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveJob(Job):
    """One namespace that receives the content of a stream.

    :ivar fd: where to read the stream
    :ivar start: number of bytes from the start that an earlier run has durably written
    """

    fd: int

    phases: typing.ClassVar[tuple[protocol.Phase, ...]] = ("copy", "verify")
    done: typing.ClassVar[type[protocol.Event]] = protocol.Copied
    success: typing.ClassVar[Outcome] = Outcome.COPIED

    @property
    def stream(self) -> int | None:
        """See :class:`Job`."""
        return self.fd

    def task(self, **settings: typing.Any) -> protocol.ReceiveTask:
        """See :class:`Job`."""
        return protocol.ReceiveTask(uuid=self.uuid, size=self.size, start=self.start, **settings)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CopyJob(Job):
    """One namespace that receives the content of another one of this host.

    :ivar source: uuid of the namespace to read
    :ivar source_size: its size in bytes
    :ivar parts: where the content goes
    :ivar start: number of bytes from the start that an earlier run has durably written
    """

    source: str
    source_size: int
    parts: tuple[Part, ...]

    phases: typing.ClassVar[tuple[protocol.Phase, ...]] = ("copy", "verify")
    done: typing.ClassVar[type[protocol.Event]] = protocol.Copied
    success: typing.ClassVar[Outcome] = Outcome.COPIED
    bus_error: typing.ClassVar[Outcome] = Outcome.HOST  # of the source, or of the destination

    def task(self, **settings: typing.Any) -> protocol.CopyTask:
        """See :class:`Job`."""
        return protocol.CopyTask(
            uuid=self.uuid,
            size=self.size,
            start=self.start,
            source=self.source,
            source_size=self.source_size,
            parts=self.parts,
            **settings,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How the work on one namespace ended.

    :ivar reason: why it failed; empty if it succeeded, or if the caller stopped it or did not allow it to start
    """

    uuid: str
    name: str
    outcome: Outcome
    reason: str = ""


class Recorder(Protocol):
    """Records a run of the engine, which calls it only from the thread that called :meth:`Engine.run`."""

    def may_start(self, job: Job) -> bool:
        """Whether the worker may begin. It has locked the namespace, which no process has mapped."""

    def progress(self, job: Job, phase: str, done: int) -> bool:
        """Record progress: `done` bytes from the start are zero (phase ``zero``), copied, or verified.

        Zeros and copied bytes are durable; of a sender, they are in the stream.

        :returns: False to stop the work at once, because another process is now responsible for the namespace
        """

    def finished(self, result: Result) -> None:
        """Record the result. Unless its worker was stopped or died, the namespace stays locked until this returns."""
