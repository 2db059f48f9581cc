"""One process of a round, as the controller sees it."""

import contextlib
import dataclasses
import json
import math
import os
import select
import signal
import socket
import time
import typing

from tests.torture.link import MESSAGE_BYTES
from tests.torture.plan import Task

#: Longer than any step takes, the start of an interpreter on a busy machine included.
PATIENCE_SECONDS = 300


class Hangs(Exception):
    """A process takes no step, although it may."""


@dataclasses.dataclass
class Stall:
    """When a stopped process is to run again.

    :ivar tasks: when so many tasks of others have ended
    :ivar until: at that time, at the latest
    :ivar line: the last line of the history when it was stopped
    :ivar state: as soon as its namespace has been claimed since, and is in that state; None: not before that
    :ivar goal: it is in a trap: what others are to do meanwhile
    :ivar steps: when so many steps were taken
    :ivar reached: they have done it
    """

    tasks: int
    until: float
    line: int
    state: str | None = None
    goal: str | None = None
    steps: float = math.inf
    reached: bool = False


@dataclasses.dataclass(eq=False)
class Process:
    """One process.

    :ivar at: the point where it is: kind, name, and more
    :ivar until: when it has waited long enough, in the controller's time
    :ivar stale: it waits, and what it waits for may have happened since it last looked
    :ivar stalled: when it is to run again
    :ivar stalls: how often it was stopped
    :ivar stopped: it is stopped by SIGSTOP
    :ivar doomed: a signal waits for it to continue, and then ends it
    :ivar contained: it sees no processes but its own
    :ivar inner_pid: what it is to itself
    :ivar helper: the pid of the process that ends as it does, if that is another
    :ivar goes: it was told to overwrite something
    :ivar uuid: the namespace that it wipes, itself or by its last child
    :ivar mapped: inodes that guests had mapped before it was told to overwrite anything
    """

    number: int
    pid: int
    role: str
    parent: "Process | None" = None
    task: Task | None = None
    connection: socket.socket | None = None
    at: tuple[str, str, dict[str, typing.Any]] = ("start", "start", {})
    until: float | None = None
    stale: bool = False
    holds_lock: bool = False
    stalled: Stall | None = None
    stalls: int = 0
    stopped: bool = False
    doomed: bool = False
    contained: bool = False
    inner_pid: int = 0
    helper: int = 0
    mapped: frozenset[int] = frozenset()
    goes: bool = False
    uuid: str | None = None
    points: int = 0
    ended: bool = False
    output: str | None = None
    answer: typing.Any = None

    def __post_init__(self) -> None:
        self.pidfd = os.pidfd_open(self.pid)

    def __str__(self) -> str:
        return f"{self.role} {self.number}"

    @property
    def waits(self) -> bool:
        return self.at[0] == "wait"

    def send(self, do: str, now: float, value: object = None) -> None:
        assert self.connection is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(json.dumps([do, now, value]).encode())

    def receive(self) -> bool:
        """Wait for its next point. :returns: False when it has ended instead."""
        assert self.connection is not None
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        ready = dict(poll.poll(PATIENCE_SECONDS * 1000))
        if not ready:
            raise Hangs(f"{self} ({self.task}) does not come to another point after {self.at[1]}")
        if self.connection.fileno() in ready:
            with contextlib.suppress(ConnectionResetError):
                message = self.connection.recv(MESSAGE_BYTES)
                if message:
                    kind, name, info = json.loads(message)
                    self.at = (kind, name, info)
                    self.until = info.get("until")
                    self.stale = False
                    self.holds_lock = info.get("holds_lock", self.holds_lock)
                    self.points += 1
                    return True
        self.wait_end(PATIENCE_SECONDS)
        return False

    def wait_end(self, seconds: float) -> bool:
        """Wait until it has ended. :returns: whether it has"""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def wait_stopped(self) -> None:
        """Wait until SIGSTOP has taken effect."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                with open(f"/proc/{self.pid}/stat", "rb") as file:
                    state = file.read().rpartition(b") ")[2][:1]
            except FileNotFoundError:
                return
            if state in b"TZX":
                return
            time.sleep(0.0001)
        raise Hangs(f"{self} does not stop")

    def close(self) -> None:
        self.ended = True
        os.close(self.pidfd)
        if self.connection is not None:
            self.connection.close()
