"""The stream of a copy: what a peer may send that is not one."""

import os

import pytest
import zstandard

from vpmem_driver import stream
from vpmem_driver.stream import CELL, NO_DIGEST, Frame, Kind


def packed_cell(content: bytes) -> bytes:
    """A stream that begins with one compressed cell."""
    frame = Frame(Kind.DATA, 0, CELL, stream.digest(bytes(CELL)), len(content))
    return frame.encode() + content


def receive(data: bytes, size: int = CELL) -> bytes:
    """Read one frame of `data`, and return its payload."""
    fd = os.memfd_create("stream")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        return bytes(stream.Reader(fd, size).read()[1])
    finally:
        os.close(fd)


def zstd_frame(declared: int) -> bytes:
    """An empty zstd frame whose header declares `declared` bytes of content (RFC 8878, 3.1.1)."""
    single_segment_of_8_bytes = 0b1110_0000
    last_raw_block_of_0_bytes = b"\x01\x00\x00"
    return (
        b"\x28\xb5\x2f\xfd"
        + bytes([single_segment_of_8_bytes])
        + declared.to_bytes(8, "little")
        + (last_raw_block_of_0_bytes)
    )


class TestCompressedCell:
    def test_is_unpacked(self) -> None:
        content = b"vpmem" * (CELL // 5) + b"\0" * (CELL % 5)
        packed = stream.pack(content)
        assert packed
        frame = Frame(Kind.DATA, 0, CELL, stream.digest(content), len(packed))
        assert receive(frame.encode() + packed) == content

    @pytest.mark.parametrize("declared", [1 << 45, CELL + 1, CELL - 1, 0])
    def test_that_declares_another_size_is_refused_before_memory_is_allocated(self, declared: int) -> None:
        with pytest.raises(stream.StreamDamaged, match="a compressed cell has the wrong size"):
            receive(packed_cell(zstd_frame(declared)))

    def test_that_declares_no_size_is_refused(self) -> None:
        content = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(CELL))
        with pytest.raises(stream.StreamDamaged, match="a compressed cell has the wrong size"):
            receive(packed_cell(content))

    def test_that_is_shorter_than_it_declares_is_refused(self) -> None:
        with pytest.raises(stream.StreamDamaged, match="a cell cannot be decompressed"):
            receive(packed_cell(zstd_frame(CELL)))

    def test_that_is_not_zstd_is_refused(self) -> None:
        with pytest.raises(stream.StreamDamaged, match="a cell cannot be decompressed"):
            receive(packed_cell(b"not zstd"))


def test_another_header_is_refused() -> None:
    with pytest.raises(stream.StreamDamaged, match="something other than a frame"):
        receive(Frame(Kind.ZERO, 0, CELL, NO_DIGEST).encode().replace(b"vpm1", b"vpm2"))


def test_a_stream_that_ends_early_is_broken() -> None:
    with pytest.raises(stream.StreamBroken):
        receive(Frame(Kind.ZERO, 0, CELL, NO_DIGEST).encode()[:-1])
