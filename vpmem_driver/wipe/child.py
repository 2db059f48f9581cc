"""The process that wipes one namespace: ``python -m vpmem_driver.wipe.child``.

It is a process of its own because a store to bad media kills with SIGBUS. With its parent (:mod:`.engine`) it speaks
:mod:`.protocol`. These rules hold:

* It takes no path. The parent names a namespace by uuid; the device is looked up here, at the moment of use.
* Before the first byte it holds the lock on the device (flock, exclusive), and no other process has the device mapped
  or open: neither before the parent is told so, nor after it has said go. What maps it later is not seen.
* Every number of bytes that it reports is durable. When stdin closes it stops soon, and it does not outlive its parent.
* It keeps the lock until stdin closes: the parent writes down the outcome before anybody else can get the device.

What the device holds goes nowhere else: not to stdout, not to stderr, not into a core dump.
"""

import concurrent.futures
import contextlib
import ctypes
import errno
import mmap
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from vpmem_driver import _pmem, discovery, exception
from vpmem_driver.discovery import base
from vpmem_driver.wipe import in_use, protocol
from vpmem_driver.wipe.device import Device, Failed
from vpmem_driver.wipe.protocol import Kind

#: How much is written between two looks at stdin when there is no limit of rate.
STEP = 256 << 20
#: With a limit of rate, a step is what may be written in this time.
STEP_SECONDS = 0.1
PROGRESS_SECONDS = 0.2
NICENESS = 10
MOST_THREADS = 4
#: The exit status when the task is not understood.
USAGE_ERROR = 2

_PAGE = mmap.PAGESIZE
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_EHWPOISON = 133  # <asm-generic/errno.h>; the errno module has it not
_MEDIA_ERRORS = (errno.EIO, errno.ENODATA, _EHWPOISON)

_Result = TypeVar("_Result")


class Stopped(Exception):
    """The parent has closed stdin."""


class Parent:
    """The other end of stdin and stdout."""

    def __init__(self, requests: int, reports: int) -> None:
        self._requests = requests
        self._reports = reports
        self._received = b""

    def line(self) -> bytes:
        """The next line. :raises Stopped: there is none."""
        while b"\n" not in self._received:
            piece = os.read(self._requests, protocol.LINE_BYTES)
            if not piece or len(self._received) > protocol.LINE_BYTES:
                raise Stopped
            self._received += piece
        line, self._received = self._received.split(b"\n", 1)
        return line

    def tell(self, event: protocol.Event) -> None:
        """Report. :raises Stopped: nobody listens any more."""
        try:
            os.write(self._reports, protocol.encode(event))
        except BrokenPipeError as error:
            raise Stopped from error

    def pause(self, seconds: float) -> None:
        """Wait that long. :raises Stopped: at once when stdin closes, or says something, which it should not."""
        if select.select([self._requests], [], [], seconds)[0]:
            raise Stopped

    def wait_until_closed(self) -> None:
        """Wait, as long as it takes, for the parent to have written down the outcome."""
        while os.read(self._requests, protocol.LINE_BYTES):
            pass


