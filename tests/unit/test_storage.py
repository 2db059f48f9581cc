"""A ledger on storage that does not last is warned of."""

import os
import pathlib
import subprocess
import tempfile

import pytest

from vpmem_driver import hostpaths, storage

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


@pytest.fixture
def in_memory():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield pathlib.Path(path)


def test_tmpfs(in_memory, caplog):
    storage.warn_if_lost(in_memory / "ledger.sqlite3")
    (record,) = caplog.records
    assert f"The ledger in {in_memory} is on tmpfs" in record.getMessage()
    assert "Set [vpmem] state_path" in record.getMessage()
    assert "/var/lib/nova" in record.getMessage()


@as_root
def test_the_root_directory_of_a_container(in_memory, caplog):
    """It is an overlay, of any two filesystems."""
    for name in ("lower", "upper", "work", "root"):
        (in_memory / name).mkdir()
    options = f"lowerdir={in_memory}/lower,upperdir={in_memory}/upper,workdir={in_memory}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", in_memory / "root"], check=True)
    try:
        (in_memory / "root" / "vpmem").mkdir()
        storage.warn_if_lost(in_memory / "root" / "vpmem" / "ledger.sqlite3")
    finally:
        subprocess.run(["umount", in_memory / "root"], check=True)
    (record,) = caplog.records
    assert "is on overlay: its content is lost when the container is created again" in record.getMessage()


@as_root
def test_a_volume_of_that_container(in_memory, caplog):
    """The mount at the directory counts, not what the directory would be on without it."""
    volume = in_memory / "volume"
    volume.mkdir()
    subprocess.run(["mount", "--bind", "/sys", volume], check=True)
    try:
        assert hostpaths.filesystem(str(volume)) == "sysfs"
        storage.warn_if_lost(volume / "ledger.sqlite3")
    finally:
        subprocess.run(["umount", volume], check=True)
    assert not caplog.records


def test_the_type_of_a_filesystem_is_known_or_empty():
    assert hostpaths.filesystem("/proc/self") == "proc"
    assert hostpaths.filesystem("/nowhere/at/all") == ""
    storage.warn_if_lost(pathlib.Path("/nowhere/at/all"))
