"""Zeroing a gibibyte of tmpfs: mapped and faulted in (warm), or from the open file on (cold).

All kinds work on the same pages in turn: where in memory these are makes more of a difference than who writes.
"""

import concurrent.futures
import ctypes
import functools
import mmap
import os
import pathlib
import select
import sys
import typing
from collections.abc import Callable

from bench import hosts, limits
from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver import _pmem
from vpmem_driver.worker.device import Device
from vpmem_driver.worker.session import Parent, Wipe

SIZE = 1 << 30
THREADS = (1, 2)
CASES = tuple(f"{pages}, {threads}" for pages in ("warm", "cold") for threads in THREADS)

_ROOT = pathlib.Path(__file__).parents[2]

#: What is done to a range of a mapping.
Work = Callable[[mmap.mmap, int, int], object]


class Silent(Parent):
    """Hears nothing and says nothing."""

    def __init__(self) -> None:
        super().__init__(-1, -1)

    def report(self, event: object) -> None:
        pass

    def pause(self, seconds: float) -> None:
        pass

    def wait_readable(self, fd: int) -> None:
        select.select([fd], [], [])

    def wait_writable(self, fd: int) -> None:
        select.select([], [fd], [])


class _File:
    """A gibibyte on tmpfs, all of it there."""

    def __enter__(self) -> typing.Self:
        self._directory = hosts.in_memory()
        self.fd = os.open(f"{self._directory.name}/ns0", os.O_RDWR | os.O_CREAT, 0o600)
        os.posix_fallocate(self.fd, 0, SIZE)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        self._directory.cleanup()

    def map(self, flags: int = 0) -> mmap.mmap:
        return mmap.mmap(self.fd, SIZE, flags=mmap.MAP_SHARED | flags)

    def wipe(self, threads: int) -> Wipe:
        """The wipe of the child process."""
        return Wipe(Device(self.fd, SIZE, mmap.PAGESIZE), Silent(), threads=threads, rate=0)


def shared(memory: mmap.mmap, threads: int, work: Work) -> None:
    """`work` on equal parts, one for each thread."""
    part = SIZE // threads
    with concurrent.futures.ThreadPoolExecutor(threads) as workers:
        list(workers.map(functools.partial(work, memory), range(0, SIZE, part), [part] * threads))


def _libpmem() -> Work:
    """What daxio calls."""
    persist = ctypes.CDLL("libpmem.so.1").pmem_memset_persist
    persist.argtypes, persist.restype = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t), ctypes.c_void_p

    def work(memory: mmap.mmap, at: int, length: int) -> None:
        start = ctypes.c_char.from_buffer(memory, at)
        persist(ctypes.addressof(start), 0, length)

    return work


def zeroing(measure: Measure) -> None:
    """Warm: the stores. Cold: the wipe's own first pass, with its mapping and settling; others map all at once."""
    others: dict[str, Work] = {"libpmem": _libpmem(), "limit": limits.load().stream}
    with _File() as file:
        with file.map() as memory:
            for threads in THREADS:
                ways = {"ours": _pmem.zero, **others}
                measure.together(
                    f"warm, {threads}",
                    {kind: functools.partial(shared, memory, threads, work) for kind, work in ways.items()},
                )
        for threads in THREADS:

            def cold(work: Work, threads: int = threads) -> None:
                with file.map(mmap.MAP_POPULATE) as memory:
                    shared(memory, threads, work)

            ways = {kind: functools.partial(cold, work) for kind, work in others.items()}
            ours = functools.partial(lambda threads: file.wipe(threads).zero(0), threads)
            measure.together(f"cold, {threads}", {"ours": ours, **ways})


def verified(measure: Measure) -> None:
    """Both passes; the limit writes only."""
    stream: Work = limits.load().stream
    with _File() as file:
        with file.map() as memory:
            for threads in THREADS:

                def reading(threads: int = threads) -> None:
                    shared(memory, threads, _pmem.first_nonzero)

                def writing(threads: int = threads) -> None:
                    shared(memory, threads, stream)

                def both(threads: int = threads) -> None:
                    shared(memory, threads, _pmem.zero)
                    shared(memory, threads, _pmem.first_nonzero)

                measure.together(f"warm, {threads}", {"ours": both, "limit": writing, "reading": reading})
        for threads in THREADS:

            def written(threads: int = threads) -> None:
                with file.map(mmap.MAP_POPULATE) as memory:
                    shared(memory, threads, stream)

            def checked(threads: int = threads) -> None:
                wipe = file.wipe(threads)
                wipe.zero(0)
                wipe.verify(0)

            measure.together(f"cold, {threads}", {"ours": checked, "limit": written})


def on_device(measure: Measure) -> None:
    """In the virtual host of tests/lab: device-dax, and every instruction emulated."""
    sys.path.append(str(_ROOT))  # last: the package is the installed one
    from tests.lab import ready

    with ready.virtual_host() as host:
        host.run("ndctl", "create-namespace", "--mode=devdax", "--name=gib", "--size=1040M")
        measured = host.run(sys.executable, _ROOT / "tests/bench/device.py", "gib").json
    for threads, seconds in measured.items():
        measure.values(f"1038 MiB, {threads}", seconds["ours"])
        measure.values(f"1038 MiB, {threads}", seconds["stores"], kind="limit")
        measure.values(f"zeroing alone, {threads}", seconds["zeroing"])
        for case in ("1038 MiB", "zeroing alone"):
            measure.values(f"{case}, {threads}", seconds["daxio"], kind="daxio")


ROW = Row(
    name="wipe",
    work="zeroing 1 GiB of tmpfs, durably; warm or cold pages, threads",
    kinds={"ours": zeroing},
    targets=tuple(Target(case=f"warm, {threads}", against="limit", most=1.11) for threads in THREADS),
)

VERIFY_ROW = Row(
    name="verify",
    work="the same, read back and checked; limit: writing alone",
    kinds={"ours": verified},
    targets=tuple(Target(case=case, against="limit", most=2) for case in CASES),
)

DEVICE_ROW = Row(
    name="device",
    work="wiping device-dax in an emulated host, as whole processes, ours reading back; limit: stores, no process",
    kinds={"ours": on_device},
    rounds=1,
    targets=tuple(Target(case=f"1038 MiB, {threads}", against="daxio", most=1) for threads in THREADS),
)
