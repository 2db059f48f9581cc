"""What a test proves of a kind of memory: a cell of the table of kinds in doc/operation.md.

A run of marked tests adds a line of JSON for each cell to the file that VPMEM_PROOFS names. ``tools/write_kinds.py``
joins them into doc/kinds.json and writes the table.
"""

import functools
import inspect
import json
import os
import pathlib
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[1]

#: The rows of the table, by the names that tests use.
KINDS = {
    "devdax": "device-dax on NVDIMMs",
    "dax file": "file on a DAX filesystem, as nvdimm",
    "cxl": "device-dax on persistent CXL memory",
    "virtio-pmem": "file on any filesystem, as virtio-pmem",
    "volatile": "volatile device-dax (CXL RAM)",
    "fsdax": "fsdax namespace itself",
}

#: The columns.
CELLS = (
    *("claim", "wipe", "survives guest stop", "survives host reboot", "survives power loss"),
    *("live migration", "cold move", "hot plug", "NUMA"),
)


def proves(*cells: str, kinds: tuple[str, ...], no: str | None = None) -> Callable[[Callable], Callable]:
    """Mark a test that passes only where these cells hold for these kinds.

    A test that is run for one kind after the other has it in its fixture ``life``.

    :param no: why they do not hold: the test shows that
    """

    assert set(cells) <= set(CELLS)
    assert set(kinds) <= set(KINDS)

    def mark(test: Callable) -> Callable:
        path = pathlib.Path(inspect.unwrap(test).__code__.co_filename).resolve().relative_to(ROOT)
        name = f"{path}::{test.__qualname__.replace('.', '::')}"

        @functools.wraps(test)
        def run(*args: object, **kwargs: object) -> None:
            test(*args, **kwargs)
            life = kwargs.get("life")
            for kind in kinds if life is None else {life.kind.name} & set(kinds):
                _record([{"kind": kind, "cell": cell, "no": no, "test": name} for cell in cells])

        run.proved = [*getattr(test, "proved", ()), *((kind, cell, no) for kind in kinds for cell in cells)]
        return run

    return mark


def marks_of(test: Callable) -> list[tuple[str, str, str | None]]:
    """Kind, cell and reason of each mark of a test."""
    return getattr(test, "proved", [])


def _record(lines: list[dict[str, str | None]]) -> None:
    if path := os.environ.get("VPMEM_PROOFS"):
        with open(path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
