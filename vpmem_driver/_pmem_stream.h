/*
 * Zeroing and copying with streaming stores, and searching for a byte that is not zero; for _pmem.pyx only. Plain C, no
 * Python.
 *
 * Every way of storing ends with the fence or barrier after which, on memory that is mapped without a page cache
 * (device-dax, or a file mapped with MAP_SYNC), the bytes have left the CPU's caches. Only "memset" does not.
 *
 * Sources: Intel 64 and IA-32 Architectures SDM vol. 1, 10.4.6.2 "Caching of Temporal vs. Non-Temporal Data" (streaming
 * stores, SFENCE); Arm ARM DDI 0487, D7.5 "Cache support" (DC CVAP, DSB); pmem_memset(3) and pmem_memcpy(3) of PMDK 1.12 to 2.1.
 */
#ifndef VPMEM_PMEM_STREAM_H
#define VPMEM_PMEM_STREAM_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

typedef void (*stream_zero_function)(char *start, size_t length);
typedef void (*stream_copy_function)(char *to, const char *from, size_t length);

struct stream_backend {
    const char *name;
    stream_zero_function zero;
    stream_copy_function copy;
};

/* ---- libpmem, when it is installed ---- */

/* libpmem.h, unchanged since PMDK 1.5. Without the flag, small lengths go through the cache and are flushed from it. */
#define STREAM_PMEM_F_MEM_NONTEMPORAL (1U << 1)

typedef void *(*stream_pmem_memset_function)(void *start, int c, size_t length, unsigned flags);
typedef void *(*stream_pmem_memcpy_function)(void *to, const void *from, size_t length, unsigned flags);

static stream_pmem_memset_function stream_pmem_memset;
static stream_pmem_memcpy_function stream_pmem_memcpy;

static void stream_zero_libpmem(char *start, size_t length)
{
    stream_pmem_memset(start, 0, length, STREAM_PMEM_F_MEM_NONTEMPORAL);
}

static void stream_copy_libpmem(char *to, const char *from, size_t length)
{
    stream_pmem_memcpy(to, from, length, STREAM_PMEM_F_MEM_NONTEMPORAL);
}

static int stream_load_libpmem(void)
{
    void *library = dlopen("libpmem.so.1", RTLD_NOW | RTLD_LOCAL);

    if (library == NULL)
        return 0;
    /* Both are newer (PMDK 1.5) than the library's name. ISO C has no cast from object to function pointer. */
    *(void **)&stream_pmem_memset = dlsym(library, "pmem_memset");
    *(void **)&stream_pmem_memcpy = dlsym(library, "pmem_memcpy");
    return stream_pmem_memset != NULL && stream_pmem_memcpy != NULL;
}

/* ---- everywhere ---- */

static void stream_zero_memset(char *start, size_t length)
{
    memset(start, 0, length);
}

static void stream_copy_memcpy(char *to, const char *from, size_t length)
{
    memcpy(to, from, length);
}

/* The compiler's own vector type: SSE2 and NEON registers, plain ones elsewhere. */
typedef uint64_t stream_lanes __attribute__((vector_size(16), aligned(1), may_alias));
enum { STREAM_BLOCK = 4096 };

/*
 * The offset of the first byte that is not zero, or `length`. Four accumulators keep the loads apart, which is enough
 * to be as fast as memory can be read: AVX2 and AVX-512 were measured and gain nothing.
 */
static size_t stream_search(const char *start, size_t length)
{
    size_t at = 0;

    for (; length - at >= STREAM_BLOCK; at += STREAM_BLOCK) {
        stream_lanes a = {0, 0}, b = {0, 0}, c = {0, 0}, d = {0, 0};

        for (size_t i = at; i < at + STREAM_BLOCK; i += 4 * sizeof(stream_lanes)) {
            const stream_lanes *next = (const stream_lanes *)(start + i);
            a |= next[0];
            b |= next[1];
            c |= next[2];
            d |= next[3];
        }
        a |= b | c | d;
        if ((a[0] | a[1]) != 0)
            break;
    }
    while (at < length && start[at] == 0)
        at++;
    return at;
}

/* ---- x86-64 ---- */

#if defined(__x86_64__)

enum { STREAM_LINE = 64 };

