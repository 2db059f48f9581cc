"""_pmem against what a few lines of Python do, with every way of storing that this machine has."""

import mmap
import platform
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpmem_driver import _pmem

BACKENDS = _pmem.backends()
#: Around every edge that matters: a cache line, the unrolled loop of four, the block of the search, a page.
LENGTHS = sorted({max(0, edge + by) for edge in (0, 16, 64, 256, 4096, 8192) for by in (-1, 0, 1)})


def model_zero(content, offset, length):
    content[offset : offset + length] = bytes(length)


def model_first_nonzero(content, offset, length):
    return next((at for at in range(offset, offset + length) if content[at]), -1)


def ranges(size):
    offsets = st.integers(0, size)
    return offsets.flatmap(lambda offset: st.tuples(st.just(offset), st.integers(0, size - offset)))


def test_there_is_a_durable_backend_here():
    assert _pmem.backend() == BACKENDS[0]
    assert BACKENDS[-1] == "memset"
    if platform.machine() == "x86_64":
        assert "sse2" in BACKENDS
    if platform.machine() in {"x86_64", "aarch64"}:
        assert len(BACKENDS) > 1


@pytest.mark.parametrize("backend", BACKENDS)
@given(where=ranges(20000))
def test_zero_overwrites_the_range_and_no_byte_beside_it(backend, where):
    content = bytearray(b"\xff") * 20000
    expected = bytearray(content)
    model_zero(expected, *where)
    _pmem.zero(content, *where, backend)
    assert content == expected


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", LENGTHS)
def test_zero_at_every_alignment(backend, length):
    with mmap.mmap(-1, 4 * mmap.PAGESIZE) as memory:
        for offset in range(65):
            memory[:] = b"\xff" * len(memory)
            _pmem.zero(memory, offset, length, backend)
            assert memory[:] == b"\xff" * offset + bytes(length) + b"\xff" * (len(memory) - offset - length)


@given(where=ranges(20000), nonzero=st.sets(st.integers(0, 19999), max_size=4), value=st.integers(1, 255))
def test_first_nonzero_agrees_with_the_model(where, nonzero, value):
    content = bytearray(20000)
    for at in nonzero:
        content[at] = value
    assert _pmem.first_nonzero(content, *where) == model_first_nonzero(content, *where)


@pytest.mark.parametrize("length", LENGTHS)
def test_first_nonzero_heeds_its_range_alone(length):
    content = bytearray(b"\xff") * 20000
    for offset in (0, 1, 63, 64, 4095):
        content[offset : offset + length] = bytes(length)
        assert _pmem.first_nonzero(content, offset, length) == -1
        assert _pmem.first_nonzero(content, offset, length + 1) == offset + length
        content[offset : offset + length] = b"\xff" * length


@pytest.mark.parametrize("offset,length", [(-1, 1), (0, -1), (0, 101), (100, 1), (101, 0), (2**62, 2**62)])
def test_what_is_not_inside_the_buffer_is_refused(offset, length):
    content = bytearray(b"\xff") * 100
    with pytest.raises(ValueError, match="not inside a buffer of 100 bytes"):
        _pmem.zero(content, offset, length)
    with pytest.raises(ValueError, match="not inside a buffer of 100 bytes"):
        _pmem.first_nonzero(content, offset, length)
    assert content == b"\xff" * 100


def test_numbers_that_no_buffer_can_have_are_refused():
    with pytest.raises(OverflowError):
        _pmem.zero(bytearray(1), 2**64, 1)


def test_an_unknown_backend_is_refused_by_name():
    content = bytearray(b"\xff")
    with pytest.raises(ValueError, match=r"no backend 'mmx'; there are: .*memset"):
        _pmem.zero(content, 0, 1, "mmx")
    assert content == b"\xff"


def test_read_only_buffers_are_searched_but_not_overwritten():
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ) as memory:
        assert _pmem.first_nonzero(memory, 0, len(memory)) == -1
        with pytest.raises(BufferError):
            _pmem.zero(memory, 0, 1)
    with pytest.raises(BufferError):
        _pmem.zero(b"abc", 0, 1)


def test_buffers_of_items_and_slices_count_in_bytes():
    content = bytearray(b"\xff") * 80
    _pmem.zero(memoryview(content).cast("Q")[1:9], 3, 5)
    assert content == b"\xff" * 11 + bytes(5) + b"\xff" * 64
    with pytest.raises(BufferError):
        _pmem.zero(memoryview(content)[::2], 0, 1)


def test_a_closed_mapping_is_refused():
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory.close()
    with pytest.raises(ValueError, match="closed"):
        _pmem.zero(memory, 0, 1)


@pytest.mark.parametrize("work", [_pmem.zero, _pmem.first_nonzero])
def test_the_gil_is_released_and_the_buffer_held_meanwhile(work):
    content = bytearray(32 << 20)
    size = len(content)
    stop = threading.Event()

    def run():
        while not stop.is_set():
            work(content, 0, size)

    worker = threading.Thread(target=run)
    worker.start()
    deadline = time.monotonic() + 10
    try:
        # It cannot be resized only while a call is under way; then this thread can run only if the GIL is released.
        with pytest.raises(BufferError):
            while time.monotonic() < deadline:
                content.append(0)
                content.pop()
    finally:
        stop.set()
        worker.join()


@pytest.mark.parametrize("backend", BACKENDS)
@given(where=ranges(20000), start=st.integers(0, 64))
def test_copy_overwrites_the_range_and_no_byte_beside_it(backend, where, start):
    offset, length = where
    source = bytes(at * 7 % 251 for at in range(start + length))
    content = bytearray(b"\xff") * 20000
    _pmem.copy(content, offset, source, start, length, backend)
    assert content == b"\xff" * offset + source[start:] + b"\xff" * (20000 - offset - length)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", LENGTHS)
def test_copy_at_every_alignment(backend, length):
    source = bytes(at % 251 for at in range(length + 64))
    with mmap.mmap(-1, 4 * mmap.PAGESIZE) as memory:
        for offset in range(65):
            memory[:] = b"\xff" * len(memory)
            _pmem.copy(memory, offset, source, 64 - offset, length, backend)
            copied = source[64 - offset : 64 - offset + length]
            assert memory[:] == b"\xff" * offset + copied + b"\xff" * (len(memory) - offset - length)


@given(content=st.binary(max_size=300), at=st.integers(0, 20), other=st.integers(0, 20), data=st.data())
def test_equal_compares_the_ranges_and_no_byte_beside_them(content, at, other, data):
    a, b = bytearray(b"a" * at + content + b"a"), bytearray(b"b" * other + content + b"b")
    assert _pmem.equal(a, at, b, other, len(content))
    if content:
        changed = data.draw(st.integers(0, len(content) - 1))
        b[other + changed] ^= 1
        assert not _pmem.equal(a, at, b, other, len(content))


@pytest.mark.parametrize("wrong", [(-1, 0, 1), (0, -1, 1), (0, 0, 11), (5, 0, 6), (0, 5, 6), (0, 0, -1)])
@pytest.mark.parametrize("function", [_pmem.copy, _pmem.equal])
def test_a_range_outside_of_either_buffer_is_refused(function, wrong):
    offset, start, length = wrong
    buffer = bytearray(b"x" * 10)
    with pytest.raises(ValueError, match="not inside a buffer of 10 bytes"):
        function(buffer, offset, b"y" * 10, start, length)
    assert buffer == b"x" * 10


def test_a_copy_to_a_read_only_buffer_is_refused():
    with pytest.raises(BufferError):
        _pmem.copy(b"x" * 10, 0, b"y" * 10, 0, 10)
