"""``./dev walk``: random walks over Nova's API with our driver, checked by an oracle.

Prints a line for each walk; for one that fails also its steps, and the command that repeats it. Exits with 1 when one
fails. ``./dev walk --mutants`` shows that the oracle finds deliberate mistakes in the driver.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

from novatests.walk import FAILED, mutants


def main():
    parser = argparse.ArgumentParser(prog="./dev walk", description=__doc__)
    parser.add_argument("--walks", type=int, default=20, help="how many walks (%(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="of how many steps each (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first walk; the next has the next (%(default)s)")
    parser.add_argument("--processes", type=int, default=4, help="how many walks at a time (%(default)s)")
    parser.add_argument("--verbose", action="store_true", help="print the steps of each walk")
    parser.add_argument("--mutants", action="store_true", help="walk with each deliberate mistake until it is found")
    arguments = parser.parse_args()
    begin = time.monotonic()
    seeds = [str(seed) for seed in range(arguments.seed, arguments.seed + arguments.walks)]
    names = list(mutants.MUTANTS)
    if arguments.mutants:
        print(f"| {'mistake':31} | found by | seconds | what was wrong |\n|---|---|---|---|", flush=True)
        shares = [[*[f"--mutant={name}" for name in share], *seeds] for share in shared(names, arguments.processes)]
    else:
        shares = shared(seeds, arguments.processes)
    went_well = run(arguments, shares)
    done = f"{len(names)} mistakes" if arguments.mutants else f"{arguments.walks} walks"
    print(f"{done}, {time.monotonic() - begin:.0f} s: {'all well' if went_well else 'FAILED'}")
    return 0 if went_well else 1


def shared(words, processes):
    """A share of `words` for each process."""
    return [words[number::processes] for number in range(min(processes, len(words)))]


def run(arguments, shares):
    """One process for each share, each on one core, where its threads wait less. Whether all went well."""
    cores = sorted(os.sched_getaffinity(0))
    env = os.environ | {"VPMEM_STEPS": str(arguments.steps), "VPMEM_VERBOSE": "1" if arguments.verbose else ""}
    processes = []
    for number, share in enumerate(shares):
        log = pathlib.Path(f"process-{number}.log").resolve()
        with log.open("w", encoding="utf-8") as stderr:
            command = [sys.executable, "-m", "novatests.walk.walks", *share]
            process = subprocess.Popen(command, env=env, stderr=stderr)
            os.sched_setaffinity(process.pid, {cores[number % len(cores)]})
            processes.append((process, log))
    went_well = True
    for process, log in processes:
        code = process.wait()
        went_well = went_well and code == 0
        if code not in {0, FAILED}:
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
            print(f"a process of walks ended with {code}; the end of {log}:", *tail, sep="\n")
    return went_well


if __name__ == "__main__":
    sys.exit(main())
