"""Namespaces in files: what is written is read back, however it was cut, resumed, moved or damaged."""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpmem_driver import layout, model, stream
from vpmem_driver.sizes import KIB, MIB
from vpmem_driver.stream import CELL, StreamBroken, StreamDamaged
from vpmem_driver.transfer import archive
from vpmem_driver.transfer.archive import Cell, Frames, Header, RawImage

HEADER = Header(name="ns0", label="SMALL", size=8 * CELL, align=4096)

cells_of = st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=6)


def content_of(kinds, tail=0):
    """A cell of zeros, or of one of three patterns, for each kind; the last one is shorter by `tail` bytes."""
    content = b"".join(bytes(CELL) if kind == 0 else bytes([kind]) * CELL for kind in kinds)
    return content[: len(content) - tail]


def cells(content):
    for offset in range(0, len(content), CELL):
        piece = content[offset : offset + CELL]
        if any(piece):
            yield Cell(offset, stream.digest(piece), memoryview(piece))


def write(path, content, header=HEADER):
    """A complete file; returns the digest."""
    with path.open("wb", buffering=0) as file:
        archive.write_header(file.fileno(), header)
        frames = Frames(file.fileno(), len(content))
        for cell in cells(content):
            frames.cell(cell)
        return frames.finish()


def read_back(found, size):
    content = bytearray(size)
    for cell in found:
        content[cell.offset : cell.offset + len(cell.content)] = cell.content
    return bytes(content)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("archive")


@settings(deadline=None)
@given(kinds=cells_of, tail=st.sampled_from([0, 1, 4096, CELL - 1]))
def test_a_stream_and_an_image_are_read_back(directory, kinds, tail):
    content = content_of(kinds, tail)
    path, image = directory / "ns0.vpmem", directory / "raw"
    total = write(path, content)
    with path.open("rb", buffering=0) as file:
        assert archive.read_header(file.fileno()) == HEADER
        assert read_back(archive.cells_of_stream(file.fileno(), len(content)), len(content)) == content
    with path.open("rb", buffering=0) as file, image.open("w+b", buffering=0) as raw:
        archive.read_header(file.fileno())
        sink = RawImage(raw.fileno(), len(content))
        assert archive.store(file.fileno(), len(content), sink) == total
        assert image.read_bytes() == content
        found = list(archive.cells_of_image(raw.fileno(), len(content)))
        assert read_back(found, len(content)) == content
        assert len(found) == sum(1 for _ in cells(content))


@settings(deadline=None)
@given(kinds=cells_of, cut=st.integers(min_value=0), changed=st.booleans())
def test_a_file_that_was_cut_anywhere_is_completed(directory, kinds, cut, changed):
    content = content_of(kinds)
    path, complete = directory / "cut.vpmem", directory / "complete.vpmem"
    write(path, content)
    expected = path.read_bytes()
    first = expected.index(b"\n") + 1
    os.truncate(path, first + cut % (len(expected) - first + 1))
    now = bytes([9]) * CELL + content[CELL:] if changed else content
    total = write(complete, now)
    with path.open("a+b", buffering=0) as file, open(complete, "rb", buffering=0) as source:
        fd = file.fileno()
        os.lseek(fd, 0, os.SEEK_SET)
        archive.read_header(fd)
        begun = archive.scan(fd, len(content))
        os.ftruncate(fd, begun.position)
        sink = Frames(fd, len(content), done=begun.done, digests=begun.digests)
        archive.read_header(source.fileno())
        readable, writable = os.pipe()
        try:  # what a worker sends that is told where to start: digests of what is there
            sent = Frames(writable, len(content), kept=begun.done)
            import threading

            def send():
                for cell in archive.cells_of_stream(source.fileno(), len(content)):
                    sent.cell(cell)
                sent.finish()

            thread = threading.Thread(target=send)
            thread.start()
            if changed and begun.done:
                with pytest.raises(archive.Changed):
                    archive.store(readable, len(content), sink, start=begun.done)
            else:
                assert archive.store(readable, len(content), sink, start=begun.done) == total
                assert read_back(_cells(path, len(content)), len(content)) == now
            thread.join()
        finally:
            os.close(readable)
            os.close(writable)


