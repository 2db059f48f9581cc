"""What is asked of the engine, what it answers, and who keeps the books meanwhile."""

import dataclasses
import enum
from typing import Protocol


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One namespace to wipe.

    :ivar size: bytes that it has
    :ivar start: bytes from the start that an earlier wipe left zero and durable
    """

    uuid: str
    name: str
    size: int
    start: int = 0


class Outcome(enum.StrEnum):
    """How a wipe ended.

    :cvar WIPED: every byte was read back and is zero
    :cvar STOPPED: it was asked to, the watcher did not let it start, or its process was killed
    :cvar BUSY: another process, named in the reason where that is known, has it locked; nothing was changed
    :cvar IN_USE: a process, named in the reason, has it mapped or open; nothing was changed
    :cvar HOST: the host's fault: not found, not ours to open, a broken installation
    :cvar MEDIA: zeros did not take, or the medium killed the wipe; to be quarantined
    """

    WIPED = "wiped"
    STOPPED = "stopped"
    BUSY = "busy"
    IN_USE = "in_use"
    HOST = "host"
    MEDIA = "media"


class Watcher(Protocol):
    """Whoever keeps the books. It is called from the thread that called :meth:`Engine.run`, one call at a time."""

    def may_start(self, job: Job) -> bool:
        """Whether to overwrite the first byte. The namespace is locked now, and no other process has it mapped."""

    def progress(self, job: Job, phase: str, done: int) -> bool:
        """In phase ``zero``, `done` bytes from the start are durably zero; in ``verify``, that many were read back.

        :returns: False to stop the wipe at once: another process is responsible for the namespace now
        """

    def finished(self, job: Job, outcome: Outcome, reason: str) -> None:
        """The job is over. Unless its process was stopped or died, the namespace stays locked until this returns."""


#: Outcome and reason.
Result = tuple[Outcome, str]
