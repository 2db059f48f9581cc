"""Nova and rootwrap."""

import importlib.metadata
import importlib.util

import pytest
from oslo_config import cfg

from tests.unit.checkup.conftest import levels
from vpmem_driver.checkup import nova

COMMAND = "sudo nova-rootwrap /etc/nova/rootwrap.conf vpmem-wipe"
OURS = "vpmem.VPMEMLibvirtDriver"


@pytest.fixture
def installed(monkeypatch):
    """Nova 34 with the driver."""

    def change(version="34.0.0", *, driver=True):
        def of(name):
            if version is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return version

        monkeypatch.setattr(importlib.metadata, "version", of)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if driver else None)

    change()
    return change


def test_a_good_installation(installed):
    assert levels(nova.version(OURS)) == ["ok", "ok"]


@pytest.mark.parametrize("version", ["30.0.0", "35.0.0", "x"])
def test_a_version_that_is_not_tested(installed, version):
    installed(version)
    first, _ = nova.version(OURS)
    assert (str(first.level), first.id) == ("warning", "VPMEM-C14")
    assert "31 to 34" in first.message


def test_another_driver(installed):
    _, found = nova.version("libvirt.LibvirtDriver")
    assert found.message == f"it is libvirt.LibvirtDriver, not {OURS}"


def test_a_driver_that_nova_does_not_find(installed):
    installed(driver=False)
    assert levels(nova.version(OURS)) == ["ok", "failure"]


def test_a_python_without_nova(installed):
    installed(None)
    assert levels(nova.version(OURS)) == ["warning"]


def test_the_driver_of_the_configuration(tmp_path):
    file = tmp_path / "nova.conf"
    file.write_text("[DEFAULT]\ncompute_driver = vpmem.VPMEMLibvirtDriver\n")
    for words, expected in (([f"--config-file={file}"], OURS), ([], None)):
        conf = cfg.ConfigOpts()
        conf(words, default_config_files=[])
        assert nova.configured_driver(conf) == nova.configured_driver(conf) == expected


def rootwrap(made):
    made.write(
        "/etc/nova/rootwrap.conf", "[DEFAULT]\nfilters_path=/etc/nova/rootwrap.d\nexec_dirs=/usr/sbin,/opt/bin\n"
    )
    made.write("/etc/nova/rootwrap.d/vpmem.filters", "[Filters]\nvpmem-wipe: CommandFilter, vpmem-wipe, root\n")
    made.write("/opt/bin/vpmem-wipe")


def test_a_good_rootwrap(made):
    rootwrap(made)
    (found,) = nova.wipe_command(made, COMMAND)
    assert found.message == "rootwrap allows /opt/bin/vpmem-wipe"


@pytest.mark.parametrize(
    ("path", "text", "level", "said"),
    [
        ("/etc/nova/rootwrap.d/vpmem.filters", None, "failure", "no filter in /etc/nova/rootwrap.d allows vpmem-wipe"),
        ("/opt/bin/vpmem-wipe", None, "failure", "vpmem-wipe is in none of /usr/sbin, /opt/bin (exec_dirs)"),
        ("/etc/nova/rootwrap.conf", None, "unseen", "/etc/nova/rootwrap.conf cannot be read"),
        ("/etc/nova/rootwrap.conf", "filters_path=x\n", "failure", "cannot be parsed: MissingSectionHeaderError"),
        ("/etc/nova/rootwrap.conf", "[DEFAULT]\n", "failure", "no filter in filters_path allows vpmem-wipe"),
    ],
)
def test_a_rootwrap_that_does_not_let_wipes_start(made, path, text, level, said):
    rootwrap(made)
    made.path(path).unlink()
    if text is not None:
        made.write(path, text)
    (found,) = nova.wipe_command(made, COMMAND)
    assert (str(found.level), said in found.message) == (level, True), found


@pytest.mark.parametrize("command", [None, ""])
def test_no_wipe_command(made, command):
    assert list(nova.wipe_command(made, command)) == []


@pytest.mark.parametrize("command", ["sudo vpmem-wipe", "sudo nova-rootwrap"])
def test_a_command_without_rootwrap_is_not_checked(made, command):
    assert levels(nova.wipe_command(made, command)) == ["ok"]
