"""What ./dev fresh refuses. It makes no tree here: that takes minutes and the network."""

import importlib.util
import json
import pathlib
import sys

import pytest

PATH = pathlib.Path(__file__).parents[2] / "tools" / "fresh.py"
SPEC = importlib.util.spec_from_file_location("fresh", PATH)
fresh = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fresh)


class Machine:
    """Its pip has these packages, before and after the wheel was installed."""

    def __init__(self, before, after):
        self.listings = [before, after]
        self.commands = []

    def copy(self, file, target):
        self.commands.append(("copy", str(file), target))

    def run(self, *command, shown=True):
        self.commands.append(command)
        if "list" not in command:
            return ""
        return json.dumps([{"name": name, "version": version} for name, version in self.listings.pop(0).items()])


def install(before, after):
    machine = Machine(before, after)
    fresh.install_wheel(machine, pathlib.Path("/dist/vpmem_driver-1.whl"))
    return machine.commands


def test_only_wheels_are_installed_and_what_is_new_is_named(capsys):
    commands = install({"nova": "31.0.0", "lxml": "5.4"}, {"nova": "31.0.0", "lxml": "5.4", "msgspec": "1", "a": "2"})
    (pip,) = [command for command in commands if "install" in command]
    assert pip[-3:] == ("--only-binary", ":all:", "/root/vpmem_driver-1.whl")
    assert "pip installed a, msgspec, and replaced nothing" in capsys.readouterr().out


@pytest.mark.parametrize("after", [{"nova": "31.0.0", "lxml": "6.0"}, {"nova": "31.0.0"}])
def test_a_package_of_the_distribution_must_stay(after):
    with pytest.raises(SystemExit, match="replaced packages of the distribution.*lxml"):
        install({"nova": "31.0.0", "lxml": "5.4"}, after)


def test_there_is_no_wheel_yet(monkeypatch, tmp_path):
    monkeypatch.setattr(fresh, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["fresh.py", "trixie"])
    with pytest.raises(SystemExit, match=r"Run './dev wheel' first"):
        fresh.main()


def test_only_debian_is_installed_for_arm64():
    with pytest.raises(SystemExit, match="Debian's releases: bookworm"):
        fresh.require_arm64("noble")


def test_this_kernel_must_run_arm64_programs(monkeypatch, tmp_path):
    monkeypatch.setattr(fresh.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(fresh, "EMULATION", tmp_path / "qemu-aarch64")
    monkeypatch.setattr(fresh.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="Install qemu-user-static and binfmt-support"):
        fresh.require_arm64("bookworm")
    monkeypatch.setattr(fresh.platform, "machine", lambda: "aarch64")
    fresh.require_arm64("bookworm")


@pytest.mark.parametrize("version", ["7.2.22", "10.0.13"])
def test_the_emulator_must_have_the_instructions_that_it_names(monkeypatch, tmp_path, version):
    emulator = tmp_path / "emulator"
    emulator.write_text(f"#!/bin/sh\necho qemu-aarch64 version {version} and more\n")
    emulator.chmod(0o755)
    entry = tmp_path / "entry"
    entry.write_text(f"enabled\ninterpreter {emulator}\nflags: POCF\n")
    monkeypatch.setattr(fresh.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(fresh, "EMULATION", entry)
    if version == "10.0.13":
        fresh.require_arm64("bookworm")
    else:
        with pytest.raises(SystemExit, match=r"is 7\.2, and ends programs with SIGILL at DC CVAP"):
            fresh.require_arm64("bookworm")


def test_the_copy_has_every_source_file():
    if not (PATH.parents[1] / ".git").exists():
        pytest.skip("this is no clone")
    assert {"dev", "pyproject.toml", "tools/fresh.py", "tests/unit/test_fresh.py"} <= set(fresh.sources())
