"""Starts the processes, follows them with the checker, and ends them."""

import contextlib
import dataclasses
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from . import host
from .checker import Checker, Waits

#: How long a transaction waits for others before it fails (vpmem_driver.ledger.lock.TIMEOUT_SECONDS).
LEDGER_SECONDS = 60.0
#: How long a wipe may say nothing before it is given up (vpmem_driver.engine.process.SILENCE_SECONDS).
WIPE_SECONDS = 300.0
#: The operations that may wait for a wipe, and so for both.
WAIT_FOR_WIPES = ("claim", "claim_exact", "wipe", "driver claim", "vpmem claim", "vpmem wipe")

#: What the busiest process of a kind may have done more than the least busy one; looked at from so many operations on.
MOST_RATIO = 2.0
FEW_OPERATIONS = 500

LOOK_SECONDS = 1.0
#: How long the processes have for their end.
END_SECONDS = 180.0


@dataclasses.dataclass(frozen=True)
class Crew:
    """How many processes of each kind, and threads in each.

    :ivar drivers: kinds of driver; they need Nova
    """

    pools: int = 16
    commands: int = 2
    drivers: tuple[str, ...] = ("native driver", "eventlet driver")
    threads: int = 3
    namespaces: int = 48

    def processes(self) -> list[tuple[str, str, int]]:
        """Kind, name and number of threads of each."""
        return [
            *(("pool", f"pool {number}", self.threads) for number in range(self.pools)),
            *(("commands", f"commands {number}", 1) for number in range(self.commands)),
            *((kind, kind, self.threads) for kind in self.drivers),
        ]


@dataclasses.dataclass
class Report:
    """What came of a run."""

    checker: Checker
    crew: Crew
    seconds: float = 0.0
    interrupted: bool = False
    violations: list[str] = dataclasses.field(default_factory=list)

    def bound(self, kind: str) -> float:
        """The longest wait that is allowed for an operation of this kind."""
        return LEDGER_SECONDS + (WIPE_SECONDS if kind in WAIT_FOR_WIPES else 0.0)

    def shares(self) -> dict[str, tuple[int, int]]:
        """The fewest and the most operations of a process, by kind of process."""
        counts: dict[str, list[int]] = {}
        for kind, name, _ in self.crew.processes():
            counts.setdefault(kind, []).append(self.checker.operations[name])
        return {kind: (min(found), max(found)) for kind, found in counts.items()}

    def judge(self) -> None:
        """Add what is too long or too unequal to the violations."""
        for kind, waits in self.checker.waits.items():
            if waits.longest >= self.bound(kind):
                self.violations.append(f"{kind}: somebody waited for {waits.longest:.1f} s")
        for kind, (fewest, most) in self.shares().items():
            if fewest >= FEW_OPERATIONS and most > MOST_RATIO * fewest:
                self.violations.append(f"{kind}: one process got {fewest} operations and another one {most}")

    def table(self) -> str:
        """What a terminal shows, and doc/concurrency.md."""
        checker = self.checker
        lines = ["| operation | done | refused | mean wait | longest wait | bound |", "|---|---|---|---|---|---|"]
        for kind, waits in sorted(checker.waits.items()):
            lines.append(
                f"| {kind} | {waits.done:,} | {waits.refused:,} | {_waits(waits)} | {self.bound(kind):.0f} s |"
            )
        lines += ["", "| processes | number | fewest operations | most | ratio |", "|---|---|---|---|---|"]
        for kind, (fewest, most) in self.shares().items():
            number = sum(kind == other for other, _, _ in self.crew.processes())
            lines.append(f"| {kind} | {number} | {fewest:,} | {most:,} | {most / max(fewest, 1):.2f} |")
        words = (
            f"{checker.total:,} operations in {self.seconds:.0f} s, {checker.total / self.seconds:.0f} a second; "
            f"{checker.history_lines:,} lines of history; the bytes of {checker.samples:,} namespaces looked at; "
            f"{len(self.violations)} violations"
        )
        return "\n".join([*lines, "", words])


