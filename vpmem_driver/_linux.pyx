"""System calls that Python's os module does not have: statx(2), capset(2), and prctl(2)."""

from cpython.exc cimport PyErr_SetFromErrno, PyErr_SetFromErrnoWithFilenameObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <fcntl.h>
    #include <linux/capability.h>
    #include <sys/prctl.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #ifndef STATX_ATTR_DAX
    #define STATX_ATTR_DAX 0x200000 /* since Linux 5.8 */
    #endif
    static int set_capabilities(struct __user_cap_header_struct *header, struct __user_cap_data_struct *data) {
        return (int)syscall(SYS_capset, header, data);
    }
    static int get_capabilities(struct __user_cap_header_struct *header, struct __user_cap_data_struct *data) {
        return (int)syscall(SYS_capget, header, data);
    }
    """
    cdef struct statx_time "statx_timestamp":
        int64_t tv_sec
        uint32_t tv_nsec

    cdef struct statx_result "statx":
        uint32_t stx_mask
        uint64_t stx_attributes
        uint32_t stx_nlink
        uint32_t stx_mode
        uint64_t stx_ino
        uint64_t stx_size
        uint64_t stx_blocks
        statx_time stx_btime
        uint32_t stx_dev_major
        uint32_t stx_dev_minor

    cdef struct cap_header "__user_cap_header_struct":
        uint32_t version
        int pid

    cdef struct cap_data "__user_cap_data_struct":
        uint32_t effective
        uint32_t permitted
        uint32_t inheritable

    const int AT_EMPTY_PATH
    const int AT_SYMLINK_NOFOLLOW
    const unsigned int STATX_BASIC_STATS
    const unsigned int STATX_BTIME
    const uint64_t STATX_ATTR_DAX
    const uint32_t _LINUX_CAPABILITY_VERSION_3
    const int PR_CAPBSET_READ
    const int PR_CAPBSET_DROP
    const int PR_SET_NO_NEW_PRIVS
    const int PR_SET_PDEATHSIG

    int call_statx "statx"(int directory, const char *name, int flags, unsigned int mask, statx_result *result) nogil
    int prctl(int option, unsigned long, unsigned long, unsigned long, unsigned long) nogil
    int set_capabilities(cap_header *header, cap_data *data) nogil
    int get_capabilities(cap_header *header, cap_data *data) nogil


def statx(int directory, bytes name not None) -> tuple:
    """What statx(2) tells of `name` in an open directory, without following a link.

    :param directory: file descriptor; an empty `name` is what it is open on, a file perhaps
    :returns: mode, links, inode, size in bytes, allocated bytes, birth in nanoseconds since 1970 (0: not kept by the
        filesystem), whether it is DAX, and major and minor number of the filesystem's device
    :raises OSError: the kernel refused
    """
    cdef statx_result found
    cdef const char *path = name
    cdef int flags = AT_SYMLINK_NOFOLLOW if name else AT_EMPTY_PATH
    cdef int failed
    with nogil:
        failed = call_statx(directory, path, flags, STATX_BASIC_STATS | STATX_BTIME, &found)
    if failed:
        PyErr_SetFromErrnoWithFilenameObject(OSError, name)
    birth = 0
    if found.stx_mask & STATX_BTIME:
        birth = found.stx_btime.tv_sec * 1_000_000_000 + found.stx_btime.tv_nsec
    return (
        found.stx_mode,
        found.stx_nlink,
        found.stx_ino,
        found.stx_size,
        found.stx_blocks * 512,
        birth,
        bool(found.stx_attributes & STATX_ATTR_DAX),
        found.stx_dev_major,
        found.stx_dev_minor,
    )


def end_with_parent(int signal) -> None:
    """Have the kernel send this process `signal` when the thread that started it ends.

    :raises OSError: the kernel refused
    """
    check(prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0))


def keep_capabilities(uint64_t kept, bint drop_bounding) -> None:
    """Have this process, and what it executes from now on, keep no capabilities but those of `kept`.

    A process that lacks one of them is not given it.

    :param kept: a set of bits, 1 << CAP_…
    :param drop_bounding: drop all others from the bounding set too, which takes root; without it a program that root
        executes has all capabilities again
    :raises OSError: the kernel refused
    """
    cdef cap_header header
    cdef cap_data data[2]
    cdef unsigned long capability = 0
    cdef int half
    if drop_bounding:
        while prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
            if not kept >> capability & 1:
                check(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))
            capability += 1
    header.version = _LINUX_CAPABILITY_VERSION_3
    header.pid = 0
    check(get_capabilities(&header, data))
    for half in range(2):
        data[half].permitted &= <uint32_t>(kept >> 32 * half)
        data[half].effective = data[half].permitted
        data[half].inheritable = 0
    check(set_capabilities(&header, data))
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


cdef int check(int result) except -1:
    if result < 0:
        PyErr_SetFromErrno(OSError)
    return 0
