"""How Python is started: in one way, everywhere in the package."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import vpmem_driver
from vpmem_driver import interpreter

PACKAGE = pathlib.Path(vpmem_driver.__file__).parent

#: What starts a process, or names the program that would be started.
_STARTS = ("exec", "fork", "popen", "posix_spawn", "spawn", "startfile", "system")
_MODULES = {"multiprocessing", "pty", "runpy", "subprocess"}

#: The places that start processes, and how: each with a program that is no Python, or with a command line of
#: :mod:`vpmem_driver.interpreter`.
ALLOWED = {
    ("checkup/host.py", "subprocess.run"),  # ndctl, daxctl, qemu-system-ARCH
    ("cli/archives.py", "subprocess.run"),  # qemu-img
    ("cli/detached.py", "subprocess.Popen"),
    ("cli/demo.py", "subprocess.run"),
    ("cli/reconcile.py", "subprocess.run"),
    ("discovery/ndctl.py", "subprocess.run"),
    ("discovery/poison.py", "subprocess.run"),  # cxl
    ("planning/provision.py", "subprocess.run"),  # ndctl
    ("pool/media.py", "subprocess.run"),  # ndctl
    ("interpreter.py", "sys.executable"),
    ("nova/installation.py", "sys.executable"),  # in a message
    ("worker/privileged.py", "os.execve"),  # itself again, with -I and no environment
    ("worker/privileged.py", "sys.executable"),
    ("engine/process.py", "subprocess.Popen"),
    ("transfer/connection.py", "subprocess.Popen"),  # ssh
    ("transfer/file_process.py", "subprocess.Popen"),
}

#: Constants and exceptions, which start nothing.
_HARMLESS = {"CalledProcessError", "DEVNULL", "PIPE", "STDOUT", "SubprocessError", "TimeoutExpired"}


def _uses(tree):
    """Whatever a module has of what starts processes, by its full name; another name for it counts as well."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name.startswith(_STARTS):
                yield f"os.{name}"
            case ast.Attribute(value=ast.Name(id="sys"), attr="executable" | "_base_executable" as name):
                yield f"sys.{name}"
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in _MODULES and name not in _HARMLESS:
                yield f"{module}.{name}"
            case ast.ImportFrom(module=module) if module in {"os", "sys", *_MODULES}:
                yield from (f"{module}.{alias.name}" for alias in node.names if module in _MODULES or _names(alias))
            case ast.Import(names=names):
                renamed = [alias.name for alias in names if alias.asname is not None]
                yield from (f"{name} as" for name in renamed if name in {"os", "sys", *_MODULES})


def _names(alias):
    return alias.name == "executable" or alias.name.startswith(_STARTS)


def test_python_was_started_in_more_than_one_way():
    """With ``-m`` alone, what lies in the working directory is imported."""
    found = {
        (str(path.relative_to(PACKAGE)), name)
        for path in PACKAGE.rglob("*.py")
        for name in _uses(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == ALLOWED


@pytest.mark.parametrize("entry", ["", ".", "relative", "../elsewhere"])
def test_a_relative_entry_of_the_path_does_not_reach_a_child(monkeypatch, entry):
    monkeypatch.setattr(sys, "path", [entry, "/trusted"])
    assert interpreter.search_path().split(":") == ["/trusted", str(PACKAGE.parent)]


def test_the_working_directory_does_not_reach_a_child(monkeypatch, tmp_path):
    """Python started with ``-m`` has it in its path by its absolute name; a link to it is the same."""
    directory, link = tmp_path / "directory", tmp_path / "link"
    directory.mkdir()
    link.symlink_to(directory)
    monkeypatch.chdir(directory)
    monkeypatch.setattr(sys, "path", [str(directory), str(link), "/trusted", "/trusted"])
    assert interpreter.search_path().split(":") == ["/trusted", str(PACKAGE.parent)]
    directory.rmdir()
    assert interpreter.search_path().split(":") == [str(directory), str(link), "/trusted", str(PACKAGE.parent)]


def test_variables_of_python_do_not_reach_a_child(monkeypatch):
    monkeypatch.setenv("PYTHONSTARTUP", "/planted.py")
    monkeypatch.setenv("PYTHONHOME", "/planted")
    monkeypatch.setenv("OS_VPMEM__DISCOVERY", "sysfs")
    environment = interpreter.environment()
    assert [name for name in environment if name.startswith("PYTHON")] == ["PYTHONPATH"]
    assert environment["OS_VPMEM__DISCOVERY"] == "sysfs", "a wipe in the background is configured as its command was"


@pytest.mark.parametrize("site", [True, False])
def test_a_child_imports_from_where_this_process_does(monkeypatch, tmp_path, site):
    """Also where the package is not installed for the interpreter: for one user, or by PYTHONPATH."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "installed_here.py").write_text("import vpmem_driver, sys; print(sys.argv[1])\n")
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "installed_here.py").write_text("print('planted')\n")
    monkeypatch.syspath_prepend(tmp_path / "ours")
    monkeypatch.chdir(tmp_path / "cwd")
    words = interpreter.command("installed_here", "found", site=site)
    assert subprocess.check_output(words, env=interpreter.environment(), text=True) == "found\n"
    assert os.getcwd() == str(tmp_path / "cwd")
