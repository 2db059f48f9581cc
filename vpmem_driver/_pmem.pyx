"""Zeroing, copying and checking of mapped memory, durably and with the GIL released.

Values in, values out: what to map, and what a failure means, is the caller's business. A store to memory whose medium
is bad, or past the end of a file, kills the process with SIGBUS: that is why wiping has a process of its own.
"""

from libc.string cimport memcmp

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

cdef extern from "_pmem_stream.h" nogil:
    ctypedef void (*stream_zero_function)(char *start, size_t length) noexcept
    ctypedef void (*stream_copy_function)(char *to, const char *start, size_t length) noexcept

    cdef struct stream_backend:
        const char *name
        stream_zero_function zero
        stream_copy_function copy

    stream_backend *stream_backends
    size_t stream_backend_count
    void stream_detect() noexcept
    size_t stream_search(const char *start, size_t length) noexcept


def backend() -> str:
    """The way of zeroing that :func:`zero` takes by itself: the first of :func:`backends`."""
    return backends()[0]


def backends() -> tuple[str, ...]:
    """The ways of zeroing that this machine has, best first.

    ``libpmem`` (when it is installed), ``avx2``, ``sse2``; on arm64 ``dc cvap`` and ``dc cvac``; ``memset``
    is always the last, and the only one after which zeros are not durable, however the memory is mapped.
    """
    stream_detect()
    return tuple([stream_backends[index].name.decode() for index in range(stream_backend_count)])


def zero(buffer, Py_ssize_t offset, Py_ssize_t length, str backend=None) -> None:
    """Overwrite `length` bytes of a writable buffer, from `offset` on, with zeros.

    On return they have left the CPU's caches: on device-dax and on a file mapped with MAP_SYNC they are durable; any
    other file still needs fdatasync(2). The buffer cannot be closed or resized meanwhile.

    :param backend: one of :func:`backends`
    :raises ValueError: the range is not inside the buffer, or there is no such backend
    :raises BufferError: the buffer is read-only
    """
    cdef stream_zero_function run = find_backend(backend).zero
    cdef Py_buffer view

    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    try:
        check_range(view.len, offset, length)
        with nogil:
            run(<char *>view.buf + offset, <size_t>length)
    finally:
        PyBuffer_Release(&view)


def copy(buffer, Py_ssize_t offset, source, Py_ssize_t start, Py_ssize_t length, str backend=None) -> None:
    """Copy `length` bytes of `source`, from `start` on, to `offset` of a writable buffer; the two do not overlap.

    On return the copy is as durable as the zeros of :func:`zero`, with the same parameters and errors.
    """
    cdef stream_copy_function run = find_backend(backend).copy
    cdef Py_buffer view, source_view

    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    try:
        check_range(view.len, offset, length)
        PyObject_GetBuffer(source, &source_view, PyBUF_SIMPLE)
        try:
            check_range(source_view.len, start, length)
            with nogil:
                run(<char *>view.buf + offset, <const char *>source_view.buf + start, <size_t>length)
        finally:
            PyBuffer_Release(&source_view)
    finally:
        PyBuffer_Release(&view)


def equal(buffer, Py_ssize_t offset, source, Py_ssize_t start, Py_ssize_t length) -> bool:
    """Whether `length` bytes of two buffers, from `offset` and from `start` on, are the same.

    :raises ValueError: a range is not inside its buffer
    """
    cdef Py_buffer view, source_view
    cdef int difference

    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        check_range(view.len, offset, length)
        PyObject_GetBuffer(source, &source_view, PyBUF_SIMPLE)
        try:
            check_range(source_view.len, start, length)
            with nogil:
                difference = memcmp(<char *>view.buf + offset, <char *>source_view.buf + start, <size_t>length)
        finally:
            PyBuffer_Release(&source_view)
    finally:
        PyBuffer_Release(&view)
    return difference == 0


def first_nonzero(buffer, Py_ssize_t offset, Py_ssize_t length) -> int:
    """The offset in the buffer of the first byte of a range that is not zero, -1 when all are zero.

    :raises ValueError: the range is not inside the buffer
    """
    cdef Py_buffer view
    cdef size_t found

    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        check_range(view.len, offset, length)
        with nogil:
            found = stream_search(<const char *>view.buf + offset, <size_t>length)
    finally:
        PyBuffer_Release(&view)
    return -1 if found == <size_t>length else offset + <Py_ssize_t>found


cdef int check_range(Py_ssize_t size, Py_ssize_t offset, Py_ssize_t length) except -1:
    if offset < 0 or length < 0 or offset > size or length > size - offset:
        raise ValueError(f"{length} bytes from {offset} on are not inside a buffer of {size} bytes")
    return 0


cdef stream_backend *find_backend(str name) except NULL:
    cdef size_t index

    stream_detect()
    for index in range(stream_backend_count):
        if name is None or stream_backends[index].name.decode() == name:
            return &stream_backends[index]
    raise ValueError(f"no backend '{name}'; there are: {', '.join(backends())}")
