"""Wiping one device, as whole processes: our wipe, ``daxio -z``, and both without the start of a process.

For a host that has device-dax, such as the lab's: ``python device.py NAME``, as root, with this package installed; it
needs nothing else of the benchmarks. What the device holds is lost.
"""

import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable

from vpmem_driver import _pmem, discovery
from vpmem_driver.engine import Engine, Job, Outcome, Result
from vpmem_driver.worker.device import Device


class _Clock:
    """A watcher that lets a wipe happen, keeps no books, and looks at the clock."""

    def __init__(self) -> None:
        self.zeroing = self._go = 0.0

    def may_start(self, job: Job) -> bool:
        self._go = time.perf_counter()
        return True

    def progress(self, job: Job, phase: str, done: int) -> None:
        if (phase, done) == ("zero", job.size):
            self.zeroing = time.perf_counter() - self._go

    def finished(self, result: Result) -> None:
        pass


def compare(name: str, threads: int, *, rounds: int = 3) -> dict[str, list[float]]:
    """The seconds of each, in turn, by who wipes it.

    ``ours`` and ``daxio`` are processes, and ours reads back what it has zeroed; ``zeroing`` is that much of ours;
    ``stores`` are stores and no more.
    """
    found = discovery.make("sysfs")
    (namespace,) = [each for each in found.namespaces() if each.name == name]
    path, size = namespace.device or "", namespace.size
    engine = Engine(found, parallel=1, threads=threads, rate=0)
    clock = _Clock()

    def ours() -> None:
        job = Job(uuid=namespace.uuid or "", name=name, size=size)
        result = engine.run([job], clock)[job.uuid]
        if result.outcome is not Outcome.WIPED:
            raise RuntimeError(f"{path}: {result.outcome}: {result.reason}")

    ways: dict[str, Callable[[], object]] = {
        "ours": ours,
        "daxio": lambda: subprocess.run(["daxio", "-z", "-o", path], check=True, capture_output=True),
        "stores": lambda: _stores(path, size, namespace.align),
    }
    seconds: dict[str, list[float]] = {way: [] for way in (*ways, "zeroing")}
    for _ in range(rounds):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - start)
        seconds["zeroing"].append(clock.zeroing)
    return seconds


def _stores(path: str, size: int, align: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        device = Device(fd, size, align)
        for start in range(0, size, device.region):
            length = min(device.region, size - start)
            with device.map(start, length, mmap.PROT_READ | mmap.PROT_WRITE) as memory:
                _pmem.zero(memory, 0, length)
    finally:
        os.close(fd)


if __name__ == "__main__":
    print(json.dumps({threads: compare(sys.argv[1], threads) for threads in (1, 2)}))
