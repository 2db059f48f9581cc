"""The stream of a copy: the content of one namespace as a sequence of frames, for a pipe, a socket or a file.

The content is cut into cells of :data:`CELL` bytes by offset in the destination; the last cell may be shorter. The
frames cover all cells in ascending order, without gaps. Zeros are not in the stream. Each cell has a digest
(XXH3, 128 bits), and the last frame has the digest of all digests. Digests detect accidents, not attacks: ssh protects
the stream on its way.

A frame is a header, followed by the payload of a DATA frame:

====== ======= ==============================================================================
bytes  field   meaning
====== ======= ==============================================================================
0-3    magic   ``vpm1``
4-7    kind    DATA: one cell. ZERO: one or more cells of zeros. KEPT: one cell that the receiver
               already has, from an interrupted copy. END: all cells were sent
8-15   offset  bytes from the start of the destination; END: the size of the destination
16-23  length  bytes of the destination; END: 0
24-39  digest  of the cell; ZERO: zeros; END: see :meth:`Digests.total`
40-43  packed  DATA: bytes of the payload, if it is compressed with zstd; 0 if it is not
====== ======= ==============================================================================

Integers are little-endian.
"""

import enum
import os
import struct
from collections.abc import Callable
from typing import NamedTuple

import xxhash

#: Bytes of a cell. Every region that a worker maps is a multiple of it.
CELL = 1 << 20
DIGEST_BYTES = 16
#: The digest of a cell of zeros in :class:`Digests`. No cell with data has it (probability 2^-128).
NO_DIGEST = bytes(DIGEST_BYTES)

_HEADER = struct.Struct("<4sIQQ16sI")
HEADER_BYTES = _HEADER.size
_MAGIC = b"vpm1"


class Kind(enum.IntEnum):
    """The kinds of frames."""

    DATA = 1
    ZERO = 2
    KEPT = 3
    END = 4


class StreamBroken(Exception):
    """The stream ended early: the connection was lost, or the file is truncated."""


class StreamDamaged(Exception):
    """The stream is not valid, or its bytes were changed on the way."""


class Frame(NamedTuple):
    """The header of one frame. See the module."""

    kind: Kind
    offset: int
    length: int
    digest: bytes
    packed: int = 0

    @property
    def end(self) -> int:
        """Offset of the first byte after the frame's range."""
        return self.offset + self.length

    def encode(self) -> bytes:
        """Return the header as bytes."""
        return _HEADER.pack(_MAGIC, self.kind, self.offset, self.length, self.digest, self.packed)

    @classmethod
    def decode(cls, header: bytes | bytearray) -> "Frame":
        """Read a header of :data:`HEADER_BYTES`. :raises StreamDamaged: it is not one."""
        magic, kind, offset, length, value, packed = _HEADER.unpack(header)
        if magic != _MAGIC or kind not in tuple(Kind):
            raise StreamDamaged("it contains something other than a frame")
        return cls(Kind(kind), offset, length, value, packed)


def digest(content: bytes | bytearray | memoryview) -> bytes:
    """Return the digest of a cell."""
    value: bytes = xxhash.xxh3_128_digest(content)
    return value


class Digests:
    """The digest of every cell of a namespace; :data:`NO_DIGEST` for a cell of zeros."""

    def __init__(self, size: int) -> None:
        self._digests = bytearray(-(-size // CELL) * DIGEST_BYTES)

    def __setitem__(self, offset: int, value: bytes) -> None:
        at = offset // CELL * DIGEST_BYTES
        self._digests[at : at + DIGEST_BYTES] = value

    def __getitem__(self, offset: int) -> bytes:
        at = offset // CELL * DIGEST_BYTES
        return bytes(self._digests[at : at + DIGEST_BYTES])

    def total(self) -> bytes:
        """Return the digest of all digests."""
        return digest(self._digests)


class Reader:
    """Reads and checks frames. Nothing after the END frame is read."""

    def __init__(self, fd: int, size: int, *, start: int = 0, wait: Callable[[int], None] = lambda _fd: None) -> None:
        """Store the arguments; nothing is read.

        :param size: bytes of the destination
        :param start: bytes from the start of the destination that the receiver already has
        :param wait: called with `fd` before each read
        """
        self._fd = fd
        self._size = size
        self._start = start
        self._wait = wait
        self._next = 0
        self._payload = bytearray(CELL)
        self.digests = Digests(size)

    def read(self) -> tuple[Frame, memoryview]:
        """Return the next frame and its payload, whose digest is correct. The payload is valid until the next call.

        :raises StreamBroken, StreamDamaged: see there
        :raises OSError: the file cannot be read
        """
        header = bytearray(HEADER_BYTES)
        self._fill(memoryview(header))
        frame = self._parse(header)
        if frame.kind is Kind.END:
            if frame.digest != self.digests.total():
                raise StreamDamaged("the digest of all bytes is wrong")
            return frame, memoryview(b"")
        self._next = frame.end
        if frame.kind is Kind.ZERO:
            return frame, memoryview(b"")
        self.digests[frame.offset] = frame.digest
        if frame.kind is Kind.KEPT:
            return frame, memoryview(b"")
        payload = self._read_payload(frame)
        if digest(payload) != frame.digest:
            raise StreamDamaged(f"bytes {frame.offset} to {frame.end - 1} were changed on the way")
        return frame, payload

    def _read_payload(self, frame: Frame) -> memoryview:
        payload = memoryview(self._payload)[: frame.packed or frame.length]
        self._fill(payload)
        return memoryview(unpack(payload, frame.length)) if frame.packed else payload

    def _parse(self, header: bytearray) -> Frame:
        frame = Frame.decode(header)
        _, offset, length, value, packed = frame
        cell = min(CELL, self._size - self._next)
        valid = {
            Kind.DATA: length == cell > 0 and value != NO_DIGEST and packed < CELL and offset >= self._start,
            Kind.KEPT: length == cell > 0 and value != NO_DIGEST and packed == 0 and frame.end <= self._start,
            Kind.ZERO: 0 < length <= self._size - self._next
            and (length % CELL == 0 or frame.end == self._size)
            and value == NO_DIGEST
            and packed == 0,
            Kind.END: length == 0 and offset == self._size and packed == 0,
        }[frame.kind]
        if offset != self._next or not valid:
            raise StreamDamaged(f"after byte {self._next} follows a {frame.kind.name} frame of {length} from {offset}")
        return frame

    def _fill(self, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            self._wait(self._fd)
            count = os.readv(self._fd, [buffer[done:]])
            if count == 0:
                raise StreamBroken("the stream ended early")
            done += count


def pack(content: bytes | bytearray | memoryview) -> bytes | None:
    """Compress a cell with zstd; None if that does not make it smaller."""
    import zstandard  # noqa: PLC0415  an optional dependency

    packed: bytes = zstandard.ZstdCompressor(level=1).compress(content)
    return packed if len(packed) < len(content) else None


def unpack(content: memoryview, length: int) -> bytes:
    """Decompress a cell of `length` bytes. :raises StreamDamaged: it is not one."""
    try:
        import zstandard  # noqa: PLC0415  an optional dependency
    except ImportError as error:
        raise StreamDamaged("it is compressed, and the Python package zstandard is not installed here") from error
    try:
        # The decompressor allocates what the content itself declares, whatever its limit is.
        if zstandard.frame_content_size(content) != length:
            raise StreamDamaged("a compressed cell has the wrong size")
        unpacked: bytes = zstandard.ZstdDecompressor().decompress(content)
    except zstandard.ZstdError as error:
        raise StreamDamaged(f"a cell cannot be decompressed: {error}") from error
    return unpacked
