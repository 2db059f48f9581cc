"""The program: ``./dev concurrency``."""

import argparse
import secrets
import sys
import time

from . import __doc__ as description
from .checker import Checker
from .run import Crew, run

#: How often a line is printed where there is no terminal, in seconds.
LINE_SECONDS = 60.0


class Progress:
    """One line that is written anew on a terminal; elsewhere a line each minute."""

    def __init__(self, operations: int) -> None:
        self._operations = operations
        self._begin = self._printed = time.monotonic()

    def show(self, checker: Checker) -> None:
        now = time.monotonic()
        longest = max((waits.longest for waits in checker.waits.values()), default=0.0)
        rate = checker.total / (now - self._begin)
        words = (
            f"{checker.total:,} of {self._operations:,} operations, {rate:.0f} a second, "
            f"longest wait {longest:.1f} s, {len(checker.violations)} violations"
        )
        if sys.stderr.isatty():
            print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)
        elif now - self._printed >= LINE_SECONDS:
            self._printed = now
            print(words, file=sys.stderr, flush=True)

    @staticmethod
    def end() -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev concurrency", description=description)
    parser.add_argument("--operations", type=int, default=20_000, help="how many in all (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time, if not before")
    parser.add_argument("--seed", type=int, help="of what is done; not of who does it first (default: random)")
    options = parser.parse_args()
    seed = secrets.randbelow(10**9) if options.seed is None else options.seed
    progress = Progress(options.operations)
    report = run(Crew(), operations=options.operations, seed=seed, seconds=options.seconds, show=progress.show)
    progress.end()
    print(report.table())
    print(f"seed {seed}")
    for violation in report.violations:
        print(f"\n{violation}")
    if report.violations:
        return 1
    return 130 if report.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
