"""Bitmaps of several levels: the next bit that is set is found in as many steps as there are levels."""

cdef enum:
    LEVELS = 6  # 64 ** 6 > INT_MAX

cdef extern from *:
    int lowest_bit "__builtin_ctzll"(unsigned long long word) noexcept nogil

cdef struct Bitmap:
    int levels
    uint64_t *words[LEVELS]  # a bit of words[n + 1] tells whether a word of words[n] has any


cdef int find_bit(const Bitmap *bitmap, int start) noexcept nogil:
    """The first bit from `start` on that is set, INT_MAX if there is none."""
    cdef int level, depth
    cdef uint64_t word

    for level in range(bitmap.levels):
        word = bitmap.words[level][start >> 6] >> (start & 63)
        if word:
            start += lowest_bit(word)
            for depth in range(level - 1, -1, -1):
                start = (start << 6) + lowest_bit(bitmap.words[depth][start])
            return start
        start = (start >> 6) + 1
    return INT_MAX


cdef void set_bit(Bitmap *bitmap, int bit) noexcept nogil:
    cdef int level
    cdef uint64_t before

    for level in range(bitmap.levels):
        before = bitmap.words[level][bit >> 6]
        bitmap.words[level][bit >> 6] = before | (<uint64_t>1 << (bit & 63))
        if before:
            return
        bit >>= 6


cdef void clear_bit(Bitmap *bitmap, int bit) noexcept nogil:
    cdef int level

    for level in range(bitmap.levels):
        bitmap.words[level][bit >> 6] &= ~(<uint64_t>1 << (bit & 63))
        if bitmap.words[level][bit >> 6]:
            return
        bit >>= 6
