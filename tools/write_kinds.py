"""Join what runs of marked tests have proved into doc/kinds.json, and write the table of kinds in doc/operation.md.

``python tools/write_kinds.py [FILE]``: FILE has the lines that tests wrote (tests/proofs.py; .tox/proofs.jsonl). A cell
keeps what an earlier run proved, unless FILE proves it again.
"""

import json
import pathlib
import re
import sys
from collections.abc import Iterable

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.proofs import CELLS, KINDS  # noqa: E402  the line above finds it

PROVED = ROOT / "doc/kinds.json"
DOCUMENT = ROOT / "doc/operation.md"

#: kind -> cell -> {"no": the reason or None, "tests": names}
Proved = dict[str, dict[str, dict]]

_TABLE = re.compile(r"(?<=<!-- written by tools/write_kinds.py -->\n\n)(?:\|.*\n)+(?:\n\* .*\n(?:  .*\n|\* .*\n)*)?")


def join(proved: Proved, lines: Iterable[str]) -> Proved:
    """Return what was proved before, and by these lines.

    :raises ValueError: two tests prove the opposite of each other
    """
    fresh: Proved = {}
    for record in sorted({line.strip() for line in lines}):
        one = json.loads(record)
        cell = fresh.setdefault(one["kind"], {}).setdefault(one["cell"], {"no": one["no"], "tests": []})
        if cell["no"] != one["no"]:
            raise ValueError(f"{one['kind']}, {one['cell']}: {cell['tests']} and {one['test']} differ")
        cell["tests"].append(one["test"])
    return {
        kind: {cell: found for cell in CELLS if (found := (proved.get(kind, {}) | fresh.get(kind, {})).get(cell))}
        for kind in KINDS
    }


def table(proved: Proved) -> str:
    """Return the table, with the reasons of what does not hold below it. What no test proves is unknown."""
    reasons: list[str] = []
    lines = ["| | " + " | ".join(CELLS) + " |", "|---" * (len(CELLS) + 1) + "|"]
    for kind, title in KINDS.items():
        words = [_word(proved.get(kind, {}).get(cell), reasons) for cell in CELLS]
        lines.append(f"| {title} | " + " | ".join(words) + " |")
    notes = [f"* ({number}) {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def _word(cell: dict | None, reasons: list[str]) -> str:
    if cell is None:
        return "unknown"
    if cell["no"] is None:
        return "yes"
    if cell["no"] not in reasons:
        reasons.append(cell["no"])
    return f"no ({reasons.index(cell['no']) + 1})"


def main(path: pathlib.Path = ROOT / ".tox/proofs.jsonl") -> None:
    """Write both files."""
    proved = json.loads(PROVED.read_text(encoding="utf-8")) if PROVED.exists() else {}
    joined = join(proved, path.read_text(encoding="utf-8").splitlines())
    PROVED.write_text(json.dumps(joined, indent=1) + "\n", encoding="utf-8")
    text, count = _TABLE.subn(lambda _: table(joined), DOCUMENT.read_text(encoding="utf-8"))
    if count != 1:
        sys.exit(f"{DOCUMENT} has no table of kinds")
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
