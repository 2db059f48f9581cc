"""Fixtures of the tests of discovery."""

import pathlib

import pytest

from tests.unit.discovery import hosts


@pytest.fixture(params=[hosts.NdctlHost, hosts.SysfsHost, hosts.DirectoryHost], ids=["ndctl", "sysfs", "directory"])
def host(request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> hosts.Host:
    """One made-up host as each kind of discovery sees it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return request.param(tmp_path)


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> hosts.Tree:
    """An empty sysfs."""
    return hosts.Tree(tmp_path / "sys")
