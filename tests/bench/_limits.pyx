# cython: language_level=3
"""What cannot be undercut: stores past the cache that do nothing else."""

cdef extern from *:
    """
    #include <stddef.h>
    #include <string.h>
    #if defined(__x86_64__)
    #include <immintrin.h>
    __attribute__((target("avx2"))) static void stream_zeros(char *start, size_t length)
    {
        for (size_t at = 0; at + 128 <= length; at += 128) {
            __m256i *to = (__m256i *)(start + at);
            _mm256_stream_si256(to, _mm256_setzero_si256());
            _mm256_stream_si256(to + 1, _mm256_setzero_si256());
            _mm256_stream_si256(to + 2, _mm256_setzero_si256());
            _mm256_stream_si256(to + 3, _mm256_setzero_si256());
        }
        _mm_sfence();
    }
    #else
    static void stream_zeros(char *start, size_t length) { memset(start, 0, length); }
    #endif
    """
    void stream_zeros(char *start, size_t length) nogil


def stream(unsigned char[::1] buffer not None, size_t offset, size_t length):
    """Zero a part of a buffer, whole pages of it."""
    with nogil:
        stream_zeros(<char *>&buffer[0] + offset, length)
