"""The server in the virtual host: does what it is told over a virtio port. It runs there, on Python alone.

A request is a line of JSON, ``{"call": NAME, "values": [...]}``; the answer is one, ``{"value": ...}`` or
``{"error": ...}``.
"""

import fcntl
import importlib
import json
import mmap
import os
import pathlib
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import typing
from collections.abc import Callable

BLOCK = 1 << 20
_KVM_CREATE_VM = 0xAE01  # linux/kvm.h
STARTED_LOG = "/run/started.log"
ENVIRONMENT = {
    "PATH": f"{pathlib.Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/run",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
}


def run(words: list[str]) -> dict[str, object]:
    """Run a program to its end."""
    began = time.monotonic()
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr, "seconds": time.monotonic() - began}


def start(words: list[str]) -> int:
    """Start a program and leave it running; its process id."""
    with open(STARTED_LOG, "ab") as log:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True).pid


def _load() -> None:
    """Import the program vpmem with all its commands, and what they look for: that takes seconds of emulation."""
    import stevedore

    from vpmem_driver.cli import main as program

    for target in program.COMMANDS.values():
        importlib.import_module("vpmem_driver.cli." + target.partition(":")[0])
    for kind in ("list", "show"):
        stevedore.ExtensionManager(f"cliff.formatter.{kind}")


_loading = threading.Thread(target=_load)


def vpmem(words: list[str]) -> dict[str, object]:
    """Run the program vpmem to its end."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        _, status = os.waitpid(_forked_vpmem(words, out, err), 0)
        seconds = time.monotonic() - began
        return {"code": os.waitstatus_to_exitcode(status), "out": _text(out), "err": _text(err), "seconds": seconds}


def start_vpmem(words: list[str]) -> int:
    """Start the program vpmem and leave it running; its process id."""
    with open(STARTED_LOG, "ab") as log:
        return _forked_vpmem(words, log, log)


def start_churn(config_file: str, label: str) -> int:
    """Have guests of `label` come and go from now on; the process id of it."""
    import churn  # which imports this

    with open(STARTED_LOG, "ab") as log:
        return _forked(lambda: churn.main(config_file, label), log, log)


def _forked_vpmem(words: list[str], out: typing.BinaryIO, err: typing.BinaryIO) -> int:
    from vpmem_driver.cli import main as program

    return _forked(lambda: program.main(words), out, err)


def _forked(main: Callable[[], int | None], out: typing.BinaryIO, err: typing.BinaryIO) -> int:
    """Start `main` in a copy of this process, which has loaded all that it needs."""
    _loading.join()
    if child := os.fork():
        return child
    code = 1
    try:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        code = main() or 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001  this process is a copy, and ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _text(file: typing.BinaryIO) -> str:
    file.seek(0)
    return file.read().decode()


def shell(terminal: str, rows: int, columns: int, kind: str) -> int:
    """A login on `terminal`; returns when it is left."""
    with open(terminal, "r+b", buffering=0) as line:
        subprocess.run(["stty", "sane", "rows", str(rows), "cols", str(columns)], stdin=line, check=True)
        return subprocess.run(
            ["setsid", "--ctty", "--wait", "bash", "--login"],
            stdin=line,
            stdout=line,
            stderr=line,
            cwd="/run",
            env=ENVIRONMENT | {"TERM": kind},
            check=False,
        ).returncode


def write(path: str, text: str) -> None:
    """Make a file."""
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def read(path: str) -> str:
    """What is in a file; nothing when there is none."""
    file = pathlib.Path(path)
    return file.read_text(errors="replace") if file.exists() else ""


def fill(device: str, word: str) -> None:
    """Write `word`, again and again, over all of a dax device or file."""
    with mapped(device) as memory:
        block = _block(word)
        for at in range(0, len(memory), BLOCK):
            memory[at : at + BLOCK] = block


def content(device: str, size: int | None = None) -> str:
    """The word that fills the first `size` bytes (all) of a device or file, ``WORD…`` if not all; empty for zeros."""
    with mapped(device) as memory:
        word = memory[:64].rstrip(b"\0").decode(errors="replace")
        block = _block(word)
        starts = range(0, size or len(memory), BLOCK)
        return word if all(memory[at : at + BLOCK] == block for at in starts) else word + "…"


def first_nonzero(device: str) -> int:
    """The first byte of a dax device that is not zero; its size when there is none."""
    with mapped(device) as memory:
        for at in range(0, len(memory), BLOCK):
            rest = memory[at : at + BLOCK].lstrip(b"\0")
            if rest:
                return at + BLOCK - len(rest)
        return len(memory)


def ledger(path: str) -> dict[str, dict[str, object]]:
    """The rows of a ledger by the namespaces' names, without our own code."""
    import sqlite3

    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        found = database.execute("SELECT * FROM namespace")
        columns = [column[0] for column in found.description]
        rows = [dict(zip(columns, row, strict=True)) for row in found]
    finally:
        database.close()
    return {row["name"]: row for row in rows}


