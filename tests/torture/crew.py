"""Starts workers, which share the processors, and collects what they report."""

import collections
import dataclasses
import functools
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: How to have processes of their own process identifiers: fewer to look through, and none is left behind.
_ALONE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@dataclasses.dataclass
class Sum:
    """What all rounds amount to.

    :ivar cpu: processor time that it took, in seconds
    :ivar points: how often each point was reached, and how often processes were killed and stopped there
    :ivar violations: what the rounds that found something reported
    :ivar unsound: the same, of what is not to count
    """

    rounds: int = 0
    kills: int = 0
    stops: int = 0
    steps: int = 0
    tasks: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    points: dict[str, list[int]] = dataclasses.field(default_factory=lambda: collections.defaultdict(lambda: [0, 0, 0]))
    violations: list[dict[str, typing.Any]] = dataclasses.field(default_factory=list)
    unsound: list[dict[str, typing.Any]] = dataclasses.field(default_factory=list)

    def add(self, report: dict[str, typing.Any], is_finding: "IsFinding") -> None:
        self.rounds += 1
        for name in ("kills", "stops", "steps", "tasks", "cpu"):
            setattr(self, name, getattr(self, name) + report[name])
        for point, counts in report["points"].items():
            self.points[point] = [one + other for one, other in zip(self.points[point], counts, strict=True)]
        if report["check"] is not None:
            (self.violations if is_finding(report) else self.unsound).append(report)


#: Whether what a round has found counts.
IsFinding = Callable[[dict[str, typing.Any]], bool]


@functools.cache
def _prefix() -> list[str]:
    for words in (_ALONE, [*_ALONE, "--user", "--map-root-user"]):
        if (
            shutil.which(words[0])
            and subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
        ):
            return words
    return []


def _directory() -> str:
    """Where the files are: in memory, if there is such a filesystem."""
    memory = os.path.join("/dev", "shm")
    return memory if os.access(memory, os.W_OK) else tempfile.gettempdir()


def run(
    package: pathlib.Path,
    seed: int,
    *,
    jobs: int,
    rounds: int,
    done: Callable[[Sum], bool],
    seconds: float = float("inf"),
    is_finding: IsFinding = lambda _: True,
) -> Sum:
    """Run rounds of the seeds from `seed` on, until one finds something, `done` says so, or time is up.

    :param rounds: how many at most
    :param is_finding: what else a round finds does not end the run
    """
    found, begun = Sum(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vpmem-torture-", dir=_directory()) as directory:
        workers = [
            _start(package, directory, seed + number, jobs, len(range(number, rounds, jobs)))
            for number in range(min(jobs, rounds))
        ]
        try:
            _collect(workers, found, lambda: done(found) or time.monotonic() - begun >= seconds, is_finding)
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGKILL)
            for worker in workers:
                worker.communicate()
    found.seconds = time.monotonic() - begun
    return found


def _start(package: pathlib.Path, directory: str, seed: int, step: int, rounds: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "tests.torture.worker", "--package", str(package), "--directory", directory]
    words += ["--seed", str(seed), "--step", str(step), "--rounds", str(rounds)]
    # Hashes of strings order sets; they are the same in each run.
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    return subprocess.Popen(
        [*_prefix(), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT, env=environment, bufsize=0
    )


def _collect(
    workers: list[subprocess.Popen[bytes]], found: Sum, done: Callable[[], bool], is_finding: IsFinding
) -> None:
    """Read what workers report until they end, or it is enough."""
    streams = {typing.cast("typing.IO[bytes]", worker.stdout).fileno(): worker for worker in workers}
    received = dict.fromkeys(streams, b"")
    poll = select.poll()
    for fd in streams:
        poll.register(fd, select.POLLIN)
    while streams and not done() and not found.violations:
        for fd, _ in poll.poll(500):
            piece = os.read(fd, 1 << 16)
            *lines, received[fd] = (received[fd] + piece).split(b"\n")
            for line in lines:
                found.add(json.loads(line), is_finding)
            if not piece:
                poll.unregister(fd)
                if streams.pop(fd).wait():
                    raise RuntimeError("a worker of the torture has failed; its error is above")
