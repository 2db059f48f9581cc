"""A wipe as the engine is given it, its result, and who records it meanwhile."""

import dataclasses
from typing import Protocol

from vpmem_driver.protocol import Outcome


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

    def ended(self, outcome: Outcome, reason: str = "") -> "Result":
        """The result of this job."""
        return Result(uuid=self.uuid, name=self.name, outcome=outcome, reason=reason)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How the wipe of one namespace ended.

    :ivar reason: why it is not wiped; empty when it is wiped, and when the caller stopped it or did not let it start
    """

    uuid: str
    name: str
    outcome: Outcome
    reason: str = ""


class Recorder(Protocol):
    """Records a run of the engine. It is called from the thread that called :meth:`Engine.run`, one call at a time."""

    def may_start(self, job: Job) -> bool:
        """Whether to overwrite the first byte. The namespace is locked now, and no other process has it mapped."""

    def progress(self, job: Job, phase: str, done: int) -> bool:
        """In phase ``zero``, `done` bytes from the start are durably zero; in ``verify``, that many were read back.

        :returns: False to stop the wipe at once: another process is responsible for the namespace now
        """

    def finished(self, result: Result) -> None:
        """The job is over. Unless its process was stopped or died, the namespace stays locked until this returns."""
