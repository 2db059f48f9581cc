"""Cost against the number of namespaces, as SVG."""

import pathlib
from collections.abc import Mapping

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot

#: row -> what the cost is of
DRAWN = {
    "claim": "claim of 2 and release, in memory",
    "discovery": "discovery and matching, JSON in hand",
    "open": "opening a pool",
}


def draw(figures: Mapping[str, float], directory: pathlib.Path) -> None:
    """One drawing for each row that was measured."""
    directory.mkdir(parents=True, exist_ok=True)
    for row, title in DRAWN.items():
        lines = _lines(figures, row)
        if not lines:
            continue
        # Text stays text, and the same figures give the same file.
        with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": row, "font.size": 9}):
            figure, axes = pyplot.subplots(figsize=(6, 3.6))
            for kind, points in lines.items():
                axes.plot(*zip(*sorted(points.items()), strict=True), marker="o", markersize=3, label=kind)
            axes.set(xscale="log", yscale="log", xlabel="namespaces", ylabel="seconds", title=title)
            axes.grid(visible=True, alpha=0.3)
            axes.legend(frameon=False)
            figure.tight_layout()
            figure.savefig(directory / f"{row}.svg", metadata={"Date": None})
            pyplot.close(figure)


def _lines(figures: Mapping[str, float], row: str) -> dict[str, dict[int, float]]:
    """By kind: figure by number of namespaces."""
    lines: dict[str, dict[int, float]] = {}
    for name, figure in figures.items():
        of_row, case, kind = name.split("/")
        if of_row == row and case.isdigit():
            lines.setdefault(kind, {})[int(case)] = figure
    return lines
