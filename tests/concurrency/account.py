"""What a process was told, written to a file as it happens: one JSON object a line, one line for each operation.

``first`` and ``last`` are the ids of the newest line of the ledger's history before and after the operation, read with
SQLite alone: what the operation did must be between them.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import sqlite3
import threading
import time
from collections.abc import Iterator

from . import host


@dataclasses.dataclass
class Operation:
    """One operation and what its caller was told.

    :ivar kind: what was called
    :ivar refused: the name of the documented error that it ended with; empty when it was done
    :ivar failed: any other error, or what is wrong with the bytes
    :ivar seconds: how long the caller waited
    :ivar got: uuids that the owner holds now and did not hold before
    :ivar gave: uuids that the owner held before and does not hold now
    :ivar kept: uuids that the owner held all the time
    :ivar wiped: uuids that are not dirty any more, or were not for a moment
    :ivar seen: uuid, state and owner of a namespace in a listing
    """

    kind: str
    owner: str | None = None
    refused: str = ""
    failed: str = ""
    first: int = 0
    last: int = 0
    seconds: float = 0.0
    got: list[str] = dataclasses.field(default_factory=list)
    gave: list[str] = dataclasses.field(default_factory=list)
    kept: list[str] = dataclasses.field(default_factory=list)
    wiped: list[str] = dataclasses.field(default_factory=list)
    seen: list[str | None] = dataclasses.field(default_factory=list)


class Account:
    """The file of one process. Any of its threads may write to it."""

    def __init__(self, path: pathlib.Path, ledger: pathlib.Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._ledger = sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True, timeout=60, check_same_thread=False)
        self._lock = threading.Lock()

    def tell(self, line: dict[str, object]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")

    @contextlib.contextmanager
    def operation(
        self, kind: str, owner: str | None = None, *, refusals: tuple[type[Exception], ...] = ()
    ) -> Iterator[Operation]:
        """Run one operation and write it down. An error ends the operation, not the caller.

        :param refusals: the documented errors that others' operations may cause
        """
        found = Operation(kind, owner, first=self._last_move())
        begin = time.monotonic()
        try:
            yield found
        except refusals as error:
            found.refused = type(error).__name__
        except Exception as error:  # noqa: BLE001  the checker reports it
            found.failed = found.failed or repr(error)
        found.seconds = time.monotonic() - begin
        found.last = self._last_move()
        self.tell({name: value for name, value in dataclasses.asdict(found).items() if value})

    def _last_move(self) -> int:
        with self._lock:
            ((move,),) = self._ledger.execute("SELECT coalesce(max(id), 0) FROM history").fetchall()
            return int(move)


class Guest:
    """What an owner holds, and what its guest has written there. It checks the bytes whenever it looks."""

    def __init__(self, account: Account, owner: str) -> None:
        self._account = account
        self.owner = owner
        self._held: dict[str, tuple[str, int]] = {}  # path and generation by uuid
        self._left: dict[str, tuple[str, int]] = {}  # the same of what was given back

    @property
    def held(self) -> list[str]:
        return list(self._held)

    def starts(self, uuid: str, path: str) -> str:
        """It has got a namespace: all zero. :returns: what is wrong"""
        wrong = "" if host.is_zero(path) else f"{uuid} is not all zero for its new owner {self.owner}"
        self._held[uuid] = (path, 0)
        self.writes(uuid)
        return wrong

    def comes_back(self, uuid: str) -> str:
        """It has got back what it has given back, unwiped. :returns: what is wrong"""
        self._held[uuid] = self._left.pop(uuid)
        return self.looks(uuid)

    def looks(self, uuid: str) -> str:
        """Read one of its namespaces. :returns: what is wrong"""
        path, generation = self._held[uuid]
        if host.has_content(path, self.owner, uuid, generation):
            return ""
        return f"{uuid} is not as its owner {self.owner} has left it"

    def writes(self, uuid: str) -> None:
        path, generation = self._held[uuid]
        self._account.tell({"writes": [self.owner, uuid, None]})
        host.write(path, self.owner, uuid, generation + 1)
        self._account.tell({"writes": [self.owner, uuid, generation + 1]})
        self._held[uuid] = (path, generation + 1)

    def leaves(self, uuid: str) -> str:
        """Look at a namespace for the last time, before it is given back. :returns: what is wrong"""
        wrong = self.looks(uuid)
        self._account.tell({"writes": [self.owner, uuid, None]})
        return wrong

    def left(self, uuid: str) -> None:
        """It was given back."""
        self._left[uuid] = self._held.pop(uuid)
