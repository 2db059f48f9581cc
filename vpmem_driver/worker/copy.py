"""The passes of a copy: send a namespace, receive it, or copy it to another namespace of this host."""

import contextlib
import fcntl
import mmap
import os
from collections.abc import Sequence

from vpmem_driver import _pmem, stream
from vpmem_driver.layout import Part
from vpmem_driver.protocol import Outcome
from vpmem_driver.stream import CELL, NO_DIGEST, Frame, Kind
from vpmem_driver.worker.content import Content, Piece
from vpmem_driver.worker.device import Device, Failed
from vpmem_driver.worker.parent import Parent
from vpmem_driver.worker.passes import STEP, Pace, Passes

#: Bytes of the source that are read ahead of the stream, in threads.
_AHEAD = 64 * CELL


class Send(Passes):
    """Write the content of a device to a stream."""

    def __init__(
        self,
        device: Device,
        parent: Parent,
        *,
        threads: int,
        rate: int,
        parts: Sequence[Part],
        length: int,
        pack: bool,
    ) -> None:
        super().__init__(device, parent, threads=threads, rate=rate)
        self._content = Content(device, parts)
        self._length = length
        self._pack = pack
        self._digests = stream.Digests(length)

    def send(self, fd: int, start: int) -> None:
        """Write the content to `fd`. Only :meth:`end` makes it complete for the receiver.

        :param start: bytes of the destination that the receiver already has; only their digests are sent
        :raises Failed: the other end no longer reads
        :raises Stopped, OSError: before the end
        """
        os.set_blocking(fd, False)
        pace, done = Pace(self._rate), 0
        while done < self._length:
            step = max(pace.step(min(_AHEAD, self._length - done)) // CELL * CELL, min(CELL, self._length - done))
            sent = self._send_step(fd, done, step, start)
            done += step
            self._report_if_due("copy", max(done, start))
            self._parent.pause(pace.delay(sent))

    def end(self, fd: int) -> None:
        """Write the last frame to `fd`. Raises the errors of :meth:`send`."""
        self._write(fd, Frame(Kind.END, self._length, 0, self._digests.total()))
        self._report("copy", self._length)

    def _send_step(self, fd: int, first: int, length: int, start: int) -> int:
        """Send the cells of one step. :returns: the number of bytes written."""
        cells = [self._content.whole(at, min(CELL, first + length - at)) for at in range(first, first + length, CELL)]
        sent, zeros = 0, Frame(Kind.ZERO, first, 0, NO_DIGEST)
        for cell, digest in zip(cells, self._each(_digest, cells), strict=True):
            self._digests[cell.offset] = digest
            if digest == NO_DIGEST:
                zeros = zeros._replace(length=zeros.length + cell.length)
                continue
            if zeros.length:
                self._write(fd, zeros)
            sent += self._send_cell(fd, cell, digest, kept=cell.offset < start)
            zeros = zeros._replace(offset=cell.offset + cell.length, length=0)
        if zeros.length:
            self._write(fd, zeros)
        return sent

    def _send_cell(self, fd: int, cell: Piece, digest: bytes, *, kept: bool) -> int:
        if kept:
            self._write(fd, Frame(Kind.KEPT, cell.offset, cell.length, digest))
            return 0
        packed = stream.pack(cell.view()) if self._pack else None
        payload = cell.view() if packed is None else memoryview(packed)
        frame = Frame(Kind.DATA, cell.offset, cell.length, digest, 0 if packed is None else len(packed))
        self._write(fd, frame, payload)
        return len(payload)

    def _write(self, fd: int, frame: Frame, payload: memoryview | None = None) -> None:
        left = [memoryview(frame.encode()), *([] if payload is None else [payload])]
        while left:
            self._parent.wait_writable(fd)
            try:
                done = os.writev(fd, left)
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise Failed(Outcome.LOST, "the connection was closed by the other side") from error
            while left and done >= len(left[0]):
                done -= len(left.pop(0))
            if left:
                left[0] = left[0][done:]


def _digest(cell: Piece) -> bytes:
    if cell.memory is None or _pmem.first_nonzero(cell.memory, cell.at, cell.length) < 0:
        return NO_DIGEST
    return stream.digest(cell.view())


class Receive(Passes):
    """Overwrite a device with the content of a stream."""

    _memory: mmap.mmap | None = None
    _region = -1

    def receive(self, fd: int, start: int) -> stream.Digests:
        """Overwrite all bytes from `start` with the content of the stream, durably.

        :returns: the digests of all cells
        :raises Failed: the stream was lost or damaged
        :raises Stopped, OSError: before the end
        """
        self._device.allocate()
        with contextlib.suppress(OSError):  # it is not a pipe, or this user has too many of them
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CELL)
        reader = stream.Reader(fd, self._device.size, start=start, wait=self._parent.wait_readable)
        pace, done, durable = Pace(self._rate), start, start
        try:
            while (frame := self._store_next(reader, start)).kind is not Kind.END:
                done = max(done, frame.end)
                if self._is_due() or done - durable >= STEP:
                    self._make_durable(done)
                    durable = done
                self._parent.pause(pace.delay(frame.length if frame.kind is Kind.DATA else 0))
        except (stream.StreamBroken, stream.StreamDamaged) as error:
            self._make_durable(done)
            raise Failed(Outcome.LOST, str(error)) from error
        self._make_durable(self._device.size)
        self._memory = None
        return reader.digests

    def verify(self, digests: stream.Digests, start: int) -> None:
        """Read all bytes.

        :param start: as for :meth:`receive`
        :raises Failed: a cell does not have its digest; with LOST if an earlier copy has received it
        :raises Stopped, OSError: before the end
        """

        def check(memory: mmap.mmap, region: int, offset: int, length: int) -> None:
            cells = [
                Piece(region + at, min(CELL, offset + length - at), memory, at)
                for at in range(offset, offset + length, CELL)
            ]
            for cell, digest in zip(cells, self._each(_digest, cells), strict=True):
                if digest != digests[cell.offset]:
                    last = cell.offset + cell.length - 1
                    outcome = Outcome.LOST if cell.offset < start else Outcome.MEDIA
                    raise Failed(outcome, f"bytes {cell.offset} to {last} are not what was sent")

        self._device.drop_cache()
        self._pass("verify", 0, mmap.PROT_READ, check, CELL)

    def _store_next(self, reader: stream.Reader, start: int) -> Frame:
        frame, payload = reader.read()
        if frame.kind is Kind.DATA:
            memory = self._map(frame.offset)
            _pmem.copy(memory, frame.offset - self._region, payload, 0, frame.length)
        elif frame.kind is Kind.ZERO:
            at = max(frame.offset, start)
            while at < frame.end:
                memory = self._map(at)
                length = min(frame.end - at, len(memory) - (at - self._region), STEP)
                self._spread(lambda first, size: _pmem.zero(memory, first, size), at - self._region, length)  # noqa: B023 ends before the next step
                at += length
                self._parent.pause(0)
        return frame

    def _map(self, offset: int) -> mmap.mmap:
        region = offset - offset % self._device.region
        if self._memory is None or region != self._region:
            length = min(self._device.region, self._device.size - region)
            self._memory, self._region = self._device.map(region, length, mmap.PROT_READ | mmap.PROT_WRITE), region
        return self._memory

    def _make_durable(self, done: int) -> None:
        self._device.make_durable()
        self._report("copy", done)


