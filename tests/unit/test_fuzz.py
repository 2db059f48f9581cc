"""What ./dev fuzz is made of, without atheris: targets that rot, and findings that are missed or cannot be repeated."""

import ast
import json
import pathlib
import random

import pytest
from lxml import etree

from tests.fuzz import finding, mutation, targets
from tests.fuzz.target import Target
from vpmem_driver import exception


class Example(Target):
    """Fails on what has an x in it; refuses what has a y in it."""

    def seeds(self):
        yield b""

    def run(self, data):
        if b"y" in data:
            raise exception.VPMEMError
        if b"x" in data:
            raise ValueError("x")

    def shown(self, data):
        return repr(data)


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_target_takes_its_seeds_and_shows_them_as_python(name: str, tmp_path: pathlib.Path) -> None:
    target = targets.load(name, tmp_path)
    seeds = list(target.seeds())
    assert seeds
    for seed in seeds:
        assert len(seed) <= target.max_bytes
        target.run(seed)
        ast.parse(target.shown(seed))


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_target_mutates_alike_from_the_same_random_numbers(name: str, tmp_path: pathlib.Path) -> None:
    target = targets.load(name, tmp_path)
    seed = next(target.seeds())
    made = {target.mutate(seed, random.Random(number)) for number in range(50)}
    assert len(made) > 10
    assert made == {target.mutate(seed, random.Random(number)) for number in range(50)}


def test_only_untyped_errors_are_findings(tmp_path: pathlib.Path) -> None:
    target = Example(tmp_path)
    assert finding.look(target, b"a") is finding.look(target, b"xy") is None
    found = finding.look(target, b"x")
    assert found is not None
    assert (found.what, found.where.partition(":")[0]) == ("ValueError", "tests/unit/test_fuzz.py")
    assert "ValueError: x" in found.details


def test_time_and_memory_are_limited(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Example(tmp_path)
    monkeypatch.setattr(finding, "CPU_SECONDS", -1.0)
    assert finding.look(target, b"a") == finding.Finding("too slow", "")
    monkeypatch.undo()
    monkeypatch.setattr(finding, "MEMORY_BYTES", -1)
    assert finding.look(target, b"a") == finding.Finding("too much memory", "")


def test_an_input_is_made_small(tmp_path: pathlib.Path) -> None:
    target = Example(tmp_path)
    found = finding.look(target, b"x")
    assert finding.shrink(b"a" * 100 + b"x" + b"b" * 77, lambda data: finding.look(target, data) == found) == b"x"


@pytest.mark.parametrize("value", ["", "a", "[" * 1000 + "]" * 999, "\n\udcff" * 20 + "x", b"\x00\xff" * 99, b"'\""])
def test_an_input_is_shown_short_and_is_the_same_in_python(value: str | bytes) -> None:
    shown = finding.literal(value)
    assert eval(shown) == value  # noqa: S307
    assert len(shown) < 60


def test_changed_json_is_mostly_json_and_may_be_deep() -> None:
    document = json.dumps([{"dev": "region0", "namespaces": [{"dev": "namespace0.0", "size": 1}]}]).encode()
    made = [mutation.json_document(document, random.Random(number), ["name"], 1 << 15) for number in range(500)]
    good = [text for text in made if text is not None and _is_json(text)]
    assert len(good) > 400
    assert max(text.count(b"[") for text in good) > 100


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def test_changed_xml_is_mostly_xml() -> None:
    document = b"<domain><name>n</name><devices><memory model='nvdimm'/></devices></domain>"
    made = [mutation.xml_document(document, random.Random(number), ["cpu"], ["1"], 1 << 15) for number in range(500)]
    parser = etree.XMLParser(resolve_entities=False, recover=True, huge_tree=True)
    good = [text for text in made if text is not None and etree.fromstring(text, parser) is not None]
    assert len(good) > 450
    assert len(set(good)) > 50
