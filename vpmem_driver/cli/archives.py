"""What export, import, snapshot and restore share: files of namespaces, and the pipes between them and the workers."""

import contextlib
import fcntl
import os
import pathlib
import subprocess
import tempfile
import threading
import typing
from collections.abc import Callable, Iterator

import msgspec

from vpmem_driver import exception, layout, model
from vpmem_driver.pool import Pool, Row, wipes
from vpmem_driver.stream import StreamBroken, StreamDamaged
from vpmem_driver.transfer import archive
from vpmem_driver.transfer.archive import Cell, Changed, Frames, Header, RawImage

FORMATS = ("stream", "raw", "qcow2")

#: Bytes of a pipe to or from a worker: fewer switches between two processes. Unprivileged users may have up to 1 MiB.
_PIPE_BYTES = 1 << 20


# Reading a namespace


def read(
    pool: Pool,
    departure: str,
    grant: model.Grant,
    consume: Callable[[int], bytes],
    *,
    start: int,
    on_progress: wipes.OnProgress,
) -> bytes:
    """Have a worker write the stream of a namespace into a pipe, which `consume` reads in a thread.

    :param start: bytes from the start of which only the digests are sent
    :returns: what `consume` returns
    :raises VPMEMError: see :meth:`vpmem_driver.pool.copies.Copies.send`
    :raises Changed, OSError: from `consume`
    """
    readable, writable = _pipe()
    results: list[bytes] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(consume(readable))
        except Exception as error:  # noqa: BLE001  raised below
            errors.append(error)
        finally:
            os.close(readable)

    thread = threading.Thread(target=run, name="export")
    thread.start()
    failure = None
    try:
        pool.copies.send(
            departure, grant.uuid, writable, destination=grant, start=start, pack=False, on_progress=on_progress
        )
    except exception.CopyFailed as error:
        failure = error
    finally:
        os.close(writable)
        thread.join()
    for problem in errors:
        if not isinstance(problem, StreamBroken):  # which only means that the worker has ended
            raise problem
    if failure is not None:
        raise failure
    return results[0]


def export_stream(
    pool: Pool, departure: str, grant: model.Grant, path: pathlib.Path, on_progress: wipes.OnProgress
) -> bytes:
    """Write a namespace to a file. What an interrupted export has left in it is used, if it is still the same.

    :returns: the digest of all cells
    :raises InvalidRequest: the file is something else
    :raises VPMEMError: the namespace could not be read
    :raises OSError: the file could not be written
    """
    with path.open("a+b", buffering=0) as file:
        fd = file.fileno()
        os.fchmod(fd, 0o600)  # the content is the guest's
        while True:
            begun = _resume(fd, path, Header.of(grant))
            frames = Frames(fd, grant.size, done=begun.done, digests=begun.digests)

            def consume(readable: int, frames: Frames = frames, begun: archive.Begun = begun) -> bytes:
                return archive.store(readable, grant.size, frames, start=begun.done)

            try:
                total = read(pool, departure, grant, consume, start=begun.done, on_progress=on_progress)
                os.fsync(fd)
                return total
            except Changed:
                os.ftruncate(fd, 0)


def _resume(fd: int, path: pathlib.Path, header: Header) -> archive.Begun:
    """Return what the file has already; write the header of a new one. The next write appends to that."""
    os.lseek(fd, 0, os.SEEK_SET)
    if os.fstat(fd).st_size == 0:
        archive.write_header(fd, header)
    else:
        try:
            is_same = archive.read_header(fd) == header
        except StreamDamaged:
            is_same = False
        if not is_same:
            raise exception.InvalidRequest(
                what="file", value=path, reason="it is not the begin of this export", remedy="Remove it"
            )
    begun = archive.scan(fd, header.size)
    os.ftruncate(fd, begun.position)
    os.lseek(fd, begun.position, os.SEEK_SET)
    return begun


