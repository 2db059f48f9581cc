"""Write doc/faults.md, the page of all faults, from vpmem_driver.faults.

.tox/test/bin/python tools/write_faults.py
"""

import pathlib

from vpmem_driver import faults

PATH = pathlib.Path(__file__).resolve().parent.parent / "doc" / "faults.md"

_INTRODUCTION = """\
# Faults

Every fault has a stable id. Messages end with it, and `vpmem explain ID` prints the same text as this page.
`tools/write_faults.py` writes this page; do not edit it.

| ids | faults |
|---|---|
| `VPMEM-E…` | errors: a command, the hook or the Nova driver could not do something |
| `VPMEM-N…` | namespaces that need a person: `vpmem status` shows them |
| `VPMEM-C…` | faults of the host: `vpmem host check` finds them |
"""


def page() -> str:
    """Return the page."""
    return "\n".join([_INTRODUCTION, *map(_section, faults.ALL)])


def _section(fault: faults.Fault) -> str:
    title = fault.title[0].upper() + fault.title[1:]
    return f"## {fault.id}\n\n**{title}.** {fault.meaning}\n\nWhat to do: {fault.remedy}\n"


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
