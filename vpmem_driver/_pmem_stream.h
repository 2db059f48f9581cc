/*
 * Zeroing with streaming stores, and searching for a byte that is not zero; for _pmem.pyx only. Plain C, no Python.
 *
 * Every way of zeroing ends with the fence or barrier after which, on memory that is mapped without a page cache
 * (device-dax, or a file mapped with MAP_SYNC), the zeros have left the CPU's caches. Only "memset" does not.
 *
 * Sources: Intel 64 and IA-32 Architectures SDM vol. 1, 10.4.6.2 "Caching of Temporal vs. Non-Temporal Data" (streaming
 * stores, SFENCE); Arm ARM DDI 0487, D7.5 "Cache support" (DC CVAP, DSB); pmem_memset(3) of PMDK 1.12 to 2.1.
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

struct stream_backend {
    const char *name;
    stream_zero_function zero;
};

/* ---- libpmem, when it is installed ---- */

/* libpmem.h, unchanged since PMDK 1.5. Without the flag, small lengths go through the cache and are flushed from it. */
#define STREAM_PMEM_F_MEM_NONTEMPORAL (1U << 1)

typedef void *(*stream_pmem_memset_function)(void *start, int c, size_t length, unsigned flags);

static stream_pmem_memset_function stream_pmem_memset;

static void stream_zero_libpmem(char *start, size_t length)
{
    stream_pmem_memset(start, 0, length, STREAM_PMEM_F_MEM_NONTEMPORAL);
}

static int stream_load_libpmem(void)
{
    void *library = dlopen("libpmem.so.1", RTLD_NOW | RTLD_LOCAL);

    if (library == NULL)
        return 0;
    /* pmem_memset is newer (PMDK 1.5) than the library's name. ISO C has no cast from object to function pointer. */
    *(void **)&stream_pmem_memset = dlsym(library, "pmem_memset");
    return stream_pmem_memset != NULL;
}

/* ---- everywhere ---- */

static void stream_zero_memset(char *start, size_t length)
{
    memset(start, 0, length);
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

#define STREAM_DEFINE_ZERO(name, clean)                                                                              \
    static void name(char *start, size_t length)                                                                     \
    {                                                                                                                \
        size_t line = stream_cache_line();                                                                           \
                                                                                                                     \
        while (length > 0) {                                                                                         \
            size_t chunk = length < STREAM_CHUNK ? length : STREAM_CHUNK;                                            \
                                                                                                                     \
            memset(start, 0, chunk);                                                                                 \
            for (char *at = (char *)((uintptr_t)start & ~(uintptr_t)(line - 1)); at < start + chunk; at += line)     \
                __asm__ volatile(clean : : "r"(at) : "memory");                                                      \
            start += chunk;                                                                                          \
            length -= chunk;                                                                                         \
        }                                                                                                            \
        __asm__ volatile("dsb sy" : : : "memory");                                                                   \
    }

STREAM_DEFINE_ZERO(stream_zero_dc_cvac, "dc cvac, %0")
/* DC CVAP, spelled so that an assembler for the ARMv8.0 baseline takes it. */
STREAM_DEFINE_ZERO(stream_zero_dc_cvap, "sys #3, c7, c12, #1, %0")

#endif

/* ---- what this machine can do ---- */

enum { STREAM_BACKENDS_MAX = 4 };

static struct stream_backend stream_backends[STREAM_BACKENDS_MAX];
static size_t stream_backend_count;

static void stream_add(const char *name, stream_zero_function zero)
{
    stream_backends[stream_backend_count].name = name;
    stream_backends[stream_backend_count].zero = zero;
    stream_backend_count++;
}

/* Fill the table, best first. Not to be called from two threads at once. */
static void stream_detect(void)
{
    if (stream_backend_count > 0)
        return;
    if (stream_load_libpmem())
        stream_add("libpmem", stream_zero_libpmem);
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        stream_add("avx2", stream_zero_avx2);
    stream_add("sse2", stream_zero_sse2);
#elif defined(__aarch64__)
#ifndef HWCAP_DCPOP
#define HWCAP_DCPOP (1UL << 16) /* linux/arch/arm64/include/uapi/asm/hwcap.h, since Linux 4.14 */
#endif
    if (getauxval(AT_HWCAP) & HWCAP_DCPOP)
        stream_add("dc cvap", stream_zero_dc_cvap);
    stream_add("dc cvac", stream_zero_dc_cvac);
#endif
    stream_add("memset", stream_zero_memset);
}

#endif
