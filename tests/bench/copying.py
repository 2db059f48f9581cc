"""Copying a gibibyte of tmpfs: on one host, and through ssh on loopback. All kinds work on the same pages in turn."""

import contextlib
import ctypes
import fcntl
import functools
import getpass
import mmap
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing
from collections.abc import Callable, Iterator

from bench import hosts
from bench.measure import Measure
from bench.rows import Row, Target
from bench.wiping import SIZE, THREADS, Silent, shared

from vpmem_driver import _pmem, layout, stream
from vpmem_driver.worker.copy import Copy, Receive, Send
from vpmem_driver.worker.device import Device

MIB = 1 << 20
_PARTS = (layout.Part(0, 0, SIZE),)


@contextlib.contextmanager
def _files(filled: float) -> Iterator[tuple[int, int]]:
    """A source of which the part `filled` is not zero, spread evenly, and a destination of the same size."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(contextlib.closing(_Directory()))
        fds = []
        for name in ("source", "destination"):
            fd = os.open(f"{directory.name}/{name}", os.O_RDWR | os.O_CREAT, 0o600)
            stack.callback(os.close, fd)
            os.posix_fallocate(fd, 0, SIZE)
            fds.append(fd)
        piece = os.urandom(MIB)
        every = max(1, round(1 / filled))
        for at in range(0, SIZE, every * MIB):
            os.pwrite(fds[0], piece, at)
        yield fds[0], fds[1]


class _Directory:
    def __init__(self) -> None:
        self._made = hosts.in_memory()
        self.name = self._made.name

    def close(self) -> None:
        self._made.cleanup()


def _memcpy() -> ctypes._CFuncPtr:
    function = ctypes.CDLL(None).memcpy
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_void_p
    return function


def copied(measure: Measure) -> None:
    """Warm: the stores. Cold: the first pass of the worker's job, with its mapping; memcpy maps all at once."""
    memcpy = _memcpy()
    with _files(1) as (source_fd, destination_fd):

        def map_both(flags: int = 0) -> tuple[mmap.mmap, mmap.mmap]:
            return tuple(mmap.mmap(fd, SIZE, flags=mmap.MAP_SHARED | flags) for fd in (source_fd, destination_fd))

        def ours(source: mmap.mmap, memory: mmap.mmap, at: int, length: int) -> None:
            _pmem.copy(memory, at, source, at, length)

        def theirs(source: mmap.mmap, memory: mmap.mmap, at: int, length: int) -> None:
            to, start = (ctypes.c_char.from_buffer(each, at) for each in (memory, source))
            memcpy(ctypes.addressof(to), ctypes.addressof(start), length)

        mapped = map_both(mmap.MAP_POPULATE)
        for threads in THREADS:
            ways = {"ours": functools.partial(ours, mapped[0]), "memcpy": functools.partial(theirs, mapped[0])}
            measure.together(
                f"warm, {threads}",
                {kind: functools.partial(shared, mapped[1], threads, work) for kind, work in ways.items()},
            )
        del mapped, ways
        for threads in THREADS:

            def cold(threads: int = threads) -> None:
                from_memory, to_memory = map_both(mmap.MAP_POPULATE)
                shared(to_memory, threads, functools.partial(theirs, from_memory))

            def job(threads: int = threads) -> None:
                devices = [Device(fd, SIZE, mmap.PAGESIZE) for fd in (destination_fd, source_fd)]
                Copy(devices[0], Silent(), threads=threads, rate=0, source=devices[1], parts=_PARTS).copy(0)

            measure.together(f"cold, {threads}", {"ours": job, "memcpy": cold})


def empty(measure: Measure) -> None:
    """99 % zeros: the sender, against reading all of it with the same threads."""
    with _files(0.01) as (source_fd, _), open(os.devnull, "wb") as null:
        for threads in THREADS:

            def reading(threads: int = threads) -> None:
                with mmap.mmap(source_fd, SIZE, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE) as memory:
                    shared(memory, threads, _first_nonzero)

            def sending(threads: int = threads) -> None:
                _send(source_fd, null.fileno(), threads)

            measure.together(f"1 GiB, {threads}", {"ours": sending, "limit": reading})


def _first_nonzero(memory: mmap.mmap, at: int, length: int) -> None:
    """Read a range to its end, whatever is in it."""
    end = at + length
    while 0 <= (at := _pmem.first_nonzero(memory, at, end - at)) < end - MIB:
        at += MIB


def _send(source_fd: int, fd: int, threads: int) -> None:
    device = Device(source_fd, SIZE, mmap.PAGESIZE)
    Send(device, Silent(), threads=threads, rate=0, parts=_PARTS, length=SIZE, pack=False).send(fd, 0)


