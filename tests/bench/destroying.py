"""``destroy()`` of instances with little and with much persistent memory, in Nova's functional stack."""

import ctypes
import json
import mmap
import os
import pathlib
import time
import typing
import unittest

from bench import hosts
from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver.sizes import MIB

#: A guest's device takes 4 MiB at least: 2 for the label area, 2 for the guest.
SMALL = 4 * MIB
LARGE = 8192 * MIB
#: In-tree it is all there at once, on tmpfs, which is kinder than a disk; what it takes grows with the size.
INTREE_LARGE = 1024 * MIB
SERVERS = 4

Seconds = dict[int, list[float]]


def _destroyed(sizes: dict[str, int], directory: pathlib.Path, *, intree: bool) -> Seconds:
    """What ``destroy()`` took, by size: one namespace for each label, and servers that get it in turn."""
    os.environ["VPMEM_COMPUTE_DRIVER"] = "libvirt.LibvirtDriver" if intree else "vpmem.VPMEMLibvirtDriver"
    import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
    from novatests.ours import base

    from vpmem_driver.model import State

    seconds: Seconds = {size: [] for size in sizes.values()}

    class Host(base.Host):
        def make(self, name: str) -> pathlib.Path:
            """Its blocks are there, and read as zeros."""
            path = self.path(name)
            with path.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                os.posix_fallocate(file.fileno(), 0, sizes[name.rstrip("0").upper()])
            return path

        def ndctl(self) -> str:
            listed = json.loads(super().ndctl())
            for one in listed:
                path = self.path(one["name"])
                devices = [{"chardev": os.path.relpath(path, "/dev")}]
                one |= {"size": path.stat().st_size, "daxregion": {"align": 4096, "devices": devices}}
            return json.dumps(listed)

    class Destroy(base.VPMEMTestCase):
        def runTest(self) -> None:  # noqa: N802  unittest's name
            host = self.hosts["host1"] = Host(directory, 1, dict.fromkeys(sizes, 1))
            self.configure(host)
            self.start_compute(hostname=host.name)
            self.driver = self.computes[host.name].driver
            self.destroy = self.driver.destroy
            for _ in range(SERVERS):
                for label, size in sizes.items():
                    if not intree:
                        self.make_clean()
                    server = self.boot(label, host)
                    self.driver.destroy = lambda *args, size=size, **kwargs: self.measured(size, *args, **kwargs)
                    self._delete_server(server)
                    self.driver.destroy = self.destroy

        def measured(self, size: int, *args: typing.Any, **kwargs: typing.Any) -> None:
            start = time.perf_counter()
            self.destroy(*args, **kwargs)
            seconds[size].append(time.perf_counter() - start)

        def make_clean(self) -> None:
            """Stop the wipe in the background: nothing was written, and to wait for gigabytes shows nothing here."""
            background, ledger = self.driver._vpmem.background, self.driver._vpmem._pool._state.ledger
            background.stop.set()
            self.wait_for(lambda: not background._workers, "the end of the wipe")
            background.stop.clear()
            with ledger.transaction():
                for row in ledger.rows():
                    if row.state is not State.CLEAN:
                        ledger.move(row, State.CLEAN, "made so")

        def _erase(self, path: str) -> None:
            _zero(os.path.normpath(path))

    result = unittest.TestResult()
    Destroy().run(result)
    if not result.wasSuccessful():
        raise RuntimeError("\n".join(text for _, text in result.errors + result.failures))
    return seconds


def _zero(path: str) -> None:
    """What daxio does to a device, done to a file: libpmem's stores over a mapping of it."""
    library = ctypes.CDLL("libpmem.so.1")
    library.pmem_memset_persist.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        start = ctypes.c_char.from_buffer(memory)
        library.pmem_memset_persist(ctypes.addressof(start), 0, len(memory))
        del start


def _report(measure: Measure, seconds: Seconds) -> None:
    for size, values in seconds.items():
        measure.values(f"{size // MIB} MiB", values[1:])  # the first server of all finds nothing warm


def ours(measure: Measure) -> None:
    """Releases, and has the wipe begin in the background. Files on a disk."""
    with hosts.on_disk() as directory:
        _report(measure, _destroyed({"SMALL": SMALL, "LARGE": LARGE}, pathlib.Path(directory), intree=False))


def intree(measure: Measure) -> None:
    """Wipes before it returns. Files on tmpfs."""
    with hosts.in_memory() as directory:
        _report(measure, _destroyed({"SMALL": SMALL, "LARGE": INTREE_LARGE}, pathlib.Path(directory), intree=True))


ROW = Row(
    name="destroy",
    work="destroy() of an instance with so much persistent memory, Nova's functional stack; nova: with a real wipe",
    kinds={"ours": ours, "nova": intree},
    targets=(Target(case=f"{LARGE // MIB} MiB", against=f"destroy/{SMALL // MIB} MiB/ours", most=1.2),),
    rounds=3,
)
