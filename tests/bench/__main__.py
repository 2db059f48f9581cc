"""./dev bench: how fast it is, beside Nova's own code for the same work and beside what the machine can do at all.

Each row of the table is work; its kinds are who does it: ours, a peer (nova), the limit. Every kind is measured in
processes of its own, in turn, several times over, all on this machine in this run. What is shown is the fastest of
all values, for what others do on the machine only ever adds (the median where a disk decides). So compare the ratios;
the figures are this machine's.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import pyperf
from bench import plots, report, table
from bench.rows import Row, Verdict, judge
from rich import console, progress

ROOT = pathlib.Path(__file__).parents[2]

EPILOG = """\
examples:
  ./dev bench                        everything: ten minutes on two cores that are idle
  ./dev bench --fast claim wipe      a first look at two rows
  ./dev bench --check                and fail if a target is missed (by hand: a busy machine misses some)
  ./dev bench --output now.json --plots doc/images
  ./dev bench --pyperf before.json claim; …; ./dev bench --pyperf after.json claim
  .tox/bench/bin/python -m pyperf compare_to before.json after.json

rows:
"""


def arguments() -> argparse.Namespace:
    """What the command line says."""
    rows = "\n".join(f"  {row.name:10} {row.work}" for row in table.ROWS.values())
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description=__doc__,
        epilog=EPILOG + rows,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="measure these only, and what they are compared with")
    parser.add_argument("--fast", action="store_true", help="two rounds in place of five, and fewer values in each")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure falls short of its target")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="FILE",
        help="write figures and verdicts as JSON; paths are from the project's directory",
    )
    parser.add_argument("--pyperf", type=pathlib.Path, metavar="FILE", help="write every value, for python -m pyperf")
    parser.add_argument("--plots", type=pathlib.Path, metavar="DIR", help="draw cost against N as SVG")
    parsed = parser.parse_args()
    for name in ("output", "pyperf", "plots"):
        # This runs in a directory of tox's, for which tox rewrites those paths that exist already.
        if (path := getattr(parsed, name)) and not path.exists():
            setattr(parsed, name, ROOT / path)
    if unknown := set(parsed.rows) - set(table.ROWS):
        parser.error(f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(table.ROWS)}")
    return parsed


def chosen(names: Sequence[str]) -> list[Row]:
    """The rows of these names, all if there are none, and those that they are compared with."""
    needed = set(names or table.ROWS)
    for name in list(needed):
        against = [target.against for target in table.ROWS[name].targets]
        needed |= {text.partition("/")[0] for text in against if isinstance(text, str) and "/" in text}
    return [row for row in table.ROWS.values() if row.name in needed]


def measure(rows: Sequence[Row], runs: pathlib.Path, *, fast: bool) -> None:
    """Run all workers, round by round, and have them append to `runs`."""
    rounds, values = (2, 5) if fast else (5, 15)
    steps = [
        (row, kind) for number in range(rounds) for row in rows if number < (row.rounds or rounds) for kind in row.kinds
    ]
    with progress.Progress(console=console.Console(stderr=True)) as bars:
        bar = bars.add_task("", total=len(steps))
        for row, kind in steps:
            bars.update(bar, description=f"{row.name}: {kind}")
            _work(row.name, kind, "--values", str(values), "--warmups", "1", "--append", str(runs))
            bars.advance(bar)


def _work(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "bench.worker", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(words[:2])}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def written(measured: report.Figures, verdicts: Sequence[Verdict]) -> str:
    """The results as JSON."""
    return json.dumps(
        {
            "machine": {
                "cpus": len(os.sched_getaffinity(0)),
                "python": platform.python_version(),
                "machine": platform.machine(),
            },
            "figures": {
                name: {"figure": measured.figures[name], "median": bench.median(), "unit": bench.get_unit()}
                for name, bench in measured.benchmarks.items()
            },
            "targets": [
                {
                    "row": verdict.row,
                    "case": verdict.target.case,
                    "target": verdict.target.text,
                    "ratio": verdict.ratio,
                    "met": verdict.met,
                }
                for verdict in verdicts
            ],
        },
        indent=1,
    )


def main() -> int:
    """Measure, show, and judge."""
    parsed = arguments()
    rows = chosen(parsed.rows)
    with tempfile.TemporaryDirectory() as scratch:
        runs = parsed.pyperf or pathlib.Path(scratch, "runs.json")
        runs.unlink(missing_ok=True)
        measure(rows, runs, fast=parsed.fast)
        measured = report.Figures(pyperf.BenchmarkSuite.load(str(runs)), rows)
    verdicts = [verdict for row in rows for verdict in judge(row, measured.figures)]
    report.show(rows, measured, verdicts)
    if parsed.output:
        parsed.output.write_text(written(measured, verdicts))
    if parsed.plots:
        plots.draw(measured.figures, parsed.plots)
    short = [verdict for verdict in verdicts if not verdict.met]
    return 1 if parsed.check and short else 0


if __name__ == "__main__":
    sys.exit(main())