def _block(word: str) -> bytes:
    return word.encode().ljust(64, b"\0") * (BLOCK // 64)


def migrate(monitor: str, target: str) -> str:
    """Have the QEMU with this monitor migrate its guest to `target`; returns how that ended."""
    with socket.socket(socket.AF_UNIX) as line, line.makefile("rw", encoding="ascii") as file:
        line.connect(monitor)
        file.readline()

        def ask(command: str, **arguments: object) -> dict[str, typing.Any]:
            file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            file.flush()
            while "return" not in (answer := json.loads(file.readline())):
                if "error" in answer:
                    raise RuntimeError(answer["error"])
            return answer["return"]

        ask("qmp_capabilities")
        ask("migrate", uri=target)
        while (status := ask("query-migrate").get("status")) not in {"completed", "failed", "cancelled"}:
            time.sleep(0.1)
        return status


def mapped(device: str) -> mmap.mmap:
    """All of a dax device, or of a file, as memory."""
    status = os.stat(device)
    number, size = status.st_rdev, status.st_size
    if stat.S_ISCHR(status.st_mode):
        size = int(pathlib.Path(f"/sys/dev/char/{os.major(number)}:{os.minor(number)}/size").read_text())
    descriptor = os.open(device, os.O_RDWR)
    try:
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


_CALLS = {
    call.__name__: call
    for call in (
        *(run, start, vpmem, start_vpmem, start_churn, shell, write, read),
        *(fill, content, first_nonzero, ledger, migrate),
    )
}


def port(name: str) -> str:
    """The device of the virtio port of that name: there is no udev to make a link."""
    for found in pathlib.Path("/sys/class/virtio-ports").iterdir():
        if (found / "name").read_text().strip() == name:
            return f"/dev/{found.name}"
    raise FileNotFoundError(name)


def switch_on_all_cpus() -> None:
    """Make of a host with one CPU, and no virtual machine yet, one with all its CPUs.

    The first virtual machine has the kernel patch its scheduler, and so does the end of the last. When another CPU runs
    there at that moment, QEMU (7.2; MTTCG) may go on with what it had translated before, for ever. So one machine is
    there before the other CPUs are, and stays.
    """
    fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), _KVM_CREATE_VM, 0)
    for online in pathlib.Path("/sys/devices/system/cpu").glob("cpu[1-9]*/online"):
        online.write_text("1")


def main() -> None:
    """Serve until the power goes."""
    switch_on_all_cpus()
    sys.path.append(os.path.dirname(__file__))
    _loading.start()
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    with open(port("requests"), "r+b", buffering=0) as line:
        _answer(line, {"value": "ready"})
        received = b""
        while True:
            received += os.read(line.fileno(), 1 << 16)
            *requests, received = received.split(b"\n")
            for request in map(json.loads, requests):
                try:
                    _answer(line, {"value": _CALLS[request["call"]](*request["values"])})
                except Exception:  # noqa: BLE001  it is told outside
                    _answer(line, {"error": traceback.format_exc()})


def _answer(line: typing.BinaryIO, answer: dict[str, object]) -> None:
    rest = json.dumps(answer).encode() + b"\n"
    while rest:
        rest = rest[line.write(rest) :]


if __name__ == "__main__":
    main()
