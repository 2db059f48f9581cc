"""Breaks the package on purpose, one rule at a time, to show that the torture notices."""

import argparse
import pathlib
import shutil
import tempfile

from tests.torture import breaks, crew

FIRST_SEED = 1


def run(options: argparse.Namespace) -> int:
    """Print the table. :returns: 1 when a mutant was not caught"""
    chosen = [mutant for mutant in breaks.ALL if not options.mutants or mutant.name in options.mutants]
    seed = FIRST_SEED if options.seed is None else options.seed
    width = max(len(mutant.name) for mutant in chosen)
    missed = 0
    print(f"{'mutant':{width}}  {'caught by':22}  {'s':>5}  {'kills':>5}  seed", flush=True)
    for mutant in chosen:
        with tempfile.TemporaryDirectory(prefix="vpmem-mutant-") as directory:
            package = pathlib.Path(directory)
            shutil.copytree(options.package / "vpmem_driver", package / "vpmem_driver")
            mutant.apply(package)
            found = crew.run(
                package, seed, jobs=options.jobs, rounds=10**6, done=lambda _: False, seconds=options.seconds
            )
        if found.violations:
            check, where = found.violations[0]["check"], found.violations[0]["seed"]
        else:
            check, where, missed = "NOT CAUGHT", "", missed + 1
        print(f"{mutant.name:{width}}  {check:22}  {found.seconds:5.1f}  {found.kills:5}  {where}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0
