"""Fuzz what reads input: ``./dev fuzz [--seconds N] [TARGET…]``."""

import argparse
import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from tests.fuzz import finding, targets

#: A file system in memory: the targets of trees and ledgers make thousands of files.
_MEMORY = pathlib.Path("/dev/shm")  # noqa: S108  a directory of its own below it
_GRACE_SECONDS = 300
_DONE = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+)")
_SHOWN = 20_000  # characters of an input


def main() -> int:
    """Fuzz the targets of the command line, report; the exit code."""
    arguments = _arguments()
    finding.format_logs()
    # No other limit than time: two run side by side.
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for failed in (results := [pool.submit(_fuzz, name, arguments.seconds) for name in arguments.targets]):
            failed.add_done_callback(lambda done: print(done.result()[1], flush=True))
    failures = sum(not result.result()[0] for result in results)
    print(f"{len(results) - failures} passed, {failures} failed")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(targets.NAMES)}; all by default")
    parser.add_argument("--seconds", type=int, default=20, metavar="N", help="for each target (default: 20)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="targets side by side (default: 2)")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(targets.NAMES):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(targets.NAMES)}")
    arguments.targets = arguments.targets or targets.NAMES
    return arguments


def _fuzz(name: str, seconds: int) -> tuple[bool, str]:
    """Whether a target had no finding, and the report."""
    memory = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="vpmem-fuzz-", dir=memory) as made:
        directory = pathlib.Path(made)
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.worker", name, made, str(seconds)],
            cwd=finding.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds + _GRACE_SECONDS,
            check=False,
        )
        shutil.rmtree(directory / "root", ignore_errors=True)
        (directory / "root").mkdir()
        reports = _reports(name, directory)
    end = _DONE.search(done.stdout)
    if done.returncode or not end:
        reports.append(f"the process ended with status {done.returncode}:\n{done.stdout[-3000:]}")
    inputs, edges = end.groups() if end else ("?", "?")
    head = f"{name}: {inputs} inputs in {seconds} s, {edges} edges, {len(reports) or 'no'} finding(s)"
    return not reports, "\n\n".join([head, *reports])


def _reports(name: str, directory: pathlib.Path) -> list[str]:
    """One text for each finding. Each is run again here, without atheris, and made smaller."""
    target = targets.load(name, directory / "root")
    reports = [
        f"{path.name.partition('-')[0]}:\n  {_shown(target, path.read_bytes())}"
        for kind in ("crash", "timeout", "oom")
        for path in directory.glob(f"{kind}-*")
    ]
    for path in sorted(directory.glob("findings/*")):
        data = path.read_bytes()
        found = finding.look(target, data)
        if found is None:
            reports.append(f"not when it is run again (slower, under atheris):\n  {_shown(target, data)}")
            continue
        data = finding.shrink(data, lambda shorter, found=found: finding.look(target, shorter) == found)
        reports.append(f"{found.what} in {found.where}\n{found.details}\n  {_shown(target, data)}")
    return reports


def _shown(target: targets.Target, data: bytes) -> str:
    try:
        text = target.shown(data)
    except Exception as error:  # noqa: BLE001  then the bytes must do
        text = f"{finding.literal(data)}  # {type(error).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


if __name__ == "__main__":
    sys.exit(main())
