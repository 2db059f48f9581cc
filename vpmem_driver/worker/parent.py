"""The other end of a worker's stdin and stdout."""

import os
import select

from vpmem_driver import protocol


class Stopped(Exception):
    """The parent has closed stdin."""


class Parent:
    """The other end of stdin and stdout."""

    def __init__(self, requests: int, reports: int) -> None:
        self._requests = requests
        self._reports = reports
        self._received = b""

    def line(self) -> bytes:
        """The next line. :raises Stopped: there is none."""
        while b"\n" not in self._received:
            piece = os.read(self._requests, protocol.LINE_BYTES)
            if not piece or len(self._received) > protocol.LINE_BYTES:
                raise Stopped
            self._received += piece
        line, self._received = self._received.split(b"\n", 1)
        return line

    def tell(self, event: protocol.Event) -> None:
        """Report. :raises Stopped: nobody listens any more."""
        try:
            os.write(self._reports, protocol.encode(event))
        except BrokenPipeError as error:
            raise Stopped from error

    def pause(self, seconds: float) -> None:
        """Wait that long. :raises Stopped: at once when stdin closes, or says something, which it should not."""
        if select.select([self._requests], [], [], seconds)[0]:
            raise Stopped

    def wait_until_closed(self) -> None:
        """Wait, as long as it takes, for the parent to have written down the outcome."""
        while os.read(self._requests, protocol.LINE_BYTES):
            pass
