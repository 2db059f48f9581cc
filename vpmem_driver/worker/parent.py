"""The worker's connection to its parent, over stdin and stdout."""

import os
import select
import socket

from vpmem_driver import protocol


class Stopped(Exception):
    """The parent has closed stdin or stdout, or has broken the protocol."""


class Parent:
    """The parent process, which sends requests through stdin and reads reports from stdout."""

    def __init__(self, requests: int, reports: int) -> None:
        self._requests = requests
        self._reports = reports
        self._received = b""

    def line(self) -> bytes:
        """Read the next line. :raises Stopped: stdin is closed, or the line is too long."""
        while b"\n" not in self._received:
            piece = os.read(self._requests, protocol.LINE_BYTES)
            if not piece or len(self._received) > protocol.LINE_BYTES:
                raise Stopped
            self._received += piece
        line, self._received = self._received.split(b"\n", 1)
        return line

    def stream(self) -> int:
        """Wait for ``go``, and return the file descriptor of the stream that comes with it.

        :raises Stopped: stdin is closed, or the parent sent something else
        """
        with socket.socket(fileno=os.dup(self._requests)) as requests:
            line, fds, _, _ = socket.recv_fds(requests, protocol.LINE_BYTES, 1)
        if line != protocol.GO + b"\n" or len(fds) != 1 or self._received:
            raise Stopped
        return fds[0]

    def wait_readable(self, fd: int) -> None:
        """Wait until `fd` can be read. :raises Stopped: see :meth:`pause`."""
        if self._requests in select.select([self._requests, fd], [], [])[0]:
            raise Stopped

    def wait_writable(self, fd: int) -> None:
        """Wait until `fd` can be written to. :raises Stopped: see :meth:`pause`."""
        if select.select([self._requests], [fd], [])[0]:
            raise Stopped

    def report(self, event: protocol.Event) -> None:
        """Report an event. :raises Stopped: the parent no longer reads stdout."""
        try:
            os.write(self._reports, protocol.encode(event))
        except BrokenPipeError as error:
            raise Stopped from error

    def pause(self, seconds: float) -> None:
        """Wait `seconds`. :raises Stopped: at once if stdin closes or has data, which the protocol does not allow."""
        if select.select([self._requests], [], [], seconds)[0]:
            raise Stopped

    def wait_until_closed(self) -> None:
        """Wait until the parent has recorded the outcome and closes stdin."""
        while os.read(self._requests, protocol.LINE_BYTES):
            pass
