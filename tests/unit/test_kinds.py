"""The table of kinds of memory in doc/operation.md says what marked tests have proved, and nothing else."""

import importlib
import importlib.util
import inspect
import json
import pathlib

import pytest

from tests import proofs

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools" / "write_kinds.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def proved():
    return json.loads((ROOT / "doc/kinds.json").read_text(encoding="utf-8"))


def marked_tests():
    """All marked tests, as their runs are recorded, with their marks."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if "\n@proves(" in (text := path.read_text(encoding="utf-8")) or "\n    @proves(" in text:
            place = path.relative_to(ROOT)
            module = importlib.import_module(".".join(place.with_suffix("").parts))
            classes = [each for each in vars(module).values() if inspect.isclass(each)]
            for test in [found for each in (module, *classes) for found in vars(each).values()]:
                for mark in proofs.marks_of(test):
                    yield f"{place}::{test.__qualname__.replace('.', '::')}", mark


def test_every_cell_has_a_test_that_is_marked_for_it():
    marked = {(kind, cell) for _, (kind, cell, _) in marked_tests()}
    assert marked == {(kind, cell) for kind in proofs.KINDS for cell in proofs.CELLS}


def test_a_cell_says_what_its_tests_are_marked_for(proved):
    marks = set(marked_tests())
    for kind, cells in proved.items():
        for cell, found in cells.items():
            assert found["tests"]
            for name in found["tests"]:
                assert (name, (kind, cell, found["no"])) in marks


def test_the_document_has_the_table(tool, proved):
    (written,) = tool._TABLE.findall((ROOT / "doc/operation.md").read_text(encoding="utf-8"))
    assert written == tool.table(proved)


def line(kind, cell, test, no=None):
    return json.dumps({"kind": kind, "cell": cell, "no": no, "test": test})


def test_runs_are_joined(tool):
    first = tool.join({}, [line("cxl", "wipe", "a"), line("cxl", "wipe", "a"), line("cxl", "wipe", "b")])
    assert first["cxl"] == {"wipe": {"no": None, "tests": ["a", "b"]}}
    again = tool.join(first, [line("cxl", "wipe", "c", "broken"), line("devdax", "claim", "d")])
    assert again["cxl"] == {"wipe": {"no": "broken", "tests": ["c"]}}
    assert again["devdax"] == {"claim": {"no": None, "tests": ["d"]}}


def test_what_contradicts_itself_is_refused(tool):
    with pytest.raises(ValueError, match="cxl, wipe: .* differ"):
        tool.join({}, [line("cxl", "wipe", "a"), line("cxl", "wipe", "b", "broken")])


def test_a_cell_without_a_test_does_not_say_yes(tool):
    rows = tool.table({"cxl": {"wipe": {"no": None, "tests": ["a"]}, "NUMA": {"no": "none", "tests": ["b"]}}})
    words = [word.strip() for word in rows.splitlines()[4].split("|")[2:-1]]
    assert words == [{"wipe": "yes", "NUMA": "no (1)"}.get(cell, "unknown") for cell in proofs.CELLS]
    assert rows.splitlines()[-1] == "* (1) none"


def test_a_mark_is_recorded_only_when_its_test_passes(tmp_path, monkeypatch):
    file = tmp_path / "proofs"
    monkeypatch.setenv("VPMEM_PROOFS", str(file))

    @proofs.proves("wipe", kinds=("cxl",), no="broken")
    @proofs.proves("claim", kinds=("cxl", "devdax"))
    def try_it(fails):
        assert not fails

    with pytest.raises(AssertionError):
        try_it(fails=True)
    assert not file.exists()
    try_it(fails=False)
    recorded = [json.loads(text) for text in file.read_text().splitlines()]
    assert [(one["kind"], one["cell"], one["no"]) for one in recorded] == proofs.marks_of(try_it)
    assert recorded[0]["test"].startswith("tests/unit/test_kinds.py::")
