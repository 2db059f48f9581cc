"""Files as namespaces: what is one, which it is, and what is told of it."""

import contextlib
import dataclasses
import logging
import mmap
import os
import pathlib
import random
import stat
import subprocess
import tempfile
import uuid
from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.unit.discovery import hosts
from vpmem_driver import exception, model
from vpmem_driver.discovery import directory
from vpmem_driver.sizes import MIB


def one(path: pathlib.Path) -> model.Namespace:
    (namespace,) = directory.DirectoryDiscovery(str(path)).namespaces()
    return namespace


def failure(path: pathlib.Path) -> exception.DiscoveryFailed:
    with pytest.raises(exception.DiscoveryFailed) as failed:
        directory.DirectoryDiscovery(str(path)).namespaces()
    assert "(discovery = directory)" in str(failed.value)
    return failed.value


def status(path: pathlib.Path) -> directory.Status:
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        return directory.file_status(path.name, dir_fd=fd)
    finally:
        os.close(fd)


# Values


def test_a_file(tmp_path: pathlib.Path) -> None:
    path = hosts.allocated(tmp_path / hosts.new_name(), pages=3)
    namespace = one(tmp_path)
    assert namespace == model.Namespace(
        uuid=namespace.uuid,
        name=path.name,
        size=3 * mmap.PAGESIZE,
        align=mmap.PAGESIZE,
        numa_node=None,
        mode="file",
        device=str(path),
        pmem=status(path).dax,
    )


