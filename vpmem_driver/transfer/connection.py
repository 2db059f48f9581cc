"""A connection to the receiving side: a child process, usually ssh, whose stdin and stdout are the conversation."""

import contextlib
import fcntl
import os
import shlex
import subprocess
import tempfile
import time
import typing
from collections.abc import Sequence

from vpmem_driver import exception
from vpmem_driver.engine import poll
from vpmem_driver.transfer import messages

#: Bytes of the pipe to the child: fewer switches between two processes. Unprivileged users may have up to 1 MiB.
_PIPE_BYTES = 1 << 20
#: How long the receiver may say nothing. A worker reports at least every 300 seconds, or its engine kills it.
SILENCE_SECONDS = 360.0
_GRACE_SECONDS = 10.0
_READ_BYTES = 1 << 14


def ssh_command(ssh: str, host: str, *words: str) -> list[str]:
    """Return the command line that runs `words` on `host`.

    :param ssh: the option ``[vpmem] ssh_command``
    :raises InvalidRequest: `host` cannot be the name of a host
    """
    if not host or host.startswith("-") or not host.isprintable() or any(map(str.isspace, host)):
        raise exception.InvalidRequest(
            what="host", value=host, reason="it is not the name or address of a host", remedy="Write [USER@]HOST"
        )
    return [*shlex.split(ssh), "--", host, *words]


class ConnectionLost(exception.HostError):
    """The other side cannot be reached, or ended the conversation."""

    def __init__(self, *, host: str, reason: str) -> None:
        super().__init__(
            f"The connection to {exception.shorten(host)} was lost: {reason}",
            "Check it with the command of [vpmem] ssh_command, then try again: what has arrived is kept",
        )


class Connection:
    """A running child process. Use it as a context manager."""

    def __init__(self, host: str, command: Sequence[str], wait: poll.Wait = poll.wait) -> None:
        """Start the child.

        :param host: for messages
        :param wait: function that waits for the child's output
        :raises ConnectionLost: it cannot be started
        """
        self.host = host
        self._wait = wait
        self._received = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                process_group=0,
            )
        except OSError as error:
            self._errors.close()
            raise ConnectionLost(host=host, reason=f"{command[0]}: {error.strerror}") from error
        self._stdin = typing.cast("typing.IO[bytes]", self._process.stdin)
        self._stdout = typing.cast("typing.IO[bytes]", self._process.stdout)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def __enter__(self) -> typing.Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def fd(self) -> int:
        """Where to write a stream."""
        return self._stdin.fileno()

    def write(self, message: messages.FromSender) -> None:
        """Send a message. :raises ConnectionLost: the other side has ended."""
        os.set_blocking(self.fd, True)  # a sender of a stream has cleared that
        try:
            self._stdin.write(messages.encode(message))
        except BrokenPipeError as error:
            raise self._lost() from error

    def end_stream(self) -> None:
        """Close what the other side reads, so that it ends too."""
        with contextlib.suppress(OSError):
            self._stdin.close()

    def read(self) -> messages.FromReceiver:
        """Wait for the next message. :raises ConnectionLost: none comes."""
        deadline = time.monotonic() + SILENCE_SECONDS
        while (message := self.poll()) is None:
            if time.monotonic() >= deadline:
                raise ConnectionLost(host=self.host, reason=f"it said nothing for {SILENCE_SECONDS:.0f} seconds")
            self._wait([self._stdout.fileno()], 1.0)
        return message

    def poll(self) -> messages.FromReceiver | None:
        """Return the next message, or None if there is none yet. :raises ConnectionLost: the other side has ended."""
        while b"\n" not in self._received:
            if not self._wait([self._stdout.fileno()], 0):
                return None
            piece = os.read(self._stdout.fileno(), _READ_BYTES)
            if not piece:
                raise self._lost()
            self._received += piece
        line, self._received = self._received.split(b"\n", 1)
        try:
            return messages.decode_from_receiver(line)
        except messages.Garbled as error:
            reason = f"it answered something else than 'vpmem receive' does: {error}"
            raise ConnectionLost(host=self.host, reason=reason) from error

    def _lost(self) -> ConnectionLost:
        """Return the error for a child that has ended, with the last line that it printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_SECONDS)
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _READ_BYTES))
        lines = self._errors.read().decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        reason = f"its command ended with status {self._process.returncode}"
        return ConnectionLost(host=self.host, reason=f"{reason} ({exception.shorten(said)})" if said else reason)

    def close(self) -> None:
        """End the conversation and the child."""
        self.end_stream()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._errors.close()
