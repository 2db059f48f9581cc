"""The stream of a copy, as the other side or a file may send it."""

import os
import random
from collections.abc import Iterator
from unittest import mock

from tests.fuzz.finding import literal
from tests.fuzz.target import Target
from vpmem_driver import stream
from vpmem_driver.stream import HEADER_BYTES, NO_DIGEST, Frame, Kind

#: Cells of the real size would be most of the input.
CELL = 64
SIZE = 5 * CELL - 10


def receive(data: bytes, start: int = CELL) -> None:
    """Read `data` as a receiver does that has `start` bytes already."""
    fd = os.memfd_create("stream")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        with mock.patch.object(stream, "CELL", CELL):
            reader, done, taken = stream.Reader(fd, SIZE, start=start), 0, 0
            while True:
                frame, payload = reader.read()
                taken += HEADER_BYTES + (frame.packed or len(payload))
                if frame.kind is Kind.END:
                    break
                assert frame.offset == done, "a gap"
                assert frame.kind is not Kind.DATA or len(payload) == frame.length, "a payload of another size"
                done = frame.end
        assert done == SIZE, "an end before the end"
        assert os.lseek(fd, 0, os.SEEK_CUR) == taken, "read too far"
    finally:
        os.close(fd)


def sent(cells: list[bytes | None], start: int, *, pack: bool = False) -> bytes:
    """A stream of some cells; None is a cell of zeros."""
    with mock.patch.object(stream, "CELL", CELL):
        digests, written = stream.Digests(SIZE), b""
        for number, cell in enumerate(cells):
            offset = number * CELL
            length = min(CELL, SIZE - offset)
            digests[offset] = NO_DIGEST if cell is None else stream.digest(cell)
            if cell is None:
                written += Frame(Kind.ZERO, offset, length, NO_DIGEST).encode()
            elif offset + length <= start:
                written += Frame(Kind.KEPT, offset, length, digests[offset]).encode()
            else:
                packed = stream.pack(cell) if pack else None
                frame = Frame(Kind.DATA, offset, length, digests[offset], len(packed or b""))
                written += frame.encode() + (packed or cell)
        return written + Frame(Kind.END, SIZE, 0, digests.total()).encode()


def changed(data: bytes, chance: random.Random, cell: int, size: int) -> bytes | None:
    """Change a field of a header, or take, repeat or exchange a piece; None where there is no header."""
    starts = [at for at in range(len(data) - HEADER_BYTES + 1) if data.startswith(b"vpm1", at)]
    if not starts:
        return None
    at = chance.choice(starts)
    match chance.randrange(4):
        case 0:
            field, width = chance.choice([(4, 4), (8, 8), (16, 8), (24, 16), (40, 4)])
            number = chance.choice([0, 1, 2, 3, 4, 5, cell, cell - 1, size, (1 << 32) - 1, (1 << 63), (1 << 64) - 1])
            value = (number % (1 << 8 * width)).to_bytes(width, "little")
            return data[: at + field] + value + data[at + field + width :]
        case 1:
            return data[:at] + data[at + HEADER_BYTES :]
        case 2:
            return data[:at] + data[at : at + HEADER_BYTES + CELL] + data[at:]
        case _:
            other = chance.choice(starts)
            return data[:at] + data[other : other + HEADER_BYTES] + data[at + HEADER_BYTES :]


class Fuzzed(Target):
    typed = (stream.StreamBroken, stream.StreamDamaged)

    def seeds(self) -> Iterator[bytes]:
        full = [bytes([65 + number]) * min(CELL, SIZE - number * CELL) for number in range(5)]
        yield sent(full, CELL)
        yield sent([full[0], None, full[2], None, full[4]], CELL, pack=True)
        yield sent([None] * 5, CELL)

    def run(self, data: bytes) -> None:
        receive(data)

    def shown(self, data: bytes) -> str:
        return f"receive({literal(data)})"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        return changed(data, chance, CELL, SIZE)