class Pace:
    """Spreads work over time. What was left of the rate is not saved up."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._due = clock()

    def step(self, most: int) -> int:
        """How many bytes to do at once: `most` or fewer, and whole pages then."""
        if self._rate == 0:
            return most
        return min(most, max(_PAGE, int(self._rate * STEP_SECONDS) // _PAGE * _PAGE))

    def delay(self, done: int) -> float:
        """How many seconds to wait after `done` bytes."""
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
        """Overwrite all from `start` on, durably.

        :param reported: bytes that the parent has as zero already: no fewer are reported
        :raises Stopped, Failed, OSError: before the end
        """
        self._device.allocate()
        self._known_zero = reported
        self._pass("zero", start, mmap.PROT_READ | mmap.PROT_WRITE, self._zero)

    def verify(self) -> None:
        """Read all of it. :raises Failed: a byte is not zero. :raises Stopped, OSError: before the end."""
        self._device.forget()
        self._pass("verify", 0, mmap.PROT_READ, self._verify)

    def _pass(
        self, phase: protocol.Phase, start: int, protection: int, act: Callable[[mmap.mmap, int, int, int], None]
    ) -> None:
        """Map region by region; act, report and pause step by step."""
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
                        self._report(phase, done)
                        self._parent.pause(pace.delay(step))
        finally:
            self._tell(phase, done)

    def _report(self, phase: protocol.Phase, done: int) -> None:
        now = time.monotonic()
        if now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            self._tell(phase, done)

    def _tell(self, phase: protocol.Phase, done: int) -> None:
        self._parent.tell(protocol.Progress(phase, max(done, self._known_zero) if phase == "zero" else done))

    def _zero(self, memory: mmap.mmap, _region: int, offset: int, length: int) -> None:
        self._spread(lambda at, size: _pmem.zero(memory, at, size), offset, length)
        self._device.settle()

    def _verify(self, memory: mmap.mmap, region: int, offset: int, length: int) -> None:
        found = self._spread(lambda at, size: _pmem.first_nonzero(memory, at, size), offset, length)
        bad = [at for at in found if at >= 0]
        if bad:
            raise Failed(Kind.MEDIA, f"byte {region + min(bad)} is not zero after zeroing")

    def _spread(self, work: Callable[[int, int], _Result], offset: int, length: int) -> list[_Result]:
        """What `work` returns for each thread's share of a range: whole pages but for the last."""
        share = -(-length // (self._threads * _PAGE)) * _PAGE
        starts = range(offset, offset + length, share)
        return list(self._workers.map(work, starts, [min(share, offset + length - at) for at in starts]))


def wipe(task: protocol.Task, parent: Parent, source: base.Discovery, *, privileged: bool = False) -> None:
    """Wipe the namespace.

    :param privileged: see :func:`main`
    :raises Failed: it could not be wiped, or should not be
    :raises HostError: discovery failed, or processes could not be looked at; nothing was changed
    :raises OSError: the host failed otherwise; nothing was changed
    :raises Stopped: the parent does not want it any more
    """
    if task.start > task.size:
        raise Failed(Kind.HOST, f"the wipe was to start at byte {task.start} of {task.size}")
    device = Device.open(source, task.uuid, task.size, privileged=privileged)
    _refuse_if_used(device)
    if not device.cached and _pmem.backend() == "memset":
        raise Failed(Kind.HOST, "there is no way here to write durably to persistent memory on a CPU of this kind")
    parent.tell(protocol.Ready())
    if parent.line() != protocol.GO:
        raise Stopped
    _refuse_if_used(device)
    passes = Wipe(device, parent, threads=task.threads, rate=task.rate)
    try:
        passes.zero(0 if privileged else task.start, reported=task.start)
        passes.verify()
    except OSError as error:
        kind = Kind.MEDIA if error.errno in _MEDIA_ERRORS else Kind.HOST
        raise Failed(kind, f"the device does not take it: {error.strerror}") from error


def _refuse_if_used(device: Device) -> None:
    user = in_use.mapped_by(device.fd)
    if user is not None:
        raise Failed(Kind.IN_USE, user)


def main(make: Callable[..., base.Discovery] = discovery.make, *, privileged: bool = False) -> int:
    """Do what stdin says.

    :param privileged: this process may do more than its parent. Then it uses no directory that others may write to, and
        reads back only what it has zeroed itself
    :returns: the exit status
    """
    os.nice(NICENESS)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    parent = _take_over_standard_streams()
    try:
        task = protocol.decode_task(parent.line())
    except Stopped:
        return 0
    except protocol.NOT_UNDERSTOOD as error:
        print(f"vpmem: the task on standard input is not understood: {error}", file=sys.stderr)
        return USAGE_ERROR
    with contextlib.suppress(Stopped):
        parent.tell(_outcome(task, parent, make, privileged=privileged))
        parent.wait_until_closed()
    return 0


def _outcome(
    task: protocol.Task, parent: Parent, make: Callable[..., base.Discovery], *, privileged: bool
) -> protocol.Event:
    """Wipe, and return what to tell the parent. :raises Stopped: it does not want it any more."""
    try:
        wipe(task, parent, make(task.discovery, **task.options), privileged=privileged)
    except Failed as failure:
        return protocol.Failure(failure.kind, str(failure))
    except exception.VPMEMError as error:
        return protocol.Failure(Kind.HOST, str(error).rstrip("."))
    except OSError as error:
        return protocol.Failure(Kind.HOST, error.strerror or type(error).__name__)
    return protocol.Wiped()


def _take_over_standard_streams() -> Parent:
    """Keep stdin and stdout for the protocol: nothing that is called here may read the one or print to the other."""
    parent = Parent(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return parent


if __name__ == "__main__":
    sys.exit(main())
