"""The two passes of a wipe: zero the device, then verify it."""

import mmap

from vpmem_driver import _pmem, protocol
from vpmem_driver.protocol import Outcome
from vpmem_driver.worker.device import Device, Failed
from vpmem_driver.worker.parent import Parent
from vpmem_driver.worker.passes import Passes


class Overwritten(Exception):
    """A byte that an earlier wipe has zeroed is not zero: somebody has used the namespace since."""


class Wipe(Passes):
    """The two passes over a device."""

    _start = 0

    def __init__(self, device: Device, parent: Parent, *, threads: int, rate: int, reported: int = 0) -> None:
        """Store the arguments.

        :param reported: number of bytes that the parent already knows to be zero; smaller numbers are not reported
        """
        super().__init__(device, parent, threads=threads, rate=rate)
        self._most: dict[protocol.Phase, int] = {"zero": reported, "verify": 0}

    def zero(self, start: int) -> None:
        """Overwrite all bytes from `start` durably with zeros. :raises Stopped, Failed, OSError: before the end."""
        self._device.allocate()
        self._pass("zero", start, mmap.PROT_READ | mmap.PROT_WRITE, self._zero)

    def verify(self, start: int) -> None:
        """Read all bytes.

        :param start: as for :meth:`zero`
        :raises Overwritten: a byte before `start` is not zero
        :raises Failed: another byte is not zero
        :raises Stopped, OSError: before the end
        """
        self._start = start
        self._device.drop_cache()
        self._pass("verify", 0, mmap.PROT_READ, self._verify)

    def _report(self, phase: protocol.Phase, done: int) -> None:
        self._most[phase] = max(done, self._most[phase])
        super()._report(phase, self._most[phase])

    def _zero(self, memory: mmap.mmap, _region: int, offset: int, length: int) -> None:
        self._spread(lambda at, size: _pmem.zero(memory, at, size), offset, length)
        self._device.make_durable()

    def _verify(self, memory: mmap.mmap, region: int, offset: int, length: int) -> None:
        found = self._spread(lambda at, size: _pmem.first_nonzero(memory, at, size), offset, length)
        bad = [at for at in found if at >= 0]
        if bad and region + min(bad) < self._start:
            raise Overwritten
        if bad:
            raise Failed(Outcome.MEDIA, f"byte {region + min(bad)} is not zero after zeroing")
