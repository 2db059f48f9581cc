"""The compiled modules, and the tools that build and check the release files."""

import importlib.util
import io
import os
import pathlib
import platform
import tarfile
import zipfile

import pytest

from vpmem_driver import _fastalloc, _linux, _pmem

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


def tool(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_wheel, check_wheel = tool("build_wheel"), tool("check_wheel")


@pytest.mark.parametrize("module", [_fastalloc, _linux, _pmem])
def test_a_compiled_module_serves_every_python(module):
    """One that was built for one Python and is still in the tree hides the newer one."""
    assert module.__file__.endswith(".abi3.so"), f"remove {module.__file__} and run this again"


def archive(path, *, seconds, user, names):
    with tarfile.open(path, "w:gz") as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uid, member.uname, member.mode = 3, seconds, user, str(user), 0o600 + user
            file.addfile(member, io.BytesIO(b"abc"))
    return path


def test_a_source_archive_does_not_depend_on_where_and_when_it_was_built(tmp_path):
    first = archive(tmp_path / "first.tar.gz", seconds=1.5, user=1, names=["p/a", "p/b"])
    second = archive(tmp_path / "second.tar.gz", seconds=9e8, user=2, names=["p/b", "p/a"])
    assert first.read_bytes() != second.read_bytes()
    for path in (first, second):
        build_wheel.normalize(path, 10**9)
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as file:
        assert [(member.name, member.mtime, member.mode) for member in file] == [
            ("p/a", 10**9, 0o644),
            ("p/b", 10**9, 0o644),
        ]
        assert file.extractfile("p/b").read() == b"abc"


def test_the_time_of_a_release_can_be_given(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    assert build_wheel.epoch() == 1234567890


def test_without_git_a_release_has_a_fixed_time(monkeypatch, tmp_path):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert build_wheel.epoch() == build_wheel.EARLIEST


def contents():
    """The files of a good wheel."""
    package = TOOLS.parent / "vpmem_driver"
    files = [*package.rglob("*.py"), *package.rglob("*.json"), *package.glob("*.pyi"), package / "py.typed"]
    compiled = {f"vpmem_driver/{path.stem}.abi3.so" for path in package.glob("*.pyx")}
    return compiled | {os.fspath(path.relative_to(TOOLS.parent)) for path in files} | {"nova/virt/vpmem/__init__.py"}


def wheel(tmp_path, names):
    path = tmp_path / "vpmem_driver-1.whl"
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "")
    return path


def test_a_good_wheel(tmp_path):
    check_wheel.check_contents(wheel(tmp_path, contents()))


@pytest.mark.parametrize(
    "stray",
    [
        "tests/unit/files.py",
        "vpmem_driver/_pmem.pyx",
        "vpmem_driver/_pmem.c",
        "nova/__init__.py",
        "nova/virt/__init__.py",
    ],
)
def test_a_wheel_with_a_file_that_no_host_needs(tmp_path, stray):
    with pytest.raises(SystemExit, match="no host needs") as caught:
        check_wheel.check_contents(wheel(tmp_path, contents() | {stray}))
    assert stray in caught.value.code


@pytest.mark.parametrize("absent", ["vpmem_driver/_pmem.abi3.so", "vpmem_driver/cli/main.py", "vpmem_driver/py.typed"])
def test_a_wheel_that_lacks_a_file(tmp_path, absent):
    with pytest.raises(SystemExit, match="lacks") as caught:
        check_wheel.check_contents(wheel(tmp_path, contents() - {absent}))
    assert absent in caught.value.code


def test_the_tags_of_a_good_wheel(tmp_path):
    check_wheel.check_tags(tmp_path / f"vpmem_driver-1.0-cp311-abi3-manylinux_2_34_{platform.machine()}.whl")


@pytest.mark.parametrize(
    "tags", ["cp311-cp311-manylinux_2_34_{}", "cp311-abi3-linux_{}", "cp312-abi3-manylinux_2_34_{}", "py3-none-any"]
)
def test_the_tags_of_a_wheel_that_does_not_install_everywhere(tmp_path, tags):
    with pytest.raises(SystemExit, match="should match"):
        check_wheel.check_tags(tmp_path / f"vpmem_driver-1.0-{tags.format(platform.machine())}.whl")
