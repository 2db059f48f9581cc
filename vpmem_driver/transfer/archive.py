"""A namespace in a file: one line with its header (JSON), then the frames of its stream (:mod:`vpmem_driver.stream`).

A raw image has the bytes of the whole namespace, with holes for zeros, and neither header nor digests.
"""

import errno
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, Protocol

import msgspec

from vpmem_driver import stream
from vpmem_driver.layout import Part
from vpmem_driver.model import IN_TREE, Described, Hardware
from vpmem_driver.protocol import NOT_UNDERSTOOD, Bytes
from vpmem_driver.stream import CELL, HEADER_BYTES, NO_DIGEST, Digests, Frame, Kind, StreamBroken, StreamDamaged
from vpmem_driver.transfer import messages

_Text = Annotated[str, msgspec.Meta(max_length=255)]
_ZEROS = bytes(CELL)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a file.

    :ivar vpmem: version of the format
    :ivar name, label, size, align: of the namespace, in bytes
    :ivar hardware: what the guest's device was, which says where its labels are
    """

    vpmem: Literal[1] = 1
    name: _Text
    label: _Text | None
    size: Annotated[int, msgspec.Meta(gt=0, le=1 << 52)]
    align: Bytes
    hardware: Hardware = IN_TREE

    @classmethod
    def of(cls, namespace: Described) -> "Header":
        """Return the header for a file of a namespace."""
        return cls(
            name=namespace.name,
            label=namespace.label,
            size=namespace.size,
            align=namespace.align,
            hardware=namespace.hardware,
        )


class Cell(NamedTuple):
    """One cell that is not zero."""

    offset: int
    digest: bytes
    content: memoryview


class Sink(Protocol):
    """Where the content of a namespace is written."""

    def cell(self, cell: Cell) -> None:
        """Write a cell. Offsets ascend; what is between two cells is zero."""

    def finish(self) -> bytes:
        """Write the end, and return the digest of all cells."""


class Frames:
    """Writes a stream. What is between the cells, and after the last one, becomes frames of zeros."""

    def __init__(self, fd: int, size: int, *, kept: int = 0, done: int = 0, digests: Digests | None = None) -> None:
        """Store the arguments; nothing is written.

        :param kept: bytes from the start that the reader already has: of these, only digests are written
        :param done: bytes from the start whose frames are written already
        :param digests: their digests
        """
        self._fd = fd
        self._size = size
        self._kept = kept
        self._done = done
        self._digests = digests or Digests(size)

    def cell(self, cell: Cell) -> None:
        """See :class:`Sink`."""
        self._zeros(cell.offset)
        self._digests[cell.offset] = cell.digest
        length = len(cell.content)
        if cell.offset < self._kept:
            self._write(Frame(Kind.KEPT, cell.offset, length, cell.digest).encode())
        else:
            self._write(Frame(Kind.DATA, cell.offset, length, cell.digest).encode(), cell.content)
        self._done = cell.offset + length

    def finish(self) -> bytes:
        """See :class:`Sink`."""
        self._zeros(self._size)
        total = self._digests.total()
        self._write(Frame(Kind.END, self._size, 0, total).encode())
        return total

    def _zeros(self, end: int) -> None:
        if end > self._done:
            self._write(Frame(Kind.ZERO, self._done, end - self._done, NO_DIGEST).encode())

    def _write(self, *pieces: bytes | memoryview) -> None:
        left = [memoryview(piece) for piece in pieces]
        while left:
            done = os.writev(self._fd, left)
            while left and done >= len(left[0]):
                done -= len(left.pop(0))
            if left:
                left[0] = left[0][done:]


class RawImage:
    """Writes a raw image with holes."""

    def __init__(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)
        self._fd = fd
        self._digests = Digests(size)

    def cell(self, cell: Cell) -> None:
        """See :class:`Sink`."""
        done = 0
        while done < len(cell.content):
            done += os.pwrite(self._fd, cell.content[done:], cell.offset + done)
        self._digests[cell.offset] = cell.digest

    def finish(self) -> bytes:
        """See :class:`Sink`."""
        return self._digests.total()


class Changed(Exception):
    """The content is not what an interrupted export has written: the guest has run meanwhile."""


def store(fd: int, size: int, sink: Sink, *, start: int = 0) -> bytes:
    """Read a stream to its end, and write its content to `sink`.

    :param start: bytes from the start that `sink` already has
    :returns: the digest of all cells
    :raises StreamBroken, StreamDamaged: see there
    :raises Changed: the first `start` bytes are others now
    :raises OSError: reading or writing failed
    """
    reader = stream.Reader(fd, size, start=start)
    while True:
        frame, content = reader.read()
        if frame.kind is Kind.DATA:
            sink.cell(Cell(frame.offset, frame.digest, content))
        elif frame.kind is Kind.END:
            total = sink.finish()
            if total != frame.digest:
                raise Changed
            return total


def write_header(fd: int, header: Header) -> None:
    """Write the first line. :raises OSError: that failed."""
    line = msgspec.json.encode(header) + b"\n"
    while line:
        line = line[os.write(fd, line) :]


def read_header(fd: int) -> Header:
    """Read the first line, and not a byte more. :raises StreamDamaged: it is not one."""
    try:
        line = messages.read_line(fd)
        return msgspec.json.decode(line or b"", type=Header)
    except (messages.Garbled, *NOT_UNDERSTOOD) as error:
        raise StreamDamaged("it does not begin as an export of vpmem does") from error


class Begun(NamedTuple):
    """What a file has that an interrupted export has left.

    :ivar position: bytes of the file that are valid
    :ivar done: bytes of the namespace whose frames these are
    """

    position: int
    done: int
    digests: Digests


def scan(fd: int, size: int) -> Begun:
    """Read the frames of an incomplete file behind its header. :raises OSError: it cannot be read."""
    reader = stream.Reader(fd, size)
    begun = Begun(os.lseek(fd, 0, os.SEEK_CUR), 0, reader.digests)
    try:
        while (frame := reader.read()[0]).kind is not Kind.END:
            begun = begun._replace(position=os.lseek(fd, 0, os.SEEK_CUR), done=frame.end)
    except (StreamBroken, StreamDamaged):
        if begun.done < size:
            reader.digests[begun.done] = NO_DIGEST  # of a cell that is not complete
    return begun


def read_total(path: pathlib.Path) -> tuple[Header, bytes]:
    """Return the header of a complete file, and the digest in its last frame.

    :raises StreamDamaged: it is not complete
    :raises OSError: it cannot be read
    """
    with path.open("rb", buffering=0) as file:
        header = read_header(file.fileno())
        if file.seek(0, os.SEEK_END) < HEADER_BYTES:
            raise StreamDamaged("it is not complete")
        file.seek(-HEADER_BYTES, os.SEEK_END)
        last = Frame.decode(file.read(HEADER_BYTES))
    if last.kind is not Kind.END or last.offset != header.size:
        raise StreamDamaged("it is not complete")
    return header, last.digest


def cells_of_stream(fd: int, size: int) -> Iterator[Cell]:
    """Yield the cells of a stream, to its end. :raises StreamBroken, StreamDamaged, OSError: see there."""
    reader = stream.Reader(fd, size)
    while True:
        frame, content = reader.read()
        if frame.kind is Kind.END:
            return
        if frame.kind is Kind.DATA:
            yield Cell(frame.offset, frame.digest, content)


def cells_of_image(fd: int, size: int) -> Iterator[Cell]:
    """Yield the cells of a raw image. :raises StreamBroken: it is shorter. :raises OSError: it cannot be read."""
    offset = 0
    while (offset := _next_data(fd, offset)) < size:
        content = os.pread(fd, min(CELL, size - offset), offset)
        if len(content) < min(CELL, size - offset):
            raise StreamBroken("it became shorter")
        if content != _ZEROS[: len(content)]:
            yield Cell(offset, stream.digest(content), memoryview(content))
        offset += len(content)


def _next_data(fd: int, offset: int) -> int:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) // CELL * CELL
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.fstat(fd).st_size  # only a hole is left


def move(cells: Iterator[Cell], parts: Sequence[Part], size: int) -> Iterator[Cell]:
    """Move cells to where they are in a namespace of another size (:func:`vpmem_driver.layout.parts`).

    A part can begin and end within a cell: a label area has 128 KiB or more, and an alignment 4 KiB.

    :param size: bytes of the destination
    """
    buffer, begin = bytearray(CELL), 0
    is_used = False

    def used() -> Iterator[Cell]:
        content = memoryview(buffer)[: min(CELL, size - begin)]
        if is_used and content != _ZEROS[: len(content)]:
            yield Cell(begin, stream.digest(content), content)

    for offset, piece, cell in _pieces(cells, parts):
        if begin != offset // CELL * CELL:
            yield from used()
            is_used = False
        if offset % CELL == 0 and len(piece) == len(cell.content) == min(CELL, size - offset):
            yield cell._replace(offset=offset)
            continue
        if not is_used:
            buffer[:], begin, is_used = _ZEROS, offset // CELL * CELL, True
        buffer[offset - begin : offset - begin + len(piece)] = piece
    yield from used()


def _pieces(cells: Iterator[Cell], parts: Sequence[Part]) -> Iterator[tuple[int, memoryview, Cell]]:
    """Yield the pieces of cells that are in `parts`, each within one cell of the destination, with its offset there."""
    for cell in cells:
        for part in parts:
            start = max(part.source - cell.offset, 0)
            end = min(part.source + part.length - cell.offset, len(cell.content))
            while start < end:
                offset = part.destination + cell.offset + start - part.source
                length = min(end - start, CELL - offset % CELL)
                yield offset, cell.content[start : start + length], cell
                start += length
