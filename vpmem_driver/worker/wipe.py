"""The two passes of a wipe: zero the device, then verify it."""

import concurrent.futures
import mmap
import os
import time
from collections.abc import Callable
from typing import TypeVar

from vpmem_driver import _pmem, protocol
from vpmem_driver.protocol import Outcome
from vpmem_driver.worker.device import Device, Failed
from vpmem_driver.worker.parent import Parent

#: Bytes written between two checks of stdin if the rate is unlimited.
STEP = 256 << 20
#: With a rate limit, a step is the number of bytes that may be written in this time.
STEP_SECONDS = 0.1
PROGRESS_SECONDS = 0.2
MOST_THREADS = 4

_PAGE = mmap.PAGESIZE

_Result = TypeVar("_Result")


class Pace:
    """Limits the rate of the work. Unused capacity is not carried over."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._due = clock()

    def step(self, most: int) -> int:
        """Return the size of the next step in bytes: `most`, or fewer in whole pages."""
        if self._rate == 0:
            return most
        return min(most, max(_PAGE, int(self._rate * STEP_SECONDS) // _PAGE * _PAGE))

    def delay(self, done: int) -> float:
        """Return how many seconds to wait after `done` bytes."""
        if self._rate == 0:
            return 0.0
        now = self._clock()
        self._due = max(self._due + done / self._rate, now)
        return self._due - now


class Wipe:
    """The two passes over a device."""

    def __init__(self, device: Device, parent: Parent, *, threads: int, rate: int) -> None:
        self._device = device
        self._parent = parent
        self._threads = threads or min(MOST_THREADS, len(os.sched_getaffinity(0)))
        self._workers = concurrent.futures.ThreadPoolExecutor(self._threads)
        self._rate = rate
        self._reported = 0.0
        self._known_zero = 0

    def zero(self, start: int, *, reported: int = 0) -> None:
        """Overwrite all bytes from `start` durably with zeros.

        :param reported: number of bytes that the parent already knows to be zero; smaller numbers are not reported
        :raises Stopped, Failed, OSError: before the end
        """
        self._device.allocate()
        self._known_zero = reported
        self._pass("zero", start, mmap.PROT_READ | mmap.PROT_WRITE, self._zero)

    def verify(self) -> None:
        """Read all bytes. :raises Failed: a byte is not zero. :raises Stopped, OSError: before the end."""
        self._device.drop_cache()
        self._pass("verify", 0, mmap.PROT_READ, self._verify)

    def _pass(
        self, phase: protocol.Phase, start: int, protection: int, act: Callable[[mmap.mmap, int, int, int], None]
    ) -> None:
        """Map the device region by region, and call `act`, report and pause for each step."""
        device, pace, done = self._device, Pace(self._rate), start
        try:
            while done < device.size:
                region = done - done % device.region
                end = min(region + device.region, device.size)
                with device.map(region, end - region, protection) as memory:
                    while done < end:
                        step = pace.step(min(STEP, end - done))
                        act(memory, region, done - region, step)
                        done += step
                        self._report_if_due(phase, done)
                        self._parent.pause(pace.delay(step))
        finally:
            self._report(phase, done)

    def _report_if_due(self, phase: protocol.Phase, done: int) -> None:
        now = time.monotonic()
        if now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            self._report(phase, done)

    def _report(self, phase: protocol.Phase, done: int) -> None:
        self._parent.report(protocol.Progress(phase, max(done, self._known_zero) if phase == "zero" else done))

    def _zero(self, memory: mmap.mmap, _region: int, offset: int, length: int) -> None:
        self._spread(lambda at, size: _pmem.zero(memory, at, size), offset, length)
        self._device.make_durable()

    def _verify(self, memory: mmap.mmap, region: int, offset: int, length: int) -> None:
        found = self._spread(lambda at, size: _pmem.first_nonzero(memory, at, size), offset, length)
        bad = [at for at in found if at >= 0]
        if bad:
            raise Failed(Outcome.MEDIA, f"byte {region + min(bad)} is not zero after zeroing")

    def _spread(self, work: Callable[[int, int], _Result], offset: int, length: int) -> list[_Result]:
        """Run `work` in threads on shares of a range, in whole pages except the last, and return the results."""
        share = -(-length // (self._threads * _PAGE)) * _PAGE
        starts = range(offset, offset + length, share)
        return list(self._workers.map(work, starts, [min(share, offset + length - at) for at in starts]))