def test_on_dax_it_is_pmem_and_aligned_to_huge_pages(tmp_path: pathlib.Path) -> None:
    path = hosts.allocated(tmp_path / hosts.new_name(), pages=2 * MIB // mmap.PAGESIZE)
    on_dax = dataclasses.replace(status(path), dax=True)
    namespace = directory.describe(str(path), on_dax, 5)
    assert (namespace.pmem, namespace.align, namespace.numa_node, namespace.unusable) == (True, 2 * MIB, 5, None)
    size = on_dax.size + mmap.PAGESIZE
    odd = directory.describe(str(path), dataclasses.replace(on_dax, size=size, allocated=size), None)
    assert (odd.pmem, odd.align, odd.unusable) == (True, mmap.PAGESIZE, None)


def test_without_dax_it_is_told_once(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        path = hosts.allocated(tmp_path / hosts.new_name())
    if status(path).dax:
        pytest.skip("the directory for temporary files is on DAX")
    discovery = directory.DirectoryDiscovery(str(tmp_path))
    for _ in range(2):
        discovery.namespaces()
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "no DAX" in warning.message
    assert "<pmem/>" in warning.message
    assert str(tmp_path) in warning.message
    directory.DirectoryDiscovery(str(tmp_path)).namespaces()
    assert len(caplog.records) == 2


def test_nothing_is_told_of_what_is_not_used(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    hosts.no_namespace("sparse", tmp_path / hosts.new_name())
    assert one(tmp_path).unusable
    assert not caplog.records


def test_what_is_looked_at(tmp_path: pathlib.Path) -> None:
    names = ["node", "node00", "node-1", "node1x", "Node0", "node\u0661", "node1234567", ".node0", "other"]
    for name in ["node0", "node7", "node1023", *names]:
        hosts.allocated(tmp_path / name / hosts.new_name())
        (tmp_path / name / "node1").mkdir()
        (tmp_path / name / "lost+found").mkdir()
    found = directory.DirectoryDiscovery(str(tmp_path)).namespaces()
    assert sorted(each.numa_node for each in found if each.name != "node1") == [0, 7, 1023]
    assert {each.unusable for each in found if each.name == "node1"} == {"it is a directory"}


def test_a_node_that_linux_cannot_have_is_unknown(tmp_path: pathlib.Path) -> None:
    hosts.allocated(tmp_path / "node999999" / hosts.new_name())
    assert (one(tmp_path).numa_node, one(tmp_path).unusable) == (None, None)


def test_a_link_to_a_node_directory_is_not_followed(tmp_path: pathlib.Path) -> None:
    hosts.allocated(tmp_path / "elsewhere" / hosts.new_name())
    (tmp_path / "node0").symlink_to("elsewhere")
    assert (one(tmp_path).name, one(tmp_path).uuid, one(tmp_path).size) == ("node0", None, 0)
    assert "symbolic link" in one(tmp_path).unusable


def test_a_node_directory_that_becomes_a_link_meanwhile_is_not_followed(tmp_path: pathlib.Path) -> None:
    hosts.allocated(tmp_path / "elsewhere" / hosts.new_name())
    (tmp_path / "node0").symlink_to("elsewhere")
    with pytest.raises(exception.DiscoveryFailed, match="node0 is not a directory"):
        directory._listed(str(tmp_path / "node0"))


def test_a_file_called_like_a_node_directory(tmp_path: pathlib.Path) -> None:
    hosts.allocated(tmp_path / "node0")
    assert (one(tmp_path).name, one(tmp_path).unusable) == ("node0", None)


def test_two_of_one_name(tmp_path: pathlib.Path) -> None:
    for node in ("node0", "node1"):
        hosts.allocated(tmp_path / node / "same")
    found = directory.DirectoryDiscovery(str(tmp_path)).namespaces()
    assert {(each.name, each.numa_node, each.unusable) for each in found} == {("same", 0, None), ("same", 1, None)}


def test_the_directory_may_be_a_link(tmp_path: pathlib.Path) -> None:
    for target in ("first", "second"):
        hosts.allocated(tmp_path / target / target)
    link = tmp_path / "link"
    link.symlink_to("first")
    discovery = directory.DirectoryDiscovery(str(link))
    assert [each.device for each in discovery.namespaces()] == [str(tmp_path / "first" / "first")]
    link.unlink()
    link.symlink_to("second")
    assert [each.device for each in discovery.namespaces()] == [str(tmp_path / "second" / "second")]
    assert discovery.options() == {"directory": str(link)}


def test_a_relative_directory_is_made_absolute_at_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hosts.allocated(tmp_path / "files" / hosts.new_name())
    monkeypatch.chdir(tmp_path)
    discovery = directory.DirectoryDiscovery("files")
    monkeypatch.chdir("/")
    assert [each.device for each in discovery.namespaces()] == [str(path)]
    assert discovery.options() == {"directory": str(path.parent)}


def test_node_of_a_dax_filesystems_device(tree: hosts.Tree) -> None:
    """Of a whole disk it is in ``device``; a partition is below its disk."""
    node, number = random.randrange(1, 9), random.randrange(1, 99)
    disk = tree.device("nd", "platform/ndbus0/region0/pfn0.0", numa_node=node) / "block" / "pmem0"
    (disk / "pmem0p1").mkdir(parents=True)
    (disk / "device").symlink_to("../..")
    links = tree.root / "dev" / "block"
    links.mkdir(parents=True)
    (links / f"259:{number}").symlink_to(disk)
    (links / f"259:{number + 1}").symlink_to(disk / "pmem0p1")
    discovery = directory.DirectoryDiscovery("/nowhere", sysfs_root=str(tree.root))
    assert [discovery._node_of((259, number + each)) for each in range(3)] == [node, node, None]


def test_without_dax_the_disks_node_is_not_the_memorys(tmp_path: pathlib.Path, tree: hosts.Tree) -> None:
    path = hosts.allocated(tmp_path / "files" / hosts.new_name())
    major, minor = status(path).filesystem
    device = tree.root / "dev" / "block" / f"{major}:{minor}" / "device"
    device.mkdir(parents=True)
    (device / "numa_node").write_text("1\n")
    (namespace,) = directory.DirectoryDiscovery(str(path.parent), sysfs_root=str(tree.root)).namespaces()
    assert namespace.numa_node == (1 if namespace.pmem else None)


# Identity


def test_identity_survives_what_does_not_replace_the_file(tmp_path: pathlib.Path) -> None:
    path = hosts.allocated(tmp_path / "files" / hosts.new_name())
    identity = one(path.parent).uuid
    assert identity == str(uuid.UUID(identity))
    with path.open("r+b") as file:
        file.write(os.urandom(100))
        os.posix_fallocate(file.fileno(), 0, 100 * mmap.PAGESIZE)
    os.utime(path, ns=(1, 1))
    path.chmod(0o600)
    path = path.rename(path.with_name(hosts.new_name()))
    assert one(path.parent).uuid == identity
    (path.parent / "node3").mkdir()
    path.rename(path.parent / "node3" / path.name)
    assert (one(path.parent).uuid, one(path.parent).numa_node) == (identity, 3)


def test_a_replaced_file_is_another_namespace(tmp_path: pathlib.Path) -> None:
    """Or else it would inherit "clean". Filesystems give the same inode number again at once: ext4 does."""
    path = tmp_path / hosts.new_name()
    seen = set()
    for _ in range(8):
        hosts.allocated(path)
        if not status(path).birth:
            pytest.skip("the filesystem for temporary files keeps no birth times")
        seen.add(one(tmp_path).uuid)
        path.unlink()
    assert len(seen) == 8


def test_identity_never_changes() -> None:
    """The ledgers of all hosts know files by it."""
    made = directory.Status(
        mode=stat.S_IFREG,
        links=1,
        inode=131,
        size=4096,
        allocated=4096,
        birth=1_700_000_000_123_456_789,
        dax=False,
        filesystem=(259, 0),
    )
    assert directory.describe("/x", made, None).uuid == str(
        uuid.uuid5(uuid.UUID("9d2f5c1e-6a0b-4f6e-8c57-3f0f6f4a1b92"), "131:1700000000123456789")
    )


def test_a_filesystem_without_birth_times_is_told(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    discovery = directory.DirectoryDiscovery(str(tmp_path))
    for _ in range(2):
        discovery._warn(dataclasses.replace(status(hosts.allocated(tmp_path / "x")), birth=0, dax=True))
    assert ["birth times" in record.message for record in caplog.records] == [True]


# statx


def test_statx_tells_what_stat_tells(tmp_path: pathlib.Path) -> None:
    paths = [hosts.allocated(tmp_path / hosts.new_name()), tmp_path]
    paths += [hosts.no_namespace(kind, tmp_path / hosts.new_name()) for kind in hosts.NOT_FILES]
    for path in paths:
        told, expected = status(path), path.lstat()
        assert (told.mode, told.links, told.inode) == (expected.st_mode, expected.st_nlink, expected.st_ino)
        assert (told.size, told.allocated) == (expected.st_size, expected.st_blocks * 512)
        assert told.filesystem == (os.major(expected.st_dev), os.minor(expected.st_dev))
        born = subprocess.run(["stat", "--format=%W", path], capture_output=True, check=True, text=True).stdout
        assert told.birth // 10**9 == int(born)


def test_statx_where_there_are_no_birth_times() -> None:
    assert status(pathlib.Path("/proc/version")).birth == 0


def test_statx_of_what_is_gone(tmp_path: pathlib.Path) -> None:
    assert status(tmp_path / "gone") is None


def test_statx_fails(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        status(tmp_path / ("x" * 1000))


# Unusable


@pytest.mark.parametrize("kind", hosts.NOT_FILES)
def test_what_is_no_namespace(tmp_path: pathlib.Path, kind: str) -> None:
    (tmp_path / "node0").mkdir()
    path = hosts.no_namespace(kind, tmp_path / "node0" / hosts.new_name())
    namespace = one(tmp_path)
    assert hosts.NOT_FILES[kind] in namespace.unusable
    assert (namespace.name, namespace.device, namespace.pmem) == (path.name, str(path), False)
    regular = kind in {"linked", "empty", "odd", "sparse"}
    assert (namespace.uuid is not None) == regular
    assert namespace.size == (path.lstat().st_size if regular else 0)


def test_devices(tmp_path: pathlib.Path) -> None:
    found = {each.name: each.unusable for each in directory.DirectoryDiscovery("/dev").namespaces()}
    assert found["null"] == "it is a character device"


def test_remedy_for_a_sparse_file_works(tmp_path: pathlib.Path) -> None:
    path = hosts.no_namespace("sparse", tmp_path / f"{hosts.new_name()} it's")
    reason = one(tmp_path).unusable
    assert f"only 0 of its {path.stat().st_size} bytes" in reason
    _, remedy = reason.rsplit("; run '", 1)
    subprocess.run(["sh", "-c", remedy.removesuffix("'")], check=True)
    assert one(tmp_path).unusable is None


def test_a_hole_is_enough(tmp_path: pathlib.Path) -> None:
    path = hosts.allocated(tmp_path / hosts.new_name(), pages=8)
    os.truncate(path, 9 * mmap.PAGESIZE)
    assert "are allocated" in one(tmp_path).unusable


def test_names_that_cannot_be_printed(tmp_path: pathlib.Path) -> None:
    for raw in (b"\xff\xfe", b"two\nlines", b"\x1b[31m"):
        hosts.allocated(pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw)))
    found = directory.DirectoryDiscovery(str(tmp_path)).namespaces()
    assert {each.name for each in found} == {r"\udcff\udcfe", r"two\nlines", r"\x1b[31m"}
    for each in found:
        assert each.device is None
        assert "unprintable" in each.unusable
        str(each).encode()


@hypothesis.given(
    st.builds(
        directory.Status,
        mode=st.sampled_from([stat.S_IFREG | 0o600, stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, 0]),
        links=st.integers(1, 3),
        inode=st.integers(0, (1 << 64) - 1),
        size=st.sampled_from([0, 1, 4096, 2 * MIB, 2 * MIB + mmap.PAGESIZE, 1 << 40]) | st.integers(0, (1 << 63) - 1),
        allocated=st.sampled_from([0, 4096, 2 * MIB, 1 << 40]) | st.integers(0, 1 << 63),
        birth=st.integers(0, 1 << 70),
        dax=st.booleans(),
        filesystem=st.tuples(st.integers(0, 4095), st.integers(0, 1 << 20)),
    )
)
def test_any_status(made: directory.Status) -> None:
    namespace = directory.describe("/some/where", made, None)
    if namespace.unusable is None:
        assert namespace.uuid
        assert namespace.size > 0
        assert namespace.size % namespace.align == 0
        assert namespace.size <= made.allocated
        assert made.links == 1


# The directory itself


def test_it_is_not_there(tmp_path: pathlib.Path) -> None:
    failed = failure(tmp_path / "gone")
    assert f"{tmp_path}/gone does not exist" in str(failed)
    assert "Mount or create it" in str(failed)


def test_it_is_a_dangling_link(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    assert "does not exist" in str(failure(tmp_path / "link"))


def test_it_is_a_loop(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to("link")
    failed = str(failure(tmp_path / "link"))
    assert "is not a directory" in failed or "Too many levels" in failed


def test_it_is_a_file(tmp_path: pathlib.Path) -> None:
    assert "is not a directory" in str(failure(hosts.allocated(tmp_path / "x")))


@pytest.mark.parametrize("where", [".", "node0"])
@pytest.mark.parametrize("mode", [0o000, 0o444], ids=["unlistable", "unsearchable"])
def test_it_may_not_be_read(where: str, mode: int) -> None:
    """Not a shorter list: what one does not see is not what is not there."""
    with tempfile.TemporaryDirectory() as top:  # tmp_path is below directories that are closed to nobody
        closed = pathlib.Path(top) / where
        pathlib.Path(top).chmod(0o755)
        for path in (pathlib.Path(top) / "x", pathlib.Path(top) / "node0" / "x"):
            hosts.allocated(path)
        closed.chmod(mode)
        with nobody():
            failed = failure(pathlib.Path(top))
        closed.chmod(0o755)
    assert "this user may not read" in str(failed)
    assert "Run this as root" in str(failed)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Root reads everything; another user does not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_an_empty_one(tmp_path: pathlib.Path) -> None:
    assert directory.DirectoryDiscovery(str(tmp_path)).namespaces() == ()


def test_find_of_one_whose_subdirectory_is_gone(tmp_path: pathlib.Path) -> None:
    path = hosts.allocated(tmp_path / "node0" / "ns0")
    source = directory.DirectoryDiscovery(str(tmp_path))
    (before,) = source.namespaces()
    path.rename(tmp_path / "ns0")
    (tmp_path / "node0").rmdir()
    now = source.find(before.uuid)
    assert (now.uuid, now.device, now.numa_node) == (before.uuid, str(tmp_path / "ns0"), None)
