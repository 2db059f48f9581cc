"""_pmem at the very edges of memory: beside each range there is nothing that may be touched."""

import ctypes
import mmap
import os
import pathlib

import pytest

from vpmem_driver import _fastalloc, _pmem

PAGE = mmap.PAGESIZE
PROT_NONE = 0
BACKENDS = _pmem.backends()
LENGTHS = sorted({edge + by for edge in (1, 16, 64, 256, 1024, PAGE) for by in (-1, 0, 1)})


@pytest.fixture(scope="module")
def guarded():
    """A mapping of four pages, of which the first and the last must not be touched."""
    memory = mmap.mmap(-1, 4 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for page in (0, 3):
        assert libc.mprotect(ctypes.c_void_p(address + page * PAGE), PAGE, PROT_NONE) == 0, ctypes.get_errno()
    return memory


def test_these_are_the_modules_with_the_sanitizers():
    for module in (_fastalloc, _pmem):
        assert pathlib.Path(module.__file__).is_relative_to(os.environ["VPMEM_SANITIZED"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", LENGTHS)
def test_zero_from_the_first_byte_and_up_to_the_last(guarded, backend, length):
    for offset in (PAGE, 3 * PAGE - length):
        guarded[PAGE : 3 * PAGE] = b"\xff" * (2 * PAGE)
        _pmem.zero(guarded, offset, length, backend)
        assert guarded[offset : offset + length] == bytes(length)


@pytest.mark.parametrize("length", LENGTHS)
def test_first_nonzero_from_the_first_byte_and_up_to_the_last(guarded, length):
    guarded[PAGE : 3 * PAGE] = bytes(2 * PAGE)
    for offset in (PAGE, 3 * PAGE - length):
        assert _pmem.first_nonzero(guarded, offset, length) == -1


# Unlike bytearray, ctypes allocates not a byte more than it is asked for.


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", LENGTHS)
def test_zero_of_a_whole_allocation(backend, length):
    memory = (ctypes.c_char * (length + 100))(*b"\xff" * (length + 100))
    _pmem.zero(memory, 0, len(memory), backend)
    assert bytes(memory) == bytes(len(memory))


@pytest.mark.parametrize("length", LENGTHS)
def test_first_nonzero_in_a_whole_allocation(length):
    memory = (ctypes.c_char * (length + 100))()
    assert _pmem.first_nonzero(memory, 0, len(memory)) == -1
