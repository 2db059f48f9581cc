"""vpmem-status upgrade check: the checks of the host in the form of OpenStack's tools."""

import json
import sys

import pytest

from tests.functional.test_listing import move
from vpmem_driver.checkup import nova, programs, virtualization
from vpmem_driver.checkup.finding import Finding, Level
from vpmem_driver.model import State
from vpmem_driver.nova import status

# oslo.upgradecheck 2.8 uses a constant that prettytable 3.18 warns of
pytestmark = pytest.mark.filterwarnings("ignore:the 'ALL' constant is deprecated:DeprecationWarning")


@pytest.fixture
def upgrade_check(host, capsys, monkeypatch):
    """Run it on a host without faults of this machine; returns exit code and output."""
    for module, names in (
        (virtualization, ("versions", "locked_memory", "pid_namespace")),
        (programs, ("ndctl", "libpmem", "qemu")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *_, **__: [])
    monkeypatch.setattr(nova, "version", lambda _driver: [])

    def run(*words, config=None):
        file = host.config_file()
        file.write_text("[DEFAULT]\ncompute_driver = vpmem.VPMEMLibvirtDriver\n" + file.read_text())
        code = status.main(["--config-file", str(config or file), "upgrade", "check", *words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def sound(host, monkeypatch):
    from vpmem_driver.checkup import devices

    monkeypatch.setattr(devices, "numa", lambda *_: [])  # this machine may have one node


def test_success(upgrade_check, sound):
    code, out, _ = upgrade_check()
    assert code == 0, out
    assert out.count("Result: Success") == 6
    assert [line.split(": ")[1].strip(" |") for line in out.splitlines() if "Check: " in line] == [
        "Kernel",
        "Namespaces",
        "Ledger",
        "Programs",
        "libvirt",
        "Nova",
    ]


def test_warning(upgrade_check, sound, monkeypatch):
    found = Finding(check="Nova", level=Level.WARNING, message="version 35", id="VPMEM-C14")
    monkeypatch.setattr(nova, "version", lambda _driver: [found])
    code, out, _ = upgrade_check()
    assert code == 1
    assert "Details: Nova: version 35 (VPMEM-C14)" in out


def test_failure(host, upgrade_check, sound):
    host.pool()
    move(host, "large0", State.DIRTY, State.QUARANTINED, reason="byte 4096 is not zero")
    code, out, _ = upgrade_check("--json")
    assert code == 2
    (failed,) = [check for check in json.loads(out)["checks"] if check["result"] == 2]
    assert failed == {
        "check": "Namespaces",
        "result": 2,
        "details": "namespace large0: byte 4096 is not zero (VPMEM-N01)",
    }


def test_a_wrong_option(host, upgrade_check):
    host.pmem_namespaces = ["small0"]
    code, out, err = upgrade_check()
    assert code == 2
    assert "VPMEM-E01" in out
    assert "Traceback" not in out + err


def test_a_file_that_is_not_there(upgrade_check):
    code, out, err = upgrade_check(config="/nonexistent.conf")
    assert (code, out) == (255, "")
    assert "/nonexistent.conf" in err


def test_wrong_arguments(capsys):
    with pytest.raises(SystemExit) as ended:
        status.main(["upgrade"])
    assert ended.value.code == 2


def test_a_python_without_oslo_upgradecheck(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "oslo_upgradecheck", None)
    assert status.main(["upgrade", "check"]) == 255
    assert "Use that of nova-compute" in capsys.readouterr().err
