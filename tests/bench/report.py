"""The table on the terminal."""

from collections.abc import Sequence

import pyperf
from bench.rows import LIMIT, OURS, Row, Verdict
from rich import box, console, table

#: What the widest table takes: a narrower terminal wraps it.
WIDTH = 132


class Figures:
    """What was measured, by ``row/case/kind``."""

    def __init__(self, suite: pyperf.BenchmarkSuite, rows: Sequence[Row]) -> None:
        self.benchmarks = {bench.get_name(): bench for bench in suite}
        statistics = {row.name: row.statistic for row in rows}
        self.figures = {
            name: float(statistics[name.partition("/")[0]](bench.get_values()))
            for name, bench in self.benchmarks.items()
        }

    def cases(self, row: Row) -> list[str]:
        """The cases of a row that anybody was measured in, in the order of ours."""
        names = [name.split("/") for name in self.figures]
        return list(dict.fromkeys(case for name, case, _kind in names if name == row.name))

    def peers(self, row: Row, case: str) -> list[str]:
        """Who else was measured in a case."""
        kinds = [name.split("/")[2] for name in self.figures if name.startswith(f"{row.name}/{case}/")]
        return [kind for kind in kinds if kind not in {OURS, LIMIT}]

    def text(self, name: str) -> str:
        """A figure with its unit."""
        return str(self.benchmarks[name].format_value(self.figures[name])) if name in self.figures else "-"


def show(rows: Sequence[Row], measured: Figures, verdicts: Sequence[Verdict]) -> None:
    """Print the table: figures, how many times ours each other one is, and what became of the targets."""
    terminal = console.Console()
    terminal = console.Console(width=max(terminal.width, WIDTH))
    for row in rows:
        terminal.print(f"\n[bold]{row.name}[/]: {row.work}")
        terminal.print(_drawn(row, measured, [verdict for verdict in verdicts if verdict.row == row.name]))
    met = sum(verdict.met for verdict in verdicts)
    print(f"{met} of {len(verdicts)} targets met")


def _drawn(row: Row, measured: Figures, verdicts: Sequence[Verdict]) -> table.Table:
    drawn = table.Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("", OURS, "peer", LIMIT, "target", "ratio", ""):
        drawn.add_column(heading, justify="right" if heading in {OURS, "ratio"} else "left", no_wrap=True)
    for case in measured.cases(row):
        of_case = [verdict for verdict in verdicts if verdict.target.case == case]
        drawn.add_row(
            case,
            measured.text(f"{row.name}/{case}/{OURS}"),
            "\n".join(f"{kind} {_compared(measured, row, case, kind)}" for kind in measured.peers(row, case)),
            _compared(measured, row, case, LIMIT),
            "\n".join(verdict.target.text for verdict in of_case),
            "\n".join("-" if verdict.ratio is None else f"{verdict.ratio:.3g}" for verdict in of_case),
            "\n".join("[green]met[/]" if verdict.met else "[red]missed[/]" for verdict in of_case),
        )
    return drawn


def _compared(measured: Figures, row: Row, case: str, kind: str) -> str:
    """A figure, and how many times ours it is."""
    name = f"{row.name}/{case}/{kind}"
    if name not in measured.figures:
        return ""
    ours = measured.figures.get(f"{row.name}/{case}/{OURS}")
    return measured.text(name) + ("" if ours is None else f" ({measured.figures[name] / ours:.3g} x)")
