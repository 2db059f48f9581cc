"""The input of an engine run, its result, and the interface of its recorder."""

import dataclasses
from typing import Protocol

from vpmem_driver.protocol import Outcome


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One namespace to wipe.

    :ivar size: bytes
    :ivar start: number of bytes from the start that an earlier wipe has durably zeroed
    """

    uuid: str
    name: str
    size: int
    start: int = 0

    def ended(self, outcome: Outcome, reason: str = "") -> "Result":
        """Return a result of this job."""
        return Result(uuid=self.uuid, name=self.name, outcome=outcome, reason=reason)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How the wipe of one namespace ended.

    :ivar reason: why it is not wiped; empty if it is wiped, or if the caller stopped it or did not allow it to start
    """

    uuid: str
    name: str
    outcome: Outcome
    reason: str = ""


class Recorder(Protocol):
    """Records a run of the engine, which calls it only from the thread that called :meth:`Engine.run`."""

    def may_start(self, job: Job) -> bool:
        """Whether the worker may overwrite the first byte. It has locked the namespace, which no process has mapped."""

    def progress(self, job: Job, phase: str, done: int) -> bool:
        """Record progress: `done` bytes from the start are durably zero (phase ``zero``) or verified (``verify``).

        :returns: False to stop the wipe at once, because another process is now responsible for the namespace
        """

    def finished(self, result: Result) -> None:
        """Record the result. Unless its worker was stopped or died, the namespace stays locked until this returns."""
