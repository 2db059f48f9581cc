"""The content of a namespace, as a copy reads it: by offset in the destination."""

import mmap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vpmem_driver.layout import Part
from vpmem_driver.worker.device import Device


class Piece(NamedTuple):
    """`length` bytes for the destination's `offset`: those of `memory` from `at` on, or zeros if it is None."""

    offset: int
    length: int
    memory: mmap.mmap | bytes | None
    at: int

    def view(self) -> memoryview:
        """Return the bytes of a piece that is not zeros."""
        assert self.memory is not None  # noqa: S101  the caller has checked
        return memoryview(self.memory)[self.at : self.at + self.length]


class Content:
    """Reads a device part by part, mapped region by region."""

    def __init__(self, device: Device, parts: Sequence[Part]) -> None:
        self._device = device
        self._parts = parts
        self._region = -1
        self._memory: mmap.mmap | None = None

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """Yield pieces that cover the destination from `start` to `end` without gaps.

        :raises OSError, Failed: a region cannot be mapped
        """
        done = start
        for part in self._parts:
            part_end = min(part.destination + part.length, end)
            if part_end <= done or part.destination >= end:
                continue
            if part.destination > done:
                yield Piece(done, part.destination - done, None, 0)
                done = part.destination
            while done < part_end:
                piece = self._piece(part.source + done - part.destination, done, part_end - done)
                yield piece
                done += piece.length
        if done < end:
            yield Piece(done, end - done, None, 0)

    def whole(self, start: int, length: int) -> Piece:
        """Return one piece that covers a short range of the destination: it is assembled if it has several."""
        found = list(self.pieces(start, start + length))
        if len(found) == 1:
            return found[0]
        assembled = b"".join(bytes(piece.length) if piece.memory is None else piece.view() for piece in found)
        return Piece(start, length, assembled, 0)

    def _piece(self, source: int, offset: int, most: int) -> Piece:
        region = source - source % self._device.region
        if region != self._region or self._memory is None:
            length = min(self._device.region, self._device.size - region)
            # The previous region is unmapped when its last piece is gone.
            self._memory, self._region = self._device.map(region, length, mmap.PROT_READ), region
        return Piece(offset, min(most, len(self._memory) - (source - region)), self._memory, source - region)
