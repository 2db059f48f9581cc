"""The program: ``python -m tests.torture``, or ``./dev torture``."""

import argparse
import os
import pathlib
import secrets
import sys
import time

from tests.torture import crew, mutants

#: How much of the history of a round is shown when it finds something; all of it is in a file.
SHOWN_LINES = 40


class Progress:
    """One line that is written anew on a terminal, and nothing elsewhere."""

    def __init__(self, kills: int) -> None:
        self._kills = kills
        self._begun = time.monotonic()

    def show(self, found: crew.Sum) -> None:
        if sys.stderr.isatty():
            rate = found.kills / max(time.monotonic() - self._begun, 0.1)
            words = (
                f"{found.kills} of {self._kills} kills, {found.stops} stops, {found.rounds} rounds, {rate:.1f} kills/s"
            )
            print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def torture(options: argparse.Namespace) -> int:
    """Run rounds. :returns: 1 when one has found something"""
    seed = secrets.randbelow(10**9) if options.seed is None else options.seed
    rounds = options.rounds or 10**6
    progress = Progress(options.kills)

    def done(found: crew.Sum) -> bool:
        progress.show(found)
        return options.rounds is None and found.kills >= options.kills

    found = crew.run(options.package, seed, jobs=options.jobs, rounds=rounds, done=done)
    progress.end()
    if options.points:
        print(f"{'reached':>9} {'killed':>7} {'stopped':>7}  point")
        for point, (reached, killed, stopped) in sorted(found.points.items()):
            print(f"{reached:9} {killed:7} {stopped:7}  {point}")
    killed_at = sum(counts[1] > 0 for counts in found.points.values())
    print(
        f"{found.kills} kills and {found.stops} stops in {found.rounds} rounds from seed {seed} on: "
        f"{found.tasks} tasks, {found.steps} steps, {found.seconds:.0f} s, {found.kills / found.seconds:.1f} kills/s; "
        f"killed at {killed_at} of {len(found.points)} points"
    )
    for report in found.violations:
        show(report, options)
    return 1 if found.violations else 0


def show(report: dict[str, object], options: argparse.Namespace) -> None:
    """What a round has found, and how to see it again."""
    trace = report["trace"]
    assert isinstance(trace, list)
    path = pathlib.Path(options.traces) / f"torture-{report['seed']}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*trace, str(report["violation"]), ""]))
    print("\n".join(["…", *trace[-SHOWN_LINES:]]))
    print(
        f"\n{report['violation']}\n\nAll {len(trace)} lines: {path}\n./dev torture --seed {report['seed']} --rounds 1"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev torture", description=sys.modules["tests.torture"].__doc__)
    parser.add_argument("--seed", type=int, help="of the first round; each next one has the next (default: random)")
    parser.add_argument("--kills", type=int, default=10000, help="processes to kill (default: %(default)s)")
    parser.add_argument("--rounds", type=int, help="rounds to run, instead of --kills")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="rounds at a time")
    parser.add_argument("--points", action="store_true", help="list the points and how often each was reached")
    parser.add_argument("--package", type=pathlib.Path, default=crew.ROOT, help="where vpmem_driver is")
    parser.add_argument("--traces", default=str(crew.ROOT / ".tox" / "torture-traces"), help="where traces go")
    parser.add_argument(
        "--mutants", nargs="*", metavar="NAME", help="break the package on purpose, and see who notices"
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="of processor time, for each mutant and job (default: %(default)s)"
    )
    options = parser.parse_args()
    options.package = options.package.resolve()
    if options.mutants is not None:
        return mutants.run(options)
    return torture(options)


if __name__ == "__main__":
    sys.exit(main())
