"""Processes that the commands start: nothing of the caller's working directory or open files gets into them."""

import os
import pathlib
import select
import subprocess
import sys

import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from tests.functional.test_cli import refused, vpmem, vpmem_json  # noqa: F401  fixtures
from tests.waiting import wait_until

PROGRAM = pathlib.Path(sys.executable).with_name("vpmem")
DEADLINE_SECONDS = 30

#: Modules that every command imports, of this package, of others and of the standard library.
PLANTED = ("vpmem_driver", "cliff", "argparse", "msgspec", "sqlite3")

#: A wipe that waits until it is let go, and then fails. It tells who has started it.
_WAITING = """
echo $PPID > {told}.new && mv {told}.new {told}
cat {gate}
"""


def has_ended(pid):
    """Gone, or a zombie that the first process of a container does not wait for."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def planted(tmp_path):
    """A directory that others may write, with their modules in it; each leaves its name in the file ``ran``."""
    directory = tmp_path / "planted"
    directory.mkdir()
    for name in PLANTED:
        package = directory / name
        package.mkdir()
        (package / "__init__.py").write_text(f"open({str(directory / 'ran')!r}, 'a').write({name!r} + ' ')\n")
    return directory


def ran(planted):
    return (planted / "ran").read_text() if (planted / "ran").exists() else ""


def run(planted, *words):
    return subprocess.run([PROGRAM, *words], cwd=planted, capture_output=True, text=True, check=False, timeout=120)


def test_release_ran_modules_of_the_working_directory(host, planted, vpmem_json):  # noqa: F811
    owner = new_owner()
    (claimed,) = vpmem_json("claim", owner, "SMALL")
    fill(pathlib.Path(claimed["device"]))
    done = run(planted, "--config-file", "../vpmem.conf", "release", owner)
    assert done.returncode == 0, done.stderr
    show = ("namespace", "show", claimed["name"])
    wait_until(lambda: ran(planted) or vpmem_json(*show)["state"] == "clean", "the background wipe")
    assert ran(planted) == ""
    assert is_zero(pathlib.Path(claimed["device"]))


def test_demo_ran_modules_of_the_working_directory(planted):
    done = run(planted, "demo")
    assert ran(planted) == ""
    assert done.returncode == 0, done.stderr


@pytest.fixture
def waiting_wipe(host, tmp_path):
    """A wipe that waits; returns the file in which it tells the process that has started it."""
    gate, told, script = tmp_path / "gate", tmp_path / "told", tmp_path / "waiting.sh"
    os.mkfifo(gate)
    script.write_text(_WAITING.format(gate=gate, told=told))
    host.options["wipe_command"] = f"sh {script}"
    yield told
    with gate.open("w"):
        pass
    wait_until(lambda: has_ended(int(told.read_text())), "the end of the background wipe")


def test_a_wipe_in_the_background_kept_the_callers_open_files(host, vpmem_json, waiting_wipe, tmp_path):  # noqa: F811
    """As in ``(flock 9; vpmem release …) 9>lock``: the lock was held until the wipe was done."""
    owner = new_owner()
    host.options.pop("wipe_command")
    vpmem_json("claim", owner, "SMALL")
    host.options["wipe_command"] = f"sh {tmp_path / 'waiting.sh'}"
    reader, writer = os.pipe()
    words = [PROGRAM, "--config-file", host.config_file(), "release", owner]
    subprocess.run(words, check=True, capture_output=True, pass_fds=[writer], timeout=60)
    os.close(writer)
    wait_until(waiting_wipe.exists, "the background wipe")
    ready, _, _ = select.select([reader], [], [], 5)
    process = f"/proc/{waiting_wipe.read_text().strip()}"
    try:
        assert ready, f"it has {os.listdir(process + '/fd')}"
        assert os.read(reader, 1) == b""
        assert os.readlink(f"{process}/cwd") == "/"
    finally:
        os.close(reader)


def test_a_relative_state_path_was_another_ledger_in_each_working_directory(host, refused, monkeypatch, tmp_path):  # noqa: F811
    """The wipe in the background has another working directory than the command that starts it."""
    monkeypatch.chdir(tmp_path)
    host.options["state_path"] = "relative"
    err = refused(2, "namespace", "list")
    assert "state_path" in err
    assert not (tmp_path / "relative").exists()
