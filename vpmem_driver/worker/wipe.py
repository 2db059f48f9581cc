"""The two passes of a wipe: zero the device, then verify it."""

import mmap

from vpmem_driver import _pmem, protocol
from vpmem_driver.protocol import Outcome
from vpmem_driver.worker.device import Failed
from vpmem_driver.worker.passes import Passes


class Wipe(Passes):
    """The two passes over a device."""

    _known_zero = 0

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

    def _report(self, phase: protocol.Phase, done: int) -> None:
        super()._report(phase, max(done, self._known_zero) if phase == "zero" else done)

    def _zero(self, memory: mmap.mmap, _region: int, offset: int, length: int) -> None:
        self._spread(lambda at, size: _pmem.zero(memory, at, size), offset, length)
        self._device.make_durable()

    def _verify(self, memory: mmap.mmap, region: int, offset: int, length: int) -> None:
        found = self._spread(lambda at, size: _pmem.first_nonzero(memory, at, size), offset, length)
        bad = [at for at in found if at >= 0]
        if bad:
            raise Failed(Outcome.MEDIA, f"byte {region + min(bad)} is not zero after zeroing")