class Copy(Passes):
    """Overwrite a device with the content of another device of this host."""

    _start = 0

    def __init__(
        self, device: Device, parent: Parent, *, threads: int, rate: int, source: Device, parts: Sequence[Part]
    ) -> None:
        super().__init__(device, parent, threads=threads, rate=rate)
        self._content = Content(source, parts)

    def copy(self, start: int) -> None:
        """Overwrite all bytes from `start` durably. :raises Stopped, Failed, OSError: before the end."""
        self._device.allocate()
        self._pass("copy", start, mmap.PROT_READ | mmap.PROT_WRITE, self._copy)

    def verify(self, start: int) -> None:
        """Read all bytes.

        :param start: as for :meth:`copy`
        :raises Failed: one is not that of the source; with LOST if an earlier copy has written it
        :raises Stopped, OSError: before the end
        """
        self._start = start
        self._device.drop_cache()
        self._pass("verify", 0, mmap.PROT_READ, self._verify)

    def _copy(self, memory: mmap.mmap, region: int, offset: int, length: int) -> None:
        for piece in self._content.pieces(region + offset, region + offset + length):

            def store(at: int, size: int, piece: Piece = piece) -> None:
                shift = region + at - piece.offset
                if piece.memory is None:
                    _pmem.zero(memory, at, size)
                else:
                    _pmem.copy(memory, at, piece.memory, piece.at + shift, size)

            self._spread(store, piece.offset - region, piece.length)
        self._device.make_durable()

    def _verify(self, memory: mmap.mmap, region: int, offset: int, length: int) -> None:
        for piece in self._content.pieces(region + offset, region + offset + length):

            def equal(at: int, size: int, piece: Piece = piece) -> bool:
                shift = region + at - piece.offset
                if piece.memory is None:
                    return _pmem.first_nonzero(memory, at, size) < 0
                return _pmem.equal(memory, at, piece.memory, piece.at + shift, size)

            if not all(self._spread(equal, piece.offset - region, piece.length)):
                last = piece.offset + piece.length - 1
                outcome = Outcome.LOST if piece.offset < self._start else Outcome.MEDIA
                raise Failed(outcome, f"a byte from {piece.offset} to {last} is not that of the source")
