"""Which paths lead to the same file or device, whatever they are called."""

import os
import stat
import subprocess

import pytest

from vpmem_driver import hostpaths

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and make device nodes")


@pytest.fixture
def directory(tmp_path):
    made = tmp_path / "pmem" / "node0"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def file(directory):
    path = directory / "ns0"
    path.write_bytes(b"x")
    return path


@pytest.fixture
def bind():
    mounted = []

    def mount(what, where):
        if what.is_dir():
            where.mkdir(parents=True)
        else:
            where.touch()
        subprocess.run(["mount", "--bind", what, where], check=True)
        mounted.append(where)
        return where

    yield mount
    for where in reversed(mounted):
        subprocess.run(["umount", where], check=True)


def reached(wanted, path):
    return list(hostpaths.Wanted([str(wanted)]).reached_from(str(path)))


def test_a_file_by_its_name_a_link_and_a_hard_link(file, tmp_path):
    link, hard_link = tmp_path / "link", tmp_path / "hard-link"
    link.symlink_to(file)
    hard_link.hardlink_to(file)
    for path in (file, link, hard_link, f"{file.parent}/../node0/ns0"):
        assert reached(file, path) == [str(file)]
        assert reached(path, file) == [str(path)]
    (tmp_path / "other").write_bytes(b"x")
    assert reached(file, tmp_path / "other") == []


@as_root
def test_a_file_by_a_bind_mount(file, bind, tmp_path):
    assert reached(file, bind(file, tmp_path / "file")) == [str(file)]
    assert reached(file, bind(file.parent, tmp_path / "directory") / "ns0") == [str(file)]


@as_root
def test_a_device_by_another_node(tmp_path):
    nodes = []
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        nodes += [tmp_path / f"{kind}-{name}" for name in ("one", "two")]
        for node in nodes[-2:]:
            os.mknod(node, kind | 0o600, os.makedev(250, 7))
    assert [reached(nodes[0], node) for node in nodes] == [[str(nodes[0])], [str(nodes[0])], [], []]
    assert [reached(nodes[2], node) for node in nodes] == [[], [], [str(nodes[2])], [str(nodes[2])]]


def test_a_directory_that_holds_a_file(file, tmp_path):
    for directory in (file.parent, file.parent.parent, tmp_path, "/"):
        assert reached(file, directory) == [str(file)]
    (tmp_path / "other").mkdir()
    assert reached(file, tmp_path / "other") == []
    assert reached(tmp_path / "nowhere", tmp_path) == []


@as_root
def test_a_directory_that_holds_a_file_by_a_bind_mount(file, bind, tmp_path):
    outer = tmp_path / "a shared\tdirectory"  # mountinfo escapes these
    inner = bind(file.parent.parent, outer / "of host" / "pmem")
    for directory in (inner / "node0", inner, inner.parent, outer):
        assert reached(file, directory) == [str(file)]
    other = bind(tmp_path / "pmem", tmp_path / "again")
    assert reached(other / "node0" / "ns0", outer) == [str(other / "node0" / "ns0")]


@as_root
def test_a_file_that_is_hidden_by_a_mount_is_not_in_the_directory(file, bind, tmp_path):
    outer = tmp_path / "outer"
    inner = bind(file.parent, outer / "pmem")
    (tmp_path / "empty").mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "empty", inner], check=True)
    assert reached(file, outer) == []
    subprocess.run(["umount", inner], check=True)
    assert reached(file, outer) == [str(file)]


def test_a_directory_that_may_hold_a_hard_link(file, tmp_path):
    """Where the other name is cannot be looked up; in doubt the guest can reach it."""
    (tmp_path / "other").mkdir()
    (tmp_path / "third").mkdir()
    (tmp_path / "other" / "name").hardlink_to(file)
    assert reached(file, tmp_path / "third") == [str(file)]


@as_root
def test_a_device_node_in_a_directory_is_no_device_of_the_guest(tmp_path):
    os.mknod(tmp_path / "dax0.0", stat.S_IFCHR | 0o600, os.makedev(250, 7))
    assert reached(tmp_path / "dax0.0", tmp_path) == []


@as_root
def test_the_disk_that_a_filesystem_is_on(file, tmp_path):
    disk = tmp_path / "disk"
    os.mknod(disk, stat.S_IFBLK | 0o600, file.stat().st_dev)
    assert reached(file, disk) == [str(file)]


def test_a_path_that_leads_nowhere_is_compared_by_its_text(tmp_path):
    gone, link = tmp_path / "gone", tmp_path / "link"
    link.symlink_to(gone)
    assert reached(gone, gone) == [str(gone)]
    assert reached(gone, link) == [str(gone)]
    assert reached(gone, tmp_path / "other") == []


def test_a_loop_of_links_raised(tmp_path):
    """RuntimeError, from pathlib's resolve()."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    assert reached(one, one) == [str(one)]
    assert reached(tmp_path / "ns0", one) == []


@pytest.mark.parametrize("path", ["", "/\0", "/\ud800", "/" + "x" * 5000, "/" + "x/" * 5000])
def test_what_can_be_no_path(file, path):
    assert reached(file, path) == []
    assert reached(path, file) == []


def test_many_at_once(directory, tmp_path):
    names = [directory / f"ns{number}" for number in range(3)]
    for name in names:
        name.touch()
    wanted = hostpaths.Wanted([*map(str, names), str(names[0])])
    assert list(wanted.reached_from(str(directory))) == [str(name) for name in names]
    assert list(wanted.reached_from(str(names[1]))) == [str(names[1])]
