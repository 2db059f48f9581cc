"""A file to import: its header, its stream, and where its content goes in a namespace of another size."""

import contextlib
import os
import random
from collections.abc import Iterator

from tests.fuzz import mutation
from tests.fuzz.finding import literal
from tests.fuzz.target import Target, words
from tests.fuzz.targets import stream as streams
from vpmem_driver import layout, model, stream
from vpmem_driver.sizes import KIB, MIB
from vpmem_driver.stream import CELL
from vpmem_driver.transfer import archive

#: The namespace that it is imported into.
SIZE, ALIGN = 8 * MIB, 2 * MIB


@contextlib.contextmanager
def memory(content: bytes = b"") -> Iterator[int]:
    """A file in memory, to be read from its start."""
    fd = os.memfd_create("archive")
    try:
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def fill(data: bytes) -> None:
    """Read `data` as such a file, and write the stream that fills the namespace."""
    with memory(data) as file, memory() as filled:
        header = archive.read_header(file)
        parts = layout.parts(header.size, header.align, SIZE, ALIGN, header.hardware)
        if parts is None:
            return
        wanted = bytearray(SIZE)

        def cells() -> Iterator[archive.Cell]:
            for cell in archive.cells_of_stream(file, header.size):
                for source, destination, length in parts:
                    start, end = max(cell.offset, source), min(cell.offset + len(cell.content), source + length)
                    if start < end:
                        at = destination - source
                        wanted[at + start : at + end] = cell.content[start - cell.offset : end - cell.offset]
                yield cell

        frames = archive.Frames(filled, SIZE)
        for cell in archive.move(cells(), parts, SIZE):
            frames.cell(cell)
        frames.finish()
        os.lseek(filled, 0, os.SEEK_SET)
        found = bytearray(SIZE)
        for cell in archive.cells_of_stream(filled, SIZE):
            found[cell.offset : cell.offset + len(cell.content)] = cell.content
        assert found == wanted, "moved to another place"


def written(cells: int, *, align: int, label_size: int) -> bytes:
    """A file whose cells are alike, and compressed."""
    size = cells * CELL
    hardware = model.Hardware(label_size=label_size)
    with memory() as fd:
        archive.write_header(fd, archive.Header(name="ns0", label="A", size=size, align=align, hardware=hardware))
        header = os.pread(fd, 1 << 12, 0)
    digests, frames = stream.Digests(size), b""
    for offset in range(0, size, CELL):
        cell = bytes([65 + offset // CELL]) * CELL
        packed = stream.pack(cell) or b""
        digests[offset] = stream.digest(cell)
        frames += stream.Frame(stream.Kind.DATA, offset, CELL, digests[offset], len(packed)).encode() + packed
    return header + frames + stream.Frame(stream.Kind.END, size, 0, digests.total()).encode()


class Fuzzed(Target):
    words = words("vpmem name label size align hardware device_model label_size nvdimm virtio-pmem null")
    typed = (stream.StreamBroken, stream.StreamDamaged)

    def seeds(self) -> Iterator[bytes]:
        yield written(8, align=ALIGN, label_size=2 * MIB)
        yield written(4, align=ALIGN, label_size=128 * KIB)
        yield written(5, align=4096, label_size=0)

    def run(self, data: bytes) -> None:
        fill(data)

    def shown(self, data: bytes) -> str:
        return f"fill({literal(data)})"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        """Change the header, or a frame."""
        line, end, rest = data.partition(b"\n")
        if chance.random() < 0.5:
            return (mutation.json_document(line, chance, self.words, 1 << 12) or line) + end + rest
        return line + end + (streams.changed(rest, chance, CELL, 8 * CELL) or rest)
