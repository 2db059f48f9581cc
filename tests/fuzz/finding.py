"""What counts as a finding, which findings are the same, and how one is made small and shown."""

import dataclasses
import logging
import pathlib
import re
import resource
import time
import traceback
from collections.abc import Callable

from tests.fuzz.target import Target
from vpmem_driver import exception

ROOT = pathlib.Path(__file__).parents[2]
#: What one input may take. Instrumented code is a few times slower than the real one.
CPU_SECONDS = 2.0
MEMORY_BYTES = 256 << 20

_SHRINK_SECONDS = 5.0
_FRAMES = 8
#: A piece of up to 80 characters that is there nine times or more in a row.
_RUN = re.compile(r"(.{1,80}?)\1{8,}", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one input led to.

    :ivar what: the class of the exception, or which limit was passed
    :ivar where: the innermost place in this project; the same `what` and `where` are one finding
    :ivar details: message and traceback
    """

    what: str
    where: str
    details: str = dataclasses.field(default="", compare=False)


class _Formatting(logging.Handler):
    """Formats each message, as real handlers do, and prints none."""

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()


def format_logs() -> None:
    """Have every log message formatted: that can fail too."""
    logging.basicConfig(level=logging.DEBUG, handlers=[_Formatting()], force=True)


def look(target: Target, data: bytes) -> Finding | None:
    """Run one input."""
    memory, cpu = _most_memory(), time.thread_time()
    try:
        target.run(data)
    except (exception.VPMEMError, *target.typed):
        pass
    except Exception as error:  # noqa: BLE001  which one it is, is the question
        return Finding(type(error).__name__, _where(error), _details(error))
    cpu, memory = time.thread_time() - cpu, _most_memory() - memory
    if cpu > CPU_SECONDS:
        return Finding("too slow", "", f"{len(data)} bytes took {cpu:.1f} s of CPU time")
    if memory > MEMORY_BYTES:
        return Finding("too much memory", "", f"{len(data)} bytes took {memory >> 20} MiB")
    return None


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _where(error: Exception) -> str:
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(str(ROOT)) and ".tox" not in frame.filename
    ]
    frame = ours[-1]
    line = "" if isinstance(error, RecursionError) else f":{frame.lineno}"  # how deep it gets is chance
    return f"{pathlib.Path(frame.filename).relative_to(ROOT)}{line} {frame.name}"


def _details(error: Exception) -> str:
    lines = traceback.format_exception(error, limit=-_FRAMES, chain=False)
    return "".join(line if len(line) < 400 else f"{line[:400]}…\n" for line in lines).rstrip()


def shrink(data: bytes, still: Callable[[bytes], bool], seconds: float = _SHRINK_SECONDS) -> bytes:
    """A shorter input that is `still` the same finding: pieces are left out, large ones first."""
    deadline = time.monotonic() + seconds
    piece = len(data) // 2
    while piece:
        at = 0
        while at < len(data):
            if time.monotonic() > deadline:
                return data
            shorter = data[:at] + data[at + piece :]
            if still(shorter):
                data = shorter
            else:
                at += piece
        piece //= 2
    return data


def literal(value: str | bytes) -> str:
    """`value` in Python, with long repetitions as products."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value

    def written(piece: str) -> str:
        return repr(piece.encode("latin-1") if isinstance(value, bytes) else piece)

    parts, end = [], 0
    for run in _RUN.finditer(text):
        parts += [written(text[end : run.start()])] if end < run.start() else []
        parts.append(f"{written(run[1])} * {len(run[0]) // len(run[1])}")
        end = run.end()
    parts += [written(text[end:])] if end < len(text) or not parts else []
    return " + ".join(parts)