class _Sshd:
    """An sshd of this user's own, on a port of its own, with keys of its own."""

    def __enter__(self) -> typing.Self:
        self._root = tempfile.TemporaryDirectory(prefix="vpmem-ssh-")
        root = pathlib.Path(self._root.name)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / name], check=True)
        (root / "authorized").write_text((root / "user.pub").read_text())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        lines = [
            *(f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {root}/host", f"PidFile {root}/pid"),
            *(f"AuthorizedKeysFile {root}/authorized", "StrictModes no", "UsePAM no", "PermitRootLogin yes"),
        ]
        (root / "config").write_text("\n".join(lines) + "\n")
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin") or "sshd"
        self._process = subprocess.Popen([sshd, "-D", "-e", "-f", root / "config"], stderr=subprocess.DEVNULL)
        self.command = [
            *("ssh", "-F", "none", "-p", str(port), "-i", str(root / "user"), "-o", "StrictHostKeyChecking=no"),
            *("-o", f"UserKnownHostsFile={root}/known", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"),
            f"{getpass.getuser()}@127.0.0.1",
        ]
        for _ in range(100):
            if subprocess.run([*self.command, "true"], check=False, capture_output=True).returncode == 0:
                return self
            time.sleep(0.1)
        raise RuntimeError("sshd does not answer")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._root.cleanup()


#: How often each way is measured; the first time warms up.
_SSH_TIMES = 6

#: The receiving worker's job, on what ssh gives it.
_RECEIVER = """
import mmap, os, sys
from bench.copying import receive
receive(sys.argv[1])
"""


def receive(path: str) -> None:
    """Receive a stream from standard input, without reading back: ssh is what is compared."""
    fd = os.open(path, os.O_RDWR)
    print("ready", flush=True)
    Receive(Device(fd, SIZE, mmap.PAGESIZE), Silent(), threads=0, rate=0).receive(0, 0)


def through_ssh(measure: Measure) -> None:
    """A gibibyte without zeros, to another process; against cat to /dev/null, from the same mapped memory."""
    with _Sshd() as sshd, _files(1) as (source_fd, destination_fd):
        path = f"/proc/{os.getpid()}/fd/{destination_fd}"
        environment = f"PYTHONPATH={os.pathsep.join(filter(None, sys.path))}"

        def seconds(words: list[str], write: Callable[[int], None]) -> float:
            """From the first byte to the end of the other side, without its start."""
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
            with subprocess.Popen([*sshd.command, *words], **pipes) as process:
                if process.stdout.readline() != b"ready\n":
                    raise RuntimeError("the other side does not start")
                fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, MIB)
                start = time.perf_counter()
                write(process.stdin.fileno())
                process.stdin.close()
                if process.wait():
                    raise RuntimeError("the other side failed")
                return time.perf_counter() - start

        def all_of_it(fd: int) -> None:
            with mmap.mmap(source_fd, SIZE, prot=mmap.PROT_READ) as memory:
                view = memoryview(memory)
                for at in range(0, SIZE, MIB):
                    left = view[at : at + MIB]
                    while left:
                        left = left[os.write(fd, left) :]
                del left, view

        ours, cat = [], []
        receiver = ["env", environment, sys.executable, "-c", f"'{_RECEIVER}'", path]
        for _ in range(_SSH_TIMES):
            ours.append(seconds(receiver, lambda fd: _send(source_fd, fd, 0)))
            cat.append(seconds(["echo ready; exec cat >/dev/null"], all_of_it))
        measure.values("1 GiB", ours[1:])
        measure.values("1 GiB", cat[1:], kind="cat")


def streamed(measure: Measure) -> None:
    """Sender and receiver through a pipe, on one host: what a faster network than ssh could move."""
    with _files(1) as (source_fd, destination_fd):

        def ours() -> None:
            out, into = os.pipe()
            thread = threading.Thread(target=_send, args=(source_fd, into, 1))
            thread.start()
            Receive(Device(destination_fd, SIZE, mmap.PAGESIZE), Silent(), threads=1, rate=0).receive(out, 0)
            thread.join()
            os.close(out)
            os.close(into)

        def digesting() -> None:
            with mmap.mmap(source_fd, SIZE, prot=mmap.PROT_READ) as memory:
                for at in range(0, SIZE, stream.CELL):
                    stream.digest(memoryview(memory)[at : at + stream.CELL])

        measure.together("1 GiB", {"ours": ours, "digest": digesting})


ROW = Row(
    name="copy",
    work="copying 1 GiB of tmpfs on one host, durably; warm or cold pages, threads",
    kinds={"ours": copied},
    targets=tuple(
        Target(case=f"{pages}, {threads}", against="memcpy", most=1.25)
        for pages in ("warm", "cold")
        for threads in THREADS
    ),
)

EMPTY_ROW = Row(
    name="copy-empty",
    work="sending 1 GiB of which 99 % are zeros; limit: reading it; threads",
    kinds={"ours": empty},
    targets=tuple(Target(case=f"1 GiB, {threads}", against="limit", most=1.25) for threads in THREADS),
)

SSH_ROW = Row(
    name="copy-ssh",
    work="1 GiB through ssh on loopback to another process that stores it; cat: to /dev/null there",
    kinds={"ours": through_ssh},
    rounds=1,
    targets=(Target(case="1 GiB", against="cat", most=1.11),),
)

STREAM_ROW = Row(
    name="copy-stream",
    work="1 GiB through a pipe, sender and receiver in one process; digest: of the same bytes alone",
    kinds={"ours": streamed},
    rounds=1,
    targets=(),
)
