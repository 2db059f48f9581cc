"""The result of a check."""

import dataclasses
import enum

from vpmem_driver import exception
from vpmem_driver.faults.fault import Fault


class Level(enum.StrEnum):
    """How serious a finding is.

    ``unseen``: this user cannot see it; nothing is known.
    """

    OK = "ok"
    UNSEEN = "unseen"
    WARNING = "warning"
    FAILURE = "failure"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found.

    :ivar check: what was looked at, in a few words
    :ivar id: id of the fault; None if there is none
    :ivar remedy: what to do; None if nothing is to be done
    """

    check: str
    level: Level
    message: str
    id: str | None = None
    remedy: str | None = None


def ok(check: str, message: str) -> Finding:
    """Return a finding that needs nobody."""
    return Finding(check=check, level=Level.OK, message=message)


def unseen(check: str, message: str, remedy: str = "Run this as root") -> Finding:
    """Return the finding that this user cannot see it."""
    return Finding(check=check, level=Level.UNSEEN, message=message, remedy=remedy)


def warning(check: str, fault: Fault, message: str, remedy: str | None = None) -> Finding:
    """Return a finding that a person should look at.

    :param remedy: instead of the fault's general remedy
    """
    return Finding(check=check, level=Level.WARNING, message=message, id=fault.id, remedy=remedy or fault.remedy)


def failure(check: str, fault: Fault, message: str, remedy: str | None = None) -> Finding:
    """Return a finding that needs a person.

    :param remedy: instead of the fault's general remedy
    """
    return Finding(check=check, level=Level.FAILURE, message=message, id=fault.id, remedy=remedy or fault.remedy)


def of_error(check: str, error: exception.VPMEMError) -> Finding:
    """Return an error of this package as a failure. Its message contains its remedy."""
    return Finding(check=check, level=Level.FAILURE, message=str(error), id=error.id)
