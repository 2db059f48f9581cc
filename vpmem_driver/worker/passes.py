"""What every job of a worker does: passes over a device, in threads, at a limited rate, with reports of progress."""

import concurrent.futures
import mmap
import os
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from vpmem_driver import protocol
from vpmem_driver.worker.device import Device
from vpmem_driver.worker.parent import Parent

#: Bytes written between two checks of stdin if the rate is unlimited.
STEP = 256 << 20
#: With a rate limit, a step is the number of bytes that may be written in this time.
STEP_SECONDS = 0.1
PROGRESS_SECONDS = 0.2
MOST_THREADS = 4

_PAGE = mmap.PAGESIZE

_Argument = TypeVar("_Argument")
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


class Passes:
    """Passes over a device."""

    def __init__(self, device: Device, parent: Parent, *, threads: int, rate: int) -> None:
        self._device = device
        self._parent = parent
        self._threads = threads or min(MOST_THREADS, len(os.sched_getaffinity(0)))
        self._workers = concurrent.futures.ThreadPoolExecutor(self._threads)
        self._rate = rate
        self._reported = 0.0

    def _pass(
        self,
        phase: protocol.Phase,
        start: int,
        protection: int,
        act: Callable[[mmap.mmap, int, int, int], None],
        unit: int = _PAGE,
    ) -> None:
        """Map the device region by region, and call `act`, report and pause for each step.

        :param unit: each step is a multiple of it, except the last one of a region
        """
        device, pace, done = self._device, Pace(self._rate), start
        try:
            while done < device.size:
                region = done - done % device.region
                end = min(region + device.region, device.size)
                with device.map(region, end - region, protection) as memory:
                    while done < end:
                        step = min(max(pace.step(min(STEP, end - done)) // unit, 1) * unit, end - done)
                        act(memory, region, done - region, step)
                        done += step
                        self._report_if_due(phase, done)
                        self._parent.pause(pace.delay(step))
        finally:
            self._report(phase, done)

    def _is_due(self) -> bool:
        """Whether the last report is old enough for the next one."""
        return time.monotonic() - self._reported >= PROGRESS_SECONDS

    def _report_if_due(self, phase: protocol.Phase, done: int) -> None:
        if self._is_due():
            self._report(phase, done)

    def _report(self, phase: protocol.Phase, done: int) -> None:
        self._reported = time.monotonic()
        self._parent.report(protocol.Progress(phase, done))

    def _spread(self, work: Callable[[int, int], _Result], offset: int, length: int) -> list[_Result]:
        """Run `work` in threads on shares of a range, in whole pages except the last, and return the results."""
        share = -(-length // (self._threads * _PAGE)) * _PAGE
        starts = range(offset, offset + length, share)
        return list(self._workers.map(work, starts, [min(share, offset + length - at) for at in starts]))

    def _each(self, work: Callable[[_Argument], _Result], arguments: Iterable[_Argument]) -> list[_Result]:
        """Run `work` in threads on each argument, and return the results in their order."""
        return list(self._workers.map(work, arguments))
