"""The processes of one round: how they are started, signalled and buried."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import struct
from collections.abc import Callable, Iterator

from tests.torture import actors
from tests.torture.link import KILLED, MESSAGE_BYTES
from tests.torture.process import PATIENCE_SECONDS, Hangs, Process


class Processes:
    """Those that live. Each is connected to this socket.

    :ivar now: the time that it is for them
    """

    def __init__(self, directory: pathlib.Path, note: Callable[[str], None]) -> None:
        self._note = note
        self.now = 1000.0
        self.address = str(directory / "controller")
        self._errors = directory / "errors"
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(self.address)
        self._listening.listen(64)
        self._listening.settimeout(PATIENCE_SECONDS)
        self._living: list[Process] = []
        self._statuses: dict[int, int] = {}
        self.count = 0

    def __iter__(self) -> Iterator[Process]:
        return iter(self._living)

    def __len__(self) -> int:
        return len(self._living)

    def start(self, main: Callable[..., int], *values: object, contained: bool) -> Process:
        """Start one that does `main`."""
        pid = actors.start(self.address, self._errors, main, *values, contained=contained)
        process = self.greet(None)
        process.contained = contained
        process.helper = pid if contained else 0
        return process

    def greet(self, parent: Process | None) -> Process:
        """Wait for the greeting of a new one."""
        try:
            connection, _ = self._listening.accept()
        except TimeoutError as error:
            raise Hangs("a process does not start") from error
        kind, role, info = json.loads(connection.recv(MESSAGE_BYTES))
        assert kind == "hello", kind
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", credentials)
        process = Process(self.count, pid, role, parent, connection=connection, inner_pid=info["pid"])
        process.contained = parent is not None and parent.contained
        self.count += 1
        self._living.append(process)
        self.note(process, "starts" if parent is None else f"is started by {parent}")
        return process

    def note(self, process: Process, what: str) -> None:
        """Write down what a process does."""
        self._note(f"{process}: {what}")

    def children_of(self, process: Process) -> list[Process]:
        return [child for child in self._living if child.parent is process]

    def bury(self, process: Process) -> int | None:
        """It has ended. :returns: as :meth:`status`"""
        self._living.remove(process)
        process.close()
        for other in self._living:
            other.stale = other.stale or other.waits
        return self.status(process)

    def status(self, process: Process) -> int | None:
        """Its exit status, negative for a signal; None when its parent has taken it."""
        if process.helper:
            with contextlib.suppress(ChildProcessError):
                self._statuses[process.helper] = os.waitstatus_to_exitcode(os.waitpid(process.helper, 0)[1])
        self._reap()
        status = self._statuses.get(process.helper or process.pid)
        return -signal.SIGKILL if status == KILLED else status

    def kill_all(self) -> None:
        """Kill them all, and wait until they have ended. They stay in the list."""
        for process in self._living:
            process.signal(signal.SIGKILL)
        for process in self._living:
            process.wait_end(PATIENCE_SECONDS)

    def bury_all(self) -> None:
        for process in self._living:
            process.close()
        self._living.clear()
        self._reap()

    def errors(self) -> str:
        """The end of what they have said on stderr."""
        return self._errors.read_text(errors="replace")[-3000:] if self._errors.exists() else ""

    def close(self) -> None:
        self._listening.close()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                self._statuses[pid] = os.waitstatus_to_exitcode(status)
