"""Breaks the package on purpose, one rule at a time, to show that the torture notices."""

import argparse
import collections
import dataclasses
import pathlib
import shutil
import tempfile
import typing

from tests.torture import crew
from tests.torture.checker import INVARIANTS

FIRST_SEED = 1
#: How many times as long as on an idle machine it may take.
SLOWEST = 20


@dataclasses.dataclass
class Break:
    """One rule that is broken, by patches of files: the lines that are there, and those in their place."""

    name: str
    patches: list[tuple[str, list[str], list[str]]] = dataclasses.field(default_factory=list)

    def apply(self, package: pathlib.Path) -> None:
        """Patch a copy of the package. :raises ValueError: the lines are not there exactly once"""
        for file, old, new in self.patches:
            path = package / "vpmem_driver" / file
            text = path.read_text()
            before, after = ("\n".join([*lines, ""]) for lines in (old, new))
            if text.count(f"\n{before}") != 1:
                raise ValueError(f"'{self.name}' does not fit: {file} has this {text.count(before)} times:\n{before}")
            path.write_text(text.replace(f"\n{before}", f"\n{after}"))


def breaks() -> list[Break]:
    """Those of breaks.txt, which says how it is written."""
    found: list[Break] = []
    for line in pathlib.Path(__file__).with_name("breaks.txt").read_text().splitlines():
        match line[:1]:
            case "=":
                found.append(Break(line[2:]))
            case "@":
                found[-1].patches.append((line[2:], [], []))
            case "-" | "+" | " ":
                _, old, new = found[-1].patches[-1]
                if line[0] != "+":
                    old.append(line[1:])
                if line[0] != "-":
                    new.append(line[1:])
    return found


def run(options: argparse.Namespace) -> int:
    """Print the table. :returns: 1 when a mutant was not caught"""
    chosen = [mutant for mutant in breaks() if not options.mutants or mutant.name in options.mutants]
    seed = FIRST_SEED if options.seed is None else options.seed
    width = max(len(mutant.name) for mutant in chosen)
    missed = 0
    print(f"{'mutant':{width}}  {'cpu':>5}  {'s':>4}  {'kills':>5}  {'seed':>5}  caught by", flush=True)
    for mutant in chosen:
        found = _torture(mutant, seed, options)
        report = found.violations[0] if found.violations else {"seed": ""}
        by = f"{report['check']}: {INVARIANTS[report['check']]}" if found.violations else "NOT CAUGHT"
        if found.unsound:
            counts = collections.Counter(other["check"] for other in found.unsound)
            by += f" (before, and no proof: {', '.join(f'{check} {count}' for check, count in counts.items())})"
        missed += not found.violations
        took = f"{found.cpu / options.jobs:5.1f}  {found.seconds:4.0f}  {found.kills:5}"
        print(f"{mutant.name:{width}}  {took}  {report['seed']:>5}  {by}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


def _torture(mutant: Break, seed: int, options: argparse.Namespace) -> crew.Sum:
    """Torture a package with this break, until it is caught or time is up."""
    with tempfile.TemporaryDirectory(prefix="vpmem-mutant-") as directory:
        package = pathlib.Path(directory)
        shutil.copytree(options.package / "vpmem_driver", package / "vpmem_driver")
        mutant.apply(package)

        def is_proof(report: dict[str, typing.Any]) -> bool:
            return report["check"] in INVARIANTS

        return crew.run(
            package,
            seed,
            jobs=options.jobs,
            rounds=10**6,
            done=lambda found: found.cpu >= options.seconds * options.jobs,
            seconds=options.seconds * SLOWEST,
            is_finding=is_proof,
        )
