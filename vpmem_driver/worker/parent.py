"""The worker's connection to its parent, over stdin and stdout."""

import os
import select

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
