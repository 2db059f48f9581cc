"""``./dev explore``: try all interleavings and crashes of a few processes, within a bound."""

import argparse
import logging
import sys
import time

from tests.explore import holes, scenarios, search
from tests.explore import world as worlds

#: Bounds, the cheapest first: preemptions and crashes.
BOUNDS = ((0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (2, 1), (3, 1))

#: How long a known hole is searched for; each is found in a few seconds.
HOLE_SECONDS = 60.0


def main():
    parser = argparse.ArgumentParser(prog="./dev explore", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each scenario (%(default)s)")
    parser.add_argument("--holes", action="store_true", help="only put each known hole back, and find it")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    if arguments.list:
        for scenario in scenarios.SCENARIOS:
            print(f"{scenario.__name__:12} {scenario.__doc__}")
        return 0
    worlds.install()
    chosen = [s for s in scenarios.SCENARIOS if not arguments.scenarios or s.__name__ in arguments.scenarios]
    failed = 0
    for name in holes.HOLES:
        with holes.put_back(name) as scenario:
            (found,) = (s for s in scenarios.SCENARIOS if s.__name__ == scenario)
            failed += not find(found(), f"hole: {name}", HOLE_SECONDS, wanted=True)
    for scenario in [] if arguments.holes else chosen:
        failed += not find(scenario(), scenario.__name__, arguments.seconds, wanted=False)
    passed = len(holes.HOLES) + (0 if arguments.holes else len(chosen)) - failed
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def find(scenario, title, seconds, *, wanted):
    """Search within growing bounds until the time is over. Whether it ended as `wanted`."""
    deadline = time.monotonic() + seconds
    for preemptions, crashes in BOUNDS:
        report = search.explore(scenario, preemptions=preemptions, crashes=crashes, deadline=deadline)
        extent = "all" if report.complete else "found" if report.failure else "time over"
        print(
            f"{title}: {preemptions} preemptions, {crashes} crashes: {report.executions} executions, "
            f"{report.steps} steps, {report.seconds:.1f} s, {extent}",
            flush=True,
        )
        if report.failure:
            print(f"  {report.failure}")
            if not wanted:
                print("".join(f"    {line}\n" for line in report.trace), end="")
            return wanted
        if not report.complete:
            break
    return not wanted


if __name__ == "__main__":
    sys.exit(main())
