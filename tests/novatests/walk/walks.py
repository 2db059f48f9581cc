"""Some walks in this process, one after the other: ``python -m novatests.walk.walks [--mutant=NAME...] SEED...``.

Prints a line for each; where one fails also its steps, and the file that has Nova's log of it.
"""

import argparse
import os
import pathlib
import re
import sys
import time

import testtools
from novatests.walk import FAILED, walk

#: For what is told here alone. What Nova prints goes where its log goes: to stderr.
STDOUT = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)


class Result(testtools.TestResult):
    """Keeps the details of a walk."""

    def __init__(self):
        super().__init__()
        self.details = {}
        self.failed = False

    def addSuccess(self, test, details=None):  # noqa: N802  as unittest has it
        self._keep(details)

    def addError(self, test, err=None, details=None):  # noqa: N802
        self.failed = True
        self._keep(details)

    addFailure = addError  # noqa: N815

    def _keep(self, details):
        self.details = {name: content.as_text() for name, content in (details or {}).items()}


def run(seed, mutant=None):
    """Take one walk."""
    test, result = walk.Walk("walk"), Result()
    test.seed, test.mutant = seed, mutant
    test.run(result)
    return result


def tell(text):
    """Print it at once, in one piece: another process prints too."""
    STDOUT.write(f"{text}\n")
    STDOUT.flush()


def take(seed):
    """Take a walk and tell of it; whether it went well."""
    begin = time.monotonic()
    result = run(seed)
    end = "FAILED" if result.failed else "ok"
    lines = [f"walk {seed}: {walk.STEPS} steps, {time.monotonic() - begin:.0f} s, {end}"]
    if result.failed or os.environ.get("VPMEM_VERBOSE"):
        lines.append(result.details.get("walk") or "\n".join(result.details.values()))
    if result.failed:
        log = pathlib.Path(f"walk-{seed}.log").resolve()
        log.write_text("\n".join(result.details.values()), encoding="utf-8")
        lines.append(f"  Nova's log: {log}")
    tell("\n".join(lines))
    return not result.failed


def find(mutant, seeds):
    """Walk with a mistake until it is found, and tell where, and what the oracle said; whether it was found."""
    begin, where, what, others = time.monotonic(), f"none of {len(seeds)} walks", "", []
    for seed in seeds:
        result = run(seed, mutant)
        story = result.details.get("walk", "")
        # Only what the oracle says counts.
        if result.failed and (found := re.search(r"(walk \d+, step \d+): Wrong: (.*)", story)):
            where, what = found.groups()
            break
        if result.failed:
            others.append(f"walk {seed} failed otherwise: {' '.join(story.split()) or list(result.details.values())}")
    tell("\n".join([*others, f"| {mutant:31} | {where} | {time.monotonic() - begin:.0f} | {what} |"]))
    return bool(what)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutant", action="append")
    parser.add_argument("seeds", type=int, nargs="+")
    arguments = parser.parse_args()
    if arguments.mutant:
        went_well = [find(mutant, arguments.seeds) for mutant in arguments.mutant]
    else:
        went_well = [take(seed) for seed in arguments.seeds]
    return 0 if all(went_well) else FAILED


if __name__ == "__main__":
    sys.exit(main())
