"""The process between a worker and a file: what it writes it can read, and each failure names its cause."""

import contextlib
import os
import resource
import threading

import pytest

from tests.unit.transfer.test_archive import HEADER, content_of, read_back, write
from vpmem_driver import exception, stream
from vpmem_driver.stream import CELL, StreamBroken
from vpmem_driver.transfer import archive
from vpmem_driver.transfer.file_process import FileProcess, Read, Write

CONTENT = content_of([1, 0, 2, 3, 0, 0, 1, 0])


def feed(path, source, *, length=None):
    """Have a process write the stream that file `source` has to `path`; returns what it printed."""
    readable, writable = os.pipe()
    process = FileProcess(Write(path=str(path), header=HEADER), stdin=readable)
    os.close(readable)
    sent = source.read_bytes().split(b"\n", 1)[1][:length]

    def send():
        with contextlib.suppress(BrokenPipeError), os.fdopen(writable, "wb") as pipe:
            pipe.write(sent)

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()
    return process.end()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    write(path, CONTENT)
    return path


def test_what_is_written_is_read(tmp_path, source):
    path = tmp_path / "0.vpmem"
    digest = feed(path, source)
    assert path.stat().st_mode & 0o777 == 0o600
    assert archive.read_total(path) == (HEADER, bytes.fromhex(digest))
    assert path.read_bytes() == source.read_bytes()
    for start in (0, 3 * CELL):
        readable, writable = os.pipe()
        process = FileProcess(Read(path=str(path), size=HEADER.size, align=4096, start=start), stdout=writable)
        os.close(writable)
        reader = stream.Reader(readable, HEADER.size, start=start)
        found = []
        while (frame := reader.read())[0].kind is not stream.Kind.END:
            if frame[0].kind is stream.Kind.DATA:
                found.append(archive.Cell(frame[0].offset, frame[0].digest, bytes(frame[1])))
        os.close(readable)
        assert process.end() == ""
        assert read_back(found, len(CONTENT)) == bytes(start) + CONTENT[start:]


def test_a_worker_that_ends_early_is_not_a_fault_of_the_file(tmp_path, source):
    with pytest.raises(StreamBroken):
        feed(tmp_path / "0.vpmem", source, length=CELL)


def test_a_filesystem_that_has_no_room(tmp_path, source):
    """The limit of the size of a file is an error of the same kind that a test can have."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * CELL, before[1]))
    try:
        with pytest.raises(exception.HostToolError, match="File too large"):
            feed(tmp_path / "0.vpmem", source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_is_there_already_is_not_overwritten(tmp_path, source):
    path = tmp_path / "0.vpmem"
    path.write_text("another")
    with pytest.raises(exception.HostToolError, match="File exists"):
        feed(path, source)
    assert path.read_text() == "another"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:-100], "the stream ended early"),
        (lambda content: content[: 2 * CELL] + b"?" + content[2 * CELL + 1 :], "were changed on the way"),
        (lambda content: b"x" + content, "it does not begin as an export of vpmem does"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, source, damage, said):
    path = tmp_path / "0.vpmem"
    if damage is not None:
        path.write_bytes(damage(source.read_bytes()))
    assert said in failure_to_read(path, HEADER.size)


def test_a_smaller_namespace(source):
    assert f"it has {HEADER.size} bytes, which do not fit into {CELL}" in failure_to_read(source, CELL)


def failure_to_read(path, size):
    """Read a file into nothing; returns the error."""
    readable, writable = os.pipe()
    process = FileProcess(Read(path=str(path), size=size, align=4096, start=0), stdout=writable)
    os.close(writable)
    while os.read(readable, 1 << 20):
        pass
    os.close(readable)
    with pytest.raises(exception.HostToolError) as caught:
        process.end()
    return str(caught.value)


def test_a_reader_whose_worker_has_ended_says_nothing(source):
    readable, writable = os.pipe()
    os.close(readable)
    process = FileProcess(Read(path=str(source), size=HEADER.size, align=4096, start=0), stdout=writable)
    os.close(writable)
    assert process.end() == ""
