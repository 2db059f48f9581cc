"""The sender's end of the conversation, usually over ssh."""

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
    """The sender's end of a conversation. Use it as a context manager."""

    def __init__(self, host: str, requests: int, replies: int, wait: poll.Wait = poll.wait) -> None:
        """Store the arguments.

        :param host: name of the other side, for messages
        :param requests: file descriptor to write to
        :param replies: file descriptor to read from
        :param wait: function that waits for replies
        """
        self.host = host
        self._requests: int | None = requests
        self._replies = replies
        self._wait = wait
        self._received = b""

    def __enter__(self) -> typing.Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def fd(self) -> int:
        """Where to write a stream. :raises ConnectionLost: it is closed."""
        if self._requests is None:
            raise ConnectionLost(host=self.host, reason="it is closed")
        return self._requests

    def write(self, message: messages.FromSender) -> None:
        """Send a message. :raises ConnectionLost: the other side has ended."""
        os.set_blocking(self.fd, True)  # a sender of a stream has cleared that
        try:
            left = messages.encode(message)
            while left:
                left = left[os.write(self.fd, left) :]
        except BrokenPipeError as error:
            raise self._lost() from error

    def end_stream(self) -> None:
        """Close what the other side reads, so that it ends too."""
        if self._requests is not None:
            os.close(self._requests)
            self._requests = None

    def read(self) -> messages.FromReceiver:
        """Wait for the next message. :raises ConnectionLost: none comes."""
        deadline = time.monotonic() + SILENCE_SECONDS
        while (message := self.poll()) is None:
            if time.monotonic() >= deadline:
                raise ConnectionLost(host=self.host, reason=f"it said nothing for {SILENCE_SECONDS:.0f} seconds")
            self._wait([self._replies], 1.0)
        return message

    def poll(self) -> messages.FromReceiver | None:
        """Return the next message, or None if there is none yet. :raises ConnectionLost: the other side has ended."""
        while b"\n" not in self._received:
            if not self._wait([self._replies], 0):
                return None
            piece = os.read(self._replies, _READ_BYTES)
            if not piece:
                raise self._lost()
            self._received += piece
        line, self._received = self._received.split(b"\n", 1)
        try:
            return messages.decode_from_receiver(line)
        except messages.Garbled as error:
            reason = f"it answered something else than 'vpmem receive' does: {error}"
            raise ConnectionLost(host=self.host, reason=reason) from error

    def close(self) -> None:
        """End the conversation."""
        self.end_stream()
        os.close(self._replies)

    def _lost(self) -> ConnectionLost:
        """Return the error for the end of the other side."""
        return ConnectionLost(host=self.host, reason="the other side has ended")


class ProcessConnection(Connection):
    """A conversation with a child process, such as ssh."""

    def __init__(self, host: str, command: Sequence[str], wait: poll.Wait = poll.wait) -> None:
        """Start the child; see :class:`Connection`. :raises ConnectionLost: it cannot be started."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        theirs, requests = os.pipe()
        replies, answers = os.pipe()
        super().__init__(host, requests, replies, wait)
        try:
            self._process = subprocess.Popen(
                command, stdin=theirs, stdout=answers, stderr=self._errors, process_group=0
            )
        except OSError as error:
            super().close()
            self._errors.close()
            raise ConnectionLost(host=host, reason=f"{command[0]}: {error.strerror}") from error
        finally:
            os.close(theirs)
            os.close(answers)
        with contextlib.suppress(OSError):
            fcntl.fcntl(requests, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def close(self) -> None:
        """End the conversation and the child."""
        self.end_stream()
        if not poll.has_ended(self._process, _GRACE_SECONDS):
            self._process.kill()
            self._process.wait()
        super().close()
        self._errors.close()

    def _lost(self) -> ConnectionLost:
        """Return the error for a child that has ended, with the last line that it printed."""
        poll.has_ended(self._process, _GRACE_SECONDS)
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _READ_BYTES))
        lines = self._errors.read().decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        reason = f"its command ended with status {self._process.returncode}"
        return ConnectionLost(host=self.host, reason=f"{reason} ({exception.shorten(said)})" if said else reason)