def _waits(waits: Waits) -> str:
    return f"{1000 * waits.seconds / max(waits.done + waits.refused, 1):.1f} ms | {waits.longest:.2f} s"


def run(crew: Crew, *, operations: int, seed: int, seconds: float = float("inf"), show=lambda checker: None) -> Report:
    """Run until there were so many operations, or for so many seconds; then check all of it once more.

    :param show: is called after each look of the checker
    """
    with directories() as where, contextlib.closing(Checker(where, random.Random(seed))) as checker:
        where.make(crew.namespaces)
        report = Report(checker, crew)
        _open_ledger(where)
        begin = time.monotonic()
        with _processes(where, crew, seed) as processes:
            try:
                while (
                    report.checker.total < operations
                    and time.monotonic() - begin < seconds
                    and not report.checker.violations
                    and all(process.poll() is None for process in processes.values())
                ):
                    time.sleep(LOOK_SECONDS)
                    report.checker.look()
                    show(report.checker)
            except KeyboardInterrupt:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # tox sends it once more
                report.interrupted = True
            report.seconds = time.monotonic() - begin
            where.stop_file.touch()
            report.violations += _end(where, processes)
        _wait_for_others(where)
        report.checker.finish()
        wiped = _vpmem(where, "wipe")
        if wiped.returncode:
            report.violations.append(f"vpmem wipe ended with {wiped.returncode}: {wiped.stderr}")
        report.checker.finish_wiped()
        report.violations = report.checker.violations + report.violations
        report.judge()
        return report


@contextlib.contextmanager
def directories() -> Iterator[host.Host]:
    """A directory for ledger and accounts, and one in memory for the namespaces where there is such a filesystem."""
    memory = pathlib.Path("/dev/shm")  # noqa: S108  a directory of our own is made in it
    with (
        tempfile.TemporaryDirectory(prefix="vpmem-concurrency-") as root,
        tempfile.TemporaryDirectory(prefix="vpmem-concurrency-", dir=memory if memory.is_dir() else None) as namespaces,
    ):
        yield host.Host(pathlib.Path(root), pathlib.Path(namespaces))


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", *words]


def _vpmem(where: host.Host, *words: str) -> subprocess.CompletedProcess[str]:
    command = _command(["vpmem_driver.cli.main", "--config-file", str(where.config_file), *words])
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _open_ledger(where: host.Host) -> None:
    """Have the ledger made, so that every process can read it."""
    made = _vpmem(where, "namespace", "list")
    if made.returncode:
        raise RuntimeError(made.stderr)


@contextlib.contextmanager
def _processes(where: host.Host, crew: Crew, seed: int) -> Iterator[dict[str, subprocess.Popen]]:
    """The processes, each in a session of its own: Ctrl-C is for this one. None of them survives the block."""
    started: dict[str, subprocess.Popen] = {}
    try:
        for kind, name, threads in crew.processes():
            words = [f"{__package__}.process", kind, name, str(seed), str(threads), str(where.root), str(where.memory)]
            with (where.root / f"{name}.log").open("wb") as log:
                started[name] = subprocess.Popen(
                    _command(words),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
        yield started
    finally:
        for process in started.values():
            process.kill()
            process.wait()


def _end(where: host.Host, processes: dict[str, subprocess.Popen]) -> list[str]:
    """Wait for all. :returns: what is wrong"""
    wrong = []
    deadline = time.monotonic() + END_SECONDS
    for name, process in processes.items():
        try:
            status = process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            status = "not at all"
        said = (where.root / f"{name}.log").read_text(errors="replace")
        if status != 0 or "Traceback" in said:
            wrong.append(f"{name} ended with {status}: {said[-2000:]}")
    return wrong


def _wait_for_others(where: host.Host) -> None:
    """Wait for the wipes that ``vpmem release`` has left in the background. One that does not end is killed."""
    deadline = time.monotonic() + END_SECONDS
    while others := _others(where):
        if time.monotonic() > deadline:
            for pid in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _others(where: host.Host) -> list[int]:
    """The processes that have our configuration file on their command line."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(where.config_file) in path.read_bytes():
                found.append(int(path.parent.name))
    return found
