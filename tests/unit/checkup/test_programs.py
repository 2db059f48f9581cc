"""Programs and versions."""

import platform

import pytest

from tests.unit.checkup.conftest import levels
from vpmem_driver.checkup import programs
from vpmem_driver.checkup.host import Host

QEMU = f"qemu-system-{platform.machine()}"


def test_versions(made):
    made.programs = {"ndctl --version": "76.1\n", "daxctl --version": "81\n"}
    assert [found.message for found in programs.ndctl(made, "ndctl")] == ["version 76.1", "version 81"]


@pytest.mark.parametrize(
    ("discovery", "expected"),
    [("ndctl", ["failure", "warning"]), ("sysfs", ["warning", "warning"]), ("directory", [])],
)
def test_programs_that_are_missing(made, discovery, expected):
    assert levels(programs.ndctl(made, discovery)) == expected


def test_stores():
    (found,) = programs.libpmem()
    assert found.message.startswith("wipes use ")


def qemu(made, *, nvdimm=True, pmem=True):
    made.programs = {
        f"{QEMU} --version": "QEMU emulator version 7.2.22 (Debian)\nCopyright\n",
        f"{QEMU} -device help": 'name "nvdimm", desc "DIMM memory module"\n' if nvdimm else 'name "pc-dimm"\n',
        f"{QEMU} -object memory-backend-file,help": "  pmem=<bool>\n" if pmem else "  share=<bool>\n",
    }


def test_a_qemu_with_everything(made):
    qemu(made)
    found = list(programs.qemu(made, pmem=True))
    assert levels(found) == ["ok", "ok"]
    assert found[0].message == "QEMU emulator version 7.2.22 (Debian)"


def test_a_qemu_without_libpmem(made):
    qemu(made, pmem=False)
    assert levels(programs.qemu(made, pmem=True)) == ["ok", "failure"]
    assert levels(programs.qemu(made, pmem=False)) == ["ok", "ok"]


def test_a_qemu_without_nvdimms(made):
    qemu(made, nvdimm=False)
    _, found, _ = programs.qemu(made, pmem=True)
    assert (str(found.level), found.message) == ("failure", f"{QEMU} has no NVDIMM device")


def test_a_qemu_that_lists_no_options(made):
    qemu(made)
    del made.programs[f"{QEMU} -object memory-backend-file,help"]
    assert levels(programs.qemu(made, pmem=True)) == ["ok", "unseen"]


def test_no_qemu(made):
    assert levels(programs.qemu(made, pmem=True)) == ["warning"]


@pytest.mark.parametrize("script", ["exit 1", "kill -9 $$", "exec sleep 60"])
def test_a_program_that_fails_or_hangs(tmp_path, monkeypatch, script):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("vpmem_driver.checkup.host.LIMIT_SECONDS", 0.3)
    assert Host().run(str(program)) is None
    assert Host().run(str(tmp_path / "absent")) is None
    assert Host().run("echo", "x") == "x\n"
