"""Where the ledger is."""

import os
import types

import pytest

from tests.unit.checkup.conftest import levels
from vpmem_driver import hostpaths
from vpmem_driver.checkup import ledger
from vpmem_driver.sizes import GIB, MIB


@pytest.fixture
def filesystem(monkeypatch):
    state = types.SimpleNamespace(kind="ext4", free=GIB, flags=0)
    monkeypatch.setattr(hostpaths, "filesystem", lambda path: state.kind)
    monkeypatch.setattr(
        os,
        "statvfs",
        lambda path: types.SimpleNamespace(f_bavail=state.free // 4096, f_frsize=4096, f_flag=state.flags),
    )
    return state


def ids(findings):
    return {finding.check: (str(finding.level), finding.id) for finding in findings}


def test_a_good_directory(tmp_path, filesystem):
    assert levels(ledger.directory(tmp_path)) == ["ok", "ok", "ok"]


def test_a_directory_that_does_not_exist_yet(tmp_path, filesystem):
    found = list(ledger.directory(tmp_path / "lib" / "vpmem"))
    assert levels(found) == ["ok", "ok", "ok"]
    assert str(tmp_path) in found[0].message
    assert not (tmp_path / "lib").exists()


@pytest.mark.parametrize("kind", ["overlay", "tmpfs", "ramfs"])
def test_a_filesystem_that_a_new_container_or_a_reboot_loses(tmp_path, filesystem, kind):
    filesystem.kind = kind
    assert ids(ledger.directory(tmp_path))["ledger storage"] == ("warning", "VPMEM-C05")


@pytest.mark.parametrize(("free", "level"), [(MIB, "failure"), (10 * MIB, "warning"), (GIB, "ok")])
def test_room(tmp_path, filesystem, free, level):
    filesystem.free = free
    assert ids(ledger.directory(tmp_path))["ledger space"][0] == level


def test_a_read_only_filesystem(tmp_path, filesystem):
    filesystem.flags = os.ST_RDONLY
    assert ids(ledger.directory(tmp_path))["ledger space"] == ("failure", "VPMEM-C06")


def test_a_directory_that_others_may_write_to(tmp_path, filesystem):
    tmp_path.chmod(0o777)
    assert ids(ledger.directory(tmp_path))["ledger access"] == ("failure", "VPMEM-C07")
    tmp_path.chmod(0o1777)  # as /tmp, in which the directory is still to be made
    assert ids(ledger.directory(tmp_path))["ledger access"] == ("ok", None)