def export_pipe(pool: Pool, departure: str, grant: model.Grant, fd: int, on_progress: wipes.OnProgress) -> None:
    """Write a namespace to a pipe. Errors are those of :func:`export_stream`."""
    archive.write_header(fd, Header.of(grant))
    frames = Frames(fd, grant.size)
    read(
        pool,
        departure,
        grant,
        lambda readable: archive.store(readable, grant.size, frames),
        start=0,
        on_progress=on_progress,
    )


def export_image(  # noqa: PLR0917
    pool: Pool,
    departure: str,
    grant: model.Grant,
    path: pathlib.Path,
    image_format: str,
    on_progress: wipes.OnProgress,
) -> None:
    """Write a namespace to a raw or qcow2 image. Errors are those of :func:`export_stream`."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as directory:
        raw, qcow2 = pathlib.Path(directory, "raw"), pathlib.Path(directory, "qcow2")
        with raw.open("x+b", buffering=0) as file:
            image = RawImage(file.fileno(), grant.size)
            total = read(
                pool,
                departure,
                grant,
                lambda readable: archive.store(readable, grant.size, image),
                start=0,
                on_progress=on_progress,
            )
            os.fsync(file.fileno())
            _verify(file.fileno(), grant, total)
        if image_format == "qcow2":
            _qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
            _qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, qcow2)
            _sync(qcow2)
        made = qcow2 if image_format == "qcow2" else raw
        made.chmod(0o600)  # the content is the guest's
        made.rename(path)
    _sync(path.parent)


def _verify(fd: int, grant: model.Grant, total: bytes) -> None:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    with open(os.devnull, "wb", buffering=0) as null:
        frames = Frames(null.fileno(), grant.size)
        for cell in archive.cells_of_image(fd, grant.size):
            frames.cell(cell)
        if frames.finish() != total:
            raise exception.CopyFailed(
                namespace=grant.name, reason="the image is not what was written", remedy="Check the medium of the image"
            )


# Filling a namespace


class Source(typing.NamedTuple):
    """The content for a namespace.

    :ivar path: for messages
    :ivar grant: the namespace that had it
    :ivar cells: returns the content; called once
    """

    path: str
    grant: model.Grant
    cells: Callable[[], Iterator[Cell]]


def fill(pool: Pool, arrival: str, row: Row, source: Source, on_progress: wipes.OnProgress) -> None:
    """Fill a namespace that expects copy `arrival`, and claim it for its owner. It resumes.

    :raises VPMEMError: see :meth:`vpmem_driver.pool.copies.Copies.receive`
    :raises CopyFailed: the file is damaged
    :raises OSError: the file cannot be read
    """
    parts = layout.parts(source.grant.size, source.grant.align, row.size, row.align, source.grant.hardware)
    assert parts is not None  # noqa: S101  it would not expect the copy
    readable, writable = _pipe()
    errors: list[Exception] = []

    def run(start: int) -> None:
        try:
            frames = Frames(writable, row.size, kept=start)
            for cell in archive.move(source.cells(), parts, row.size):
                frames.cell(cell)
            frames.finish()
        except BrokenPipeError:
            pass  # the worker has ended, and says why
        except Exception as error:  # noqa: BLE001  raised below
            errors.append(error)
        finally:
            os.close(writable)

    threads: list[threading.Thread] = []

    def begin(start: int) -> None:
        threads.append(threading.Thread(target=run, args=(start,), name="import"))
        threads[0].start()

    try:
        pool.copies.receive(arrival, row.uuid, readable, on_ready=begin, on_progress=on_progress)
    except exception.CopyFailed:
        if not errors:
            raise
    finally:
        os.close(readable)
        if threads:
            threads[0].join()
        else:
            os.close(writable)
    for error in errors:
        if isinstance(error, StreamBroken | StreamDamaged):
            raise exception.CopyFailed(
                namespace=row.name or row.uuid,
                reason=f"{source.path}: {error}",
                remedy="Use another copy of the file, or give the namespace up with "
                f"'vpmem release {row.owner} --namespace {row.name}'",
            ) from error
        raise error


@contextlib.contextmanager
def opened(
    path: str, file_format: str, size: int, align: int, hardware: model.Hardware = model.IN_TREE
) -> Iterator[Source]:
    """Open a file to import.

    :param path: "-" for standard input, which can only be a stream
    :param size, align: of the namespace
    :param hardware: what the guest's device is; a stream says that itself
    :raises InvalidRequest: it is not a file of this format, or an image of another size
    :raises OSError: it cannot be read
    """
    with contextlib.ExitStack() as stack:
        if file_format == "qcow2":
            path, shown = stack.enter_context(_converted(path)), path
        else:
            shown = path
        fd = 0 if path == "-" else stack.enter_context(open(path, "rb", buffering=0)).fileno()
        if file_format == "stream":
            try:
                header = archive.read_header(fd)
            except StreamDamaged as error:
                raise _invalid_file(shown, str(error), "For an image, give --file-format raw or qcow2") from error
            yield Source(shown, model.Grant.elsewhere(header), lambda: archive.cells_of_stream(fd, header.size))
            return
        length = os.fstat(fd).st_size
        if length != size:
            reason = f"it has {length} bytes, and the namespace has {size}"
            raise _invalid_file(shown, reason, "Import it into a namespace of the same size")
        header = Header(name=os.path.basename(shown), label=None, size=size, align=align, hardware=hardware)
        yield Source(shown, model.Grant.elsewhere(header), lambda: archive.cells_of_image(fd, size))


@contextlib.contextmanager
def _converted(path: str) -> Iterator[str]:
    """Convert a qcow2 image to a raw one, in a temporary file beside it."""
    info = msgspec.json.decode(_qemu_img("info", "-f", "qcow2", "--output=json", path))
    data = info.get("format-specific", {}).get("data", {})
    if "backing-filename" in info or "data-file" in data:
        raise _invalid_file(path, "it refers to another file", "Convert it with 'qemu-img convert' first")
    with tempfile.TemporaryDirectory(prefix=".vpmem-", dir=os.path.dirname(os.path.abspath(path))) as directory:
        raw = os.path.join(directory, "raw")
        _qemu_img("convert", "-f", "qcow2", "-O", "raw", path, raw)
        yield raw


def _invalid_file(path: str, reason: str, remedy: str) -> exception.InvalidRequest:
    return exception.InvalidRequest(what="file", value=path, reason=reason, remedy=remedy)


# Helpers


def _pipe() -> tuple[int, int]:
    readable, writable = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return readable, writable


def _qemu_img(*words: str | pathlib.Path) -> bytes:
    """Run qemu-img, and return its output. :raises HostToolError: it failed, or is not installed."""
    try:
        done = subprocess.run(["qemu-img", *words], check=False, capture_output=True)
    except OSError as error:
        raise exception.HostToolError(
            what="qemu-img",
            reason=error.strerror or str(error),
            remedy="Install qemu-utils, or use --file-format stream",
        ) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise exception.HostToolError(
            what=f"'qemu-img {words[0]}'",
            reason=exception.shorten(said[-1] if said else f"exit code {done.returncode}"),
            remedy="Check the file and the free space beside it",
        )
    return done.stdout


def _sync(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def draft(path: pathlib.Path) -> pathlib.Path:
    """Return the name of a file that is not complete yet."""
    return path.with_name(f"{path.name}.part")


def publish(path: pathlib.Path) -> None:
    """Give a complete file its name, durably. :raises OSError: that failed."""
    draft(path).rename(path)
    _sync(path.parent)


@contextlib.contextmanager
def file_errors(path: str) -> Iterator[None]:
    """Convert errors of a file. :raises HostToolError: instead of an OSError."""
    try:
        yield
    except OSError as error:
        raise exception.HostToolError(
            what=f"Access to {exception.shorten(path)}",
            reason=error.strerror or str(error),
            remedy="Remove the cause, then run the command again",
        ) from error