/* Fewer than a cache line, so inside one or two lines. CLFLUSH is in every x86-64; two of them cost nothing here. */
static void stream_zero_edge(char *start, size_t length)
{
    if (length == 0)
        return;
    memset(start, 0, length);
    _mm_clflush(start);
    _mm_clflush(start + length - 1);
}

#define STREAM_DEFINE_ZERO(name, attributes, store_line)                                                             \
    attributes static void name(char *start, size_t length)                                                          \
    {                                                                                                                \
        size_t head = -(uintptr_t)start % STREAM_LINE;                                                               \
        char *end = start + length;                                                                                  \
                                                                                                                     \
        if (head > length)                                                                                           \
            head = length;                                                                                           \
        stream_zero_edge(start, head);                                                                               \
        start += head;                                                                                               \
        for (; end - start >= 4 * STREAM_LINE; start += 4 * STREAM_LINE) {                                           \
            store_line(start);                                                                                       \
            store_line(start + STREAM_LINE);                                                                         \
            store_line(start + 2 * STREAM_LINE);                                                                     \
            store_line(start + 3 * STREAM_LINE);                                                                     \
        }                                                                                                            \
        for (; end - start >= STREAM_LINE; start += STREAM_LINE)                                                     \
            store_line(start);                                                                                       \
        stream_zero_edge(start, (size_t)(end - start));                                                              \
        _mm_sfence();                                                                                                \
    }

static void stream_copy_edge(char *to, const char *from, size_t length)
{
    if (length == 0)
        return;
    memcpy(to, from, length);
    _mm_clflush(to);
    _mm_clflush(to + length - 1);
}

/* The source may have any alignment. */
#define STREAM_DEFINE_COPY(name, attributes, copy_line)                                                              \
    attributes static void name(char *to, const char *from, size_t length)                                           \
    {                                                                                                                \
        size_t head = -(uintptr_t)to % STREAM_LINE;                                                                  \
        char *end = to + length;                                                                                     \
                                                                                                                     \
        if (head > length)                                                                                           \
            head = length;                                                                                           \
        stream_copy_edge(to, from, head);                                                                            \
        to += head;                                                                                                  \
        from += head;                                                                                                \
        for (; end - to >= STREAM_LINE; to += STREAM_LINE, from += STREAM_LINE)                                      \
            copy_line(to, from);                                                                                     \
        stream_copy_edge(to, from, (size_t)(end - to));                                                              \
        _mm_sfence();                                                                                                \
    }

#define STREAM_MOVE_SSE2(to, from, at)                                                                               \
    _mm_stream_si128((__m128i *)(to) + (at), _mm_loadu_si128((const __m128i *)(from) + (at)))
#define STREAM_COPY_LINE_SSE2(to, from)                                                                              \
    (STREAM_MOVE_SSE2(to, from, 0), STREAM_MOVE_SSE2(to, from, 1), STREAM_MOVE_SSE2(to, from, 2),                    \
     STREAM_MOVE_SSE2(to, from, 3))
#define STREAM_MOVE_AVX2(to, from, at)                                                                               \
    _mm256_stream_si256((__m256i *)(to) + (at), _mm256_loadu_si256((const __m256i *)(from) + (at)))
#define STREAM_COPY_LINE_AVX2(to, from) (STREAM_MOVE_AVX2(to, from, 0), STREAM_MOVE_AVX2(to, from, 1))

#define STREAM_LINE_SSE2(to)                                                                                         \
    (_mm_stream_si128((__m128i *)(to), _mm_setzero_si128()),                                                         \
     _mm_stream_si128((__m128i *)(to) + 1, _mm_setzero_si128()),                                                     \
     _mm_stream_si128((__m128i *)(to) + 2, _mm_setzero_si128()),                                                     \
     _mm_stream_si128((__m128i *)(to) + 3, _mm_setzero_si128()))
#define STREAM_LINE_AVX2(to)                                                                                         \
    (_mm256_stream_si256((__m256i *)(to), _mm256_setzero_si256()),                                                   \
     _mm256_stream_si256((__m256i *)(to) + 1, _mm256_setzero_si256()))

