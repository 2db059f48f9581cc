"""A process between the pipe of a worker and the file of a namespace (:mod:`.archive`).

Where eventlet has patched the caller, nothing else would run there while it reads pipes and writes files of this size.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import msgspec

from vpmem_driver import exception, interpreter, layout
from vpmem_driver.engine import poll
from vpmem_driver.stream import StreamBroken, StreamDamaged
from vpmem_driver.transfer import archive
from vpmem_driver.transfer.archive import Frames, Header

_PATIENCE_SECONDS = 60.0
#: Exit code: the stream to write ended early, because the worker has failed.
_BROKEN = 2


class Write(msgspec.Struct, frozen=True, kw_only=True, tag="write"):
    """Write the stream on stdin to a new file, durably, read it back, and print the digest of all cells."""

    path: str
    header: Header


class Read(msgspec.Struct, frozen=True, kw_only=True, tag="read"):
    """Write a file as the stream for a namespace of `size` bytes, which has `start` of them already, to stdout."""

    path: str
    size: int
    align: int
    start: int


class FileProcess:
    """A running process."""

    def __init__(self, task: Write | Read, *, stdin: int = subprocess.DEVNULL, stdout: int | None = None) -> None:
        """Start it.

        :param stdout: None: keep what it prints for :meth:`end`
        :raises OSError: it cannot be started
        """
        self._path = task.path
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115  closed by end()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            interpreter.command("vpmem_driver.transfer.file_process", msgspec.json.encode(task).decode()),
            stdin=stdin,
            stdout=self._printed if stdout is None else stdout,
            stderr=self._errors,
            cwd="/",
            env=interpreter.environment(),
        )

    def end(self) -> str:
        """Wait until it has ended. The other end of its pipe must be closed.

        :returns: what it has printed
        :raises StreamBroken: the stream to write ended early
        :raises HostToolError: it failed
        """
        while not poll.has_ended(self._process, _PATIENCE_SECONDS):
            pass
        with self._printed, self._errors:
            self._printed.seek(0)
            self._errors.seek(0)
            if self._process.returncode == _BROKEN:
                raise StreamBroken("the stream ended early")
            if self._process.returncode:
                said = self._errors.read().decode(errors="replace").strip().splitlines()
                raise exception.HostToolError(
                    what=f"Access to {exception.shorten(self._path)}",
                    reason=exception.shorten(said[-1] if said else f"exit code {self._process.returncode}"),
                    remedy="Check the directory, its free space and its medium, then try again",
                )
            return self._printed.read().decode().strip()


def write(fd: int, task: Write) -> bytes:
    """Write the stream `fd` to a new file; see :class:`Write`.

    :raises StreamBroken: the stream ended early
    :raises StreamDamaged: the stream is not valid, or the file is not what was written
    :raises OSError: the file exists, or cannot be written
    """
    size = task.header.size
    file = os.open(task.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        archive.write_header(file, task.header)
        total = archive.store(fd, size, Frames(file, size))
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(file, 0, os.SEEK_SET)
        archive.read_header(file)
        try:
            for _ in archive.cells_of_stream(file, size):  # verifies the digest of each, and that of all
                pass
        except StreamBroken as error:
            raise StreamDamaged("it became shorter") from error
    finally:
        os.close(file)
    return total


def read(task: Read, fd: int) -> None:
    """Write a file to the stream `fd`; see :class:`Read`.

    :raises StreamBroken, StreamDamaged: the file is damaged
    :raises OSError: it cannot be read, or the other end of the stream is closed
    """
    with pathlib.Path(task.path).open("rb", buffering=0) as file:
        header = archive.read_header(file.fileno())
        parts = layout.parts(header.size, header.align, task.size, task.align, header.hardware)
        if parts is None:
            raise StreamDamaged(f"it has {header.size} bytes, which do not fit into {task.size}")
        frames = Frames(fd, task.size, kept=task.start)
        for cell in archive.move(archive.cells_of_stream(file.fileno(), header.size), parts, task.size):
            frames.cell(cell)
        frames.finish()


def main() -> int:
    """Do the task in the first argument (JSON)."""
    task = msgspec.json.decode(sys.argv[1], type=Write | Read)
    try:
        if isinstance(task, Write):
            print(write(0, task).hex())
        else:
            read(task, 1)
    except BrokenPipeError:
        pass  # the worker has ended, and says why
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 1
    except (StreamBroken, StreamDamaged) as error:
        print(error, file=sys.stderr)
        return _BROKEN if isinstance(task, Write) and isinstance(error, StreamBroken) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
