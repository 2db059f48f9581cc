"""The two passes of a wipe: zero the device, then verify it."""

import mmap

from vpmem_driver import _pmem, protocol
from vpmem_driver.protocol import Outcome
from vpmem_driver.worker.device import Device, Failed
from vpmem_driver.worker.parent import Parent
from vpmem_driver.worker.passes import Passes


class Wipe(Passes):
    """The two passes over a device."""

    _start = 0

    def __init__(self, device: Device, parent: Parent, *, threads: int, rate: int, reported: int = 0) -> None:
        """Store the arguments.

        :param reported: number of bytes that the parent already knows to be zero; smaller numbers are not reported
        """
        super().__init__(device, parent, threads=threads, rate=rate)
        self._known_zero = reported

    def zero(self, start: int) -> None:
        """Overwrite all bytes from `start` durably with zeros. :raises Stopped, Failed, OSError: before the end."""
        self._device.allocate()
        self._pass("zero", start, mmap.PROT_READ | mmap.PROT_WRITE, self._zero)

    def verify(self, start: int) -> None:
        """Read all bytes.

        :param start: as for :meth:`zero`
        :raises Failed: a byte is not zero; with LOST if an earlier wipe has zeroed it: somebody has used it since
        :raises Stopped, OSError: before the end
        """
        self._start = start
        self._device.drop_cache()
        self._pass("verify", 0, mmap.PROT_READ, self._verify)

    def _report(self, phase: protocol.Phase, done: int) -> None:
        super()._report(phase, max(done, self._known_zero) if phase == "zero" else done)

    def _zero(self, memory: mmap.mmap, _region: int, offset: int, length: int) -> None:
        self._spread(lambda at, size: _pmem.zero(memory, at, size), offset, length)
        self._device.make_durable()

    def _verify(self, memory: mmap.mmap, region: int, offset: int, length: int) -> None:
        found = self._spread(lambda at, size: _pmem.first_nonzero(memory, at, size), offset, length)
        bad = [at for at in found if at >= 0]
        if bad:
            first = region + min(bad)
            outcome = Outcome.LOST if first < self._start else Outcome.MEDIA
            raise Failed(outcome, f"byte {first} is not zero after zeroing")