/* AVX-512 was measured and gains nothing over AVX2, which takes 10 to 30 % less time than SSE2 (AMD EPYC). */
STREAM_DEFINE_ZERO(stream_zero_sse2, , STREAM_LINE_SSE2)
STREAM_DEFINE_ZERO(stream_zero_avx2, __attribute__((target("avx2"))), STREAM_LINE_AVX2)
STREAM_DEFINE_COPY(stream_copy_sse2, , STREAM_COPY_LINE_SSE2)
STREAM_DEFINE_COPY(stream_copy_avx2, __attribute__((target("avx2"))), STREAM_COPY_LINE_AVX2)

#endif

/* ---- arm64 ---- */

#if defined(__aarch64__)

enum { STREAM_CHUNK = 64 * 1024 }; /* fits any L1/L2, so that a line is cleaned while it is still there */

static size_t stream_cache_line(void)
{
    uint64_t ctr;

    __asm__("mrs %0, ctr_el0" : "=r"(ctr));
    return (size_t)4 << ((ctr >> 16) & 0xf); /* CTR_EL0.DminLine: log2 of the words in the smallest line */
}

static void stream_fill_zero(char *to, const char *from, size_t length)
{
    (void)from;
    memset(to, 0, length);
}

/* `fill` stores to a chunk, which is then cleaned from the cache line by line. `from` is NULL if it is not used. */
#define STREAM_DEFINE(name, clean)                                                                                   \
    static void name(void (*fill)(char *, const char *, size_t), char *to, const char *from, size_t length)          \
    {                                                                                                                \
        size_t line = stream_cache_line();                                                                           \
                                                                                                                     \
        while (length > 0) {                                                                                         \
            size_t chunk = length < STREAM_CHUNK ? length : STREAM_CHUNK;                                            \
                                                                                                                     \
            fill(to, from, chunk);                                                                                   \
            for (char *at = (char *)((uintptr_t)to & ~(uintptr_t)(line - 1)); at < to + chunk; at += line)           \
                __asm__ volatile(clean : : "r"(at) : "memory");                                                      \
            to += chunk;                                                                                             \
            if (from != NULL)                                                                                        \
                from += chunk;                                                                                       \
            length -= chunk;                                                                                         \
        }                                                                                                            \
        __asm__ volatile("dsb sy" : : : "memory");                                                                   \
    }                                                                                                                \
                                                                                                                     \
    static void name##_zero(char *start, size_t length)                                                              \
    {                                                                                                                \
        name(stream_fill_zero, start, NULL, length);                                                                 \
    }                                                                                                                \
                                                                                                                     \
    static void name##_copy(char *to, const char *from, size_t length)                                               \
    {                                                                                                                \
        name(stream_copy_memcpy, to, from, length);                                                                  \
    }

STREAM_DEFINE(stream_dc_cvac, "dc cvac, %0")
/* DC CVAP, spelled so that an assembler for the ARMv8.0 baseline takes it. */
STREAM_DEFINE(stream_dc_cvap, "sys #3, c7, c12, #1, %0")

#endif

/* ---- what this machine can do ---- */

enum { STREAM_BACKENDS_MAX = 4 };

static struct stream_backend stream_backends[STREAM_BACKENDS_MAX];
static size_t stream_backend_count;

static void stream_add(const char *name, stream_zero_function zero, stream_copy_function copy)
{
    stream_backends[stream_backend_count].name = name;
    stream_backends[stream_backend_count].zero = zero;
    stream_backends[stream_backend_count].copy = copy;
    stream_backend_count++;
}

/* Fill the table, best first. Not to be called from two threads at once. */
static void stream_detect(void)
{
    if (stream_backend_count > 0)
        return;
    if (stream_load_libpmem())
        stream_add("libpmem", stream_zero_libpmem, stream_copy_libpmem);
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        stream_add("avx2", stream_zero_avx2, stream_copy_avx2);
    stream_add("sse2", stream_zero_sse2, stream_copy_sse2);
#elif defined(__aarch64__)
#ifndef HWCAP_DCPOP
#define HWCAP_DCPOP (1UL << 16) /* linux/arch/arm64/include/uapi/asm/hwcap.h, since Linux 4.14 */
#endif
    if (getauxval(AT_HWCAP) & HWCAP_DCPOP)
        stream_add("dc cvap", stream_dc_cvap_zero, stream_dc_cvap_copy);
    stream_add("dc cvac", stream_dc_cvac_zero, stream_dc_cvac_copy);
#endif
    stream_add("memset", stream_zero_memset, stream_copy_memcpy);
}

#endif
