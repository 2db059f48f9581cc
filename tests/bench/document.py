"""Puts the tables of a run into doc/performance.md: ``python -m bench.document FILE``, which --output has written."""

import json
import pathlib
import re
import sys

DOCUMENT = pathlib.Path(__file__).parents[2] / "doc/performance.md"
_UNITS = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


class Run:
    """The figures and verdicts of one run."""

    def __init__(self, results: dict) -> None:
        self._figures = results["figures"]
        self._targets = results["targets"]

    def table(self, row: str) -> str:
        """The Markdown table of a row."""
        cases = dict.fromkeys(name.split("/")[1] for name in self._figures if name.split("/")[0] == row)
        lines = ["| | ours | others | limit | target: ratio |", "|---|---|---|---|---|"]
        for case in cases:
            kinds = [name.split("/")[2] for name in self._figures if name.startswith(f"{row}/{case}/")]
            others = [f"{kind} {self._text(row, case, kind)}" for kind in kinds if kind not in {"ours", "limit"}]
            cells = (self._text(row, case, "ours"), "; ".join(others), self._text(row, case, "limit"))
            lines.append(f"| {case} | {' | '.join(cells)} | {'; '.join(self._verdicts(row, case))} |")
        return "\n".join(lines)

    def _text(self, row: str, case: str, kind: str) -> str:
        found = self._figures.get(f"{row}/{case}/{kind}")
        if found is None:
            return ""
        figure = found["figure"]
        if found["unit"] != "second":
            return f"{figure:.0f}"
        size, unit = next((size, unit) for size, unit in _UNITS if figure >= size)
        return f"{figure / size:.3g} {unit}"

    def _verdicts(self, row: str, case: str) -> list[str]:
        return [
            f"{one['target']}: {'not measured' if one['ratio'] is None else format(one['ratio'], '.3g')}"
            + ("" if one["met"] else ", **missed**")
            for one in self._targets
            if (one["row"], one["case"]) == (row, case)
        ]


def main() -> None:
    """Replace the table behind each mark ``<!-- bench: ROW -->``."""
    run = Run(json.loads(pathlib.Path(sys.argv[1]).read_text()))
    text = DOCUMENT.read_text()
    marked = re.compile(r"(<!-- bench: (\S+) -->\n)(?:\|.*\n)*")
    DOCUMENT.write_text(marked.sub(lambda match: f"{match[1]}{run.table(match[2])}\n", text))


if __name__ == "__main__":
    main()
