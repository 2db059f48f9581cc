"""Every fault has an id of its own, and people find it."""

import importlib.util
import pathlib
import re

import pytest

from tests.unit.test_exception import TREE
from vpmem_driver import exception, faults
from vpmem_driver.cli import main

ROOT = pathlib.Path(__file__).parents[2]
#: Groups of errors, which nothing raises.
GROUPS = {"VPMEMError", "ConfigurationError", "Refused", "HostError"}


def test_every_error_has_an_id_of_its_own():
    ids = {name: cls.__dict__.get("id") for name, cls in TREE.items() if name not in GROUPS}
    assert None not in ids.values(), "give the new class an id, and describe it in vpmem_driver/faults/errors.py"
    assert len(set(ids.values())) == len(ids)
    assert set(ids.values()) == {fault.id for fault in faults.ALL if fault.id.startswith("VPMEM-E")}


def test_nothing_raises_a_group():
    for path in (ROOT / "vpmem_driver").rglob("*.py"):
        assert not re.search(rf"raise (exception\.)?({'|'.join(GROUPS)})\(", path.read_text(encoding="utf-8")), path


def test_ids_are_unique_and_well_formed():
    ids = [fault.id for fault in faults.ALL]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"VPMEM-[ENC][0-9]{2}", name) for name in ids)


@pytest.mark.parametrize("text", ["VPMEM-E12", "vpmem-e12", "E12", " e12 "])
def test_an_id_is_found_however_it_is_written(text):
    assert faults.find(text).id == exception.NamespaceBusy.id == "VPMEM-E12"


@pytest.mark.parametrize("text", ["", "12", "E1", "VPMEM-", "VPMEM-E99", "x" * 10_000])
def test_what_is_no_id(text):
    assert faults.find(text) is None


def test_the_page_is_what_the_package_says():
    path = ROOT / "tools" / "write_faults.py"
    spec = importlib.util.spec_from_file_location("write_faults", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = tool.PATH.read_text(encoding="utf-8")
    assert page == tool.page(), f"run {path}"
    headings = {"#" + heading.lower() for heading in re.findall(r"^## (\S+)$", page, re.MULTILINE)}
    for fault in faults.ALL:
        name, anchor = re.fullmatch(r"(doc/\w+\.md)(#\S+)", fault.anchor).groups()
        assert (ROOT / name).exists()
        assert anchor in headings


@pytest.mark.parametrize("fault", faults.ALL, ids=lambda fault: fault.id)
def test_what_a_remedy_names_exists(fault):
    text = f"{fault.meaning} {fault.remedy}"
    for words in re.findall(r"'vpmem ([^']+)'", text):
        assert any(words.startswith(command) for command in main.COMMANDS), words
    for name, section in re.findall(r"(doc/\w+\.md), section ([^,.:]+)", text):
        assert f"# {section}\n" in (ROOT / name).read_text(encoding="utf-8")
    for sentence in (fault.title, fault.meaning, fault.remedy):
        assert sentence == sentence.strip()
    assert fault.meaning.endswith(".")
    assert fault.remedy.endswith(".")
    assert not fault.title.endswith(".")