def _cells(path, size):
    with path.open("rb", buffering=0) as file:
        archive.read_header(file.fileno())
        yield from archive.cells_of_stream(file.fileno(), size)


def test_what_is_moved_is_where_the_layout_says():
    rng = random.Random(1)
    content = content_of([rng.randrange(1, 250) for _ in range(9)])  # 9 MiB: a device of 8 MiB, and a rest
    parts = layout.parts(9 * CELL, 4096, 12 * CELL, 4096)
    moved = read_back(archive.move(cells(content), parts, 12 * CELL), 12 * CELL)
    assert moved[: 6 * CELL] == content[: 6 * CELL]
    assert moved[10 * CELL :] == content[6 * CELL : 8 * CELL], "the label is at the end of the device"
    assert not any(moved[6 * CELL : 10 * CELL])


@settings(deadline=None)
@given(
    kinds=st.lists(st.sampled_from([0, 1, 2, 3]), min_size=2, max_size=9),
    tail=st.sampled_from([0, 4096, CELL - 1]),
    more=st.sampled_from([0, 1, 2 * MIB, 5 * MIB - 4096]),
    aligns=st.tuples(st.sampled_from([4096, 2 * MIB]), st.sampled_from([4096, 2 * MIB])),
    label_size=st.sampled_from([0, 128 * KIB, 1000 * KIB, MIB, 2 * MIB - 4096, 2 * MIB]),
)
def test_a_label_area_of_any_size_is_moved(kinds, tail, more, aligns, label_size):
    content, size = content_of(kinds, tail), len(kinds) * CELL - tail + more
    hardware = model.Hardware(label_size=label_size)
    parts = layout.parts(len(content), aligns[0], size, aligns[1], hardware)
    if parts is None:
        return
    wanted = bytearray(size)
    for part in parts:
        wanted[part.destination : part.destination + part.length] = content[part.source : part.source + part.length]
    moved = []
    for cell in archive.move(cells(content), parts, size):
        assert cell.digest == stream.digest(cell.content)
        assert len(cell.content) == min(CELL, size - cell.offset)
        moved.append(cell._replace(content=bytes(cell.content)))
    assert [cell.offset for cell in moved] == [at for at in range(0, size, CELL) if any(wanted[at : at + CELL])]
    assert read_back(moved, size) == wanted


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[" * 100_000,
        b"QFI\xfb" + bytes(600),
        b'{"vpmem":2,"name":"x","label":null,"size":4096,"align":4096}\n',
        b'{"vpmem":1,"name":"x","label":null,"size":0,"align":4096}\n',
        b'{"vpmem":1,"name":"x","label":null,"size":9007199254740993,"align":4096}\n',
        b'{"vpmem":1,"name":"x","label":null,"size":4096}\n',
    ],
)
def test_what_is_no_header(tmp_path, line):
    path = tmp_path / "file"
    path.write_bytes(line)
    with path.open("rb", buffering=0) as file, pytest.raises(StreamDamaged, match="does not begin as an export"):
        archive.read_header(file.fileno())


@pytest.mark.parametrize("cut", [1, 60, CELL])
def test_a_file_that_is_not_complete_has_no_total(tmp_path, cut):
    path = tmp_path / "file"
    total = write(path, content_of([1] * 8))
    assert archive.read_total(path) == (HEADER, total)
    os.truncate(path, path.stat().st_size - cut)
    with pytest.raises(StreamDamaged):
        archive.read_total(path)


def test_an_image_that_becomes_shorter(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(b"x" * CELL)
    with path.open("rb") as file, pytest.raises(StreamBroken):
        list(archive.cells_of_image(file.fileno(), CELL + 1))
