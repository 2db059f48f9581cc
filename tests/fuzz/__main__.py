"""Fuzz what reads input: ``./dev fuzz [--seconds N] [TARGET…]``."""

import argparse
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile

from tests.fuzz import targets

#: A file system in memory: the targets of trees and ledgers make thousands of files.
_MEMORY = pathlib.Path("/dev/shm")  # noqa: S108  a directory of its own below it
_ROOT = pathlib.Path(__file__).parents[2]
#: For one input at its limit, and for making all findings small.
_GRACE_SECONDS = 300
_DONE = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+)")


def main() -> int:
    """Fuzz the targets of the command line, report; the exit code."""
    arguments = _arguments()
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [pool.submit(_fuzz, name, arguments.seconds, arguments.seed) for name in arguments.targets]
        for run in concurrent.futures.as_completed(runs):
            passed, text = run.result()
            print(text, flush=True)
            failures += not passed
    print(f"{len(runs) - failures} passed, {failures} failed")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(targets.NAMES)}; all by default")
    parser.add_argument("--seconds", type=int, default=20, metavar="N", help="for each target (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="to repeat a run (default: random)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="targets side by side (default: 2)")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(targets.NAMES):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(targets.NAMES)}")
    arguments.targets = arguments.targets or targets.NAMES
    return arguments


def _fuzz(name: str, seconds: int, seed: int) -> tuple[bool, str]:
    """Whether nothing was found, and a report."""
    memory = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="vpmem-fuzz-", dir=memory) as directory:
        code, said = _python("worker", name, directory, str(seconds), str(seed), timeout=seconds + _GRACE_SECONDS)
        found, report = _python("report", name, directory, timeout=_GRACE_SECONDS)
    end = _DONE.search(said)
    inputs, edges = end.groups() if end else ("?", "?")
    texts = [f"{name}: {inputs} inputs in {seconds} s, {edges} edges of the package"]
    if found:
        texts.append(report)
    if code or not end:
        texts.append(f"the process ended with status {code}:\n{said[-3000:]}")
    return len(texts) == 1, "\n\n".join(texts)


def _python(module: str, *arguments: str, timeout: float) -> tuple[int, str]:
    """Exit code and output of one of our modules."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", f"tests.fuzz.{module}", *arguments],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, f"{module} did not end within {timeout} seconds"
    return done.returncode, done.stdout.rstrip()


if __name__ == "__main__":
    sys.exit(main())
