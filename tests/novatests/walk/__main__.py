"""``./dev walk``: random walks over Nova's API with our driver, checked by an oracle.

CI does 20 walks of 25 steps. The long run is ``./dev walk --walks 500``, and for the oracle ``./dev walk --mutants``.
A walk that fails prints its steps, and the command that repeats it.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from novatests.walk import mutants

TESTS = pathlib.Path(__file__).resolve().parents[2]


def main():
    parser = argparse.ArgumentParser(prog="./dev walk", description=__doc__)
    parser.add_argument("--walks", type=int, default=20, help="how many walks (%(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="of how many steps each (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first walk; the next has the next (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="how many walks at a time (%(default)s)")
    parser.add_argument("--mutants", action="store_true", help="walk with each deliberate mistake until it is found")
    arguments = parser.parse_args()
    return find_mutants(arguments) if arguments.mutants else walk(arguments)


def environment(arguments, **more):
    numbers = {"WALKS": arguments.walks, "STEPS": arguments.steps, "SEED": arguments.seed}
    return os.environ | {f"VPMEM_{name}": str(number) for name, number in numbers.items()} | more


def walk(arguments):
    command = ["stestr", "--top-dir", TESTS, "--test-path", TESTS / "novatests" / "walk", "run", "--concurrency"]
    return subprocess.run([*command, str(arguments.processes)], env=environment(arguments), check=False).returncode


def find_mutants(arguments):
    """Print a table: each mistake, the walk and the step that found it, and what the oracle said."""
    missed = 0
    print(f"| {'mistake':28} | found by | seconds | what was wrong |\n|---|---|---|---|", flush=True)
    for name in mutants.MUTANTS:
        begin = time.monotonic()
        found = find(arguments, name)
        missed += found is None
        where, what = found or (f"not in {arguments.walks} walks", "")
        print(f"| {name:28} | {where} | {time.monotonic() - begin:.0f} | {what} |", flush=True)
    print(f"{len(mutants.MUTANTS) - missed} of {len(mutants.MUTANTS)} found")
    return 1 if missed else 0


def find(arguments, mutant):
    """Where the mistake was found, and the oracle's words; None when it was not."""
    command = [sys.executable, "-m", "testtools.run", "--failfast", "novatests.walk.test_walk"]
    with tempfile.TemporaryFile("w+") as output:
        subprocess.run(
            command, env=environment(arguments, VPMEM_MUTANT=mutant), stdout=output, stderr=output, check=False
        )
        output.seek(0)
        found = re.search(r"Wrong: (walk \d+, step \d+): Wrong: (.*)", output.read())
    return found.groups() if found else None


if __name__ == "__main__":
    sys.exit(main())
