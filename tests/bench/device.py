"""Wiping one device, as whole processes: our wipe, ``daxio -z``, and both without the start of a process.

For a host that has device-dax, such as the lab's: ``python device.py UUID``, as root, with this package installed; it
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
from vpmem_driver.wipe import Engine, Job, Outcome
from vpmem_driver.wipe.device import Device


class _Consenting:
    """A watcher that lets a wipe happen, and keeps no books."""

    def may_start(self, job: Job) -> bool:
        return True

    def progress(self, job: Job, phase: str, done: int) -> None:
        pass

    def finished(self, job: Job, outcome: Outcome, reason: str) -> None:
        pass


def compare(uuid: str, *, source: str = "sysfs", threads: int = 1, rounds: int = 3) -> dict[str, float]:
    """The least seconds of each, in turn: ``ours`` and ``daxio`` are processes, ``stores`` are stores and no more.

    :param source: the discovery that finds it
    """
    found = discovery.make(source)
    namespace = found.find(uuid)
    path = namespace.device or ""
    engine = Engine(found, parallel=1, threads=threads, rate=0)
    job = Job(uuid=uuid, name=path, size=namespace.size)

    def ours() -> None:
        outcome, reason = engine.run([job], _Consenting())[uuid]
        if outcome is not Outcome.WIPED:
            raise RuntimeError(f"{path}: {outcome}: {reason}")

    ways: dict[str, Callable[[], object]] = {
        "ours": ours,
        "daxio": lambda: subprocess.run(["daxio", "-z", "-o", path], check=True, capture_output=True),
        "stores": lambda: _stores(path, namespace.size, namespace.align),
    }
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            least[name] = min(least[name], time.perf_counter() - start)
    return least


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
    print(json.dumps(compare(sys.argv[1])))
