"""libvirt starts no domain that comes to another's namespace, whatever the domain has it as, and by whatever path."""

import pathlib
import shutil
import sqlite3
import subprocess
import sys

import pytest

from tests.functional.conftest import new_owner
from tests.functional.test_cli import vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_cli_domains import URI, connection  # noqa: F401  fixtures
from tests.functional.test_renumbered import attached, hook, new_domain, swap  # noqa: F401  fixtures
from tests.functional.test_users import DEVICES, xml
from tests.unit.test_hostpaths import as_root, bind  # noqa: F401  fixtures
from vpmem_driver import ledger

PLAIN = "<disk type='file'><source file='/usr/bin/env'/><target dev='vda' bus='virtio'/></disk>"


@pytest.fixture
def claimed(vpmem_json):  # noqa: F811
    """large0, with an owner."""
    (record,) = vpmem_json("claim", new_owner(), "LARGE")
    assert record["name"] == "large0"
    return record


@pytest.fixture
def ask(hook):  # noqa: F811
    """What the hook says of a domain of `owner` that has a device on `path`."""

    class Domain:
        def name(self):
            return "db1"

    def ask(device, path, owner=None):
        return hook(Domain(), xml(owner or new_owner(), device, path))

    return ask


def _second_hard_link(path):
    path.with_name("second").hardlink_to(path)


def _grown(path):
    with path.open("ab") as file:
        file.write(bytes(512))


def _as_it_is(path):
    pass


class TestAnothersNamespace:
    @pytest.mark.parametrize("change", [_as_it_is, _second_hard_link, _grown])
    @pytest.mark.parametrize("device", DEVICES)
    def test_it_was_started_on_it(self, claimed, ask, device, change):
        """Also when it is missing or unusable just then."""
        path = pathlib.Path(claimed["device"])
        change(path)
        code, said = ask(DEVICES[device], path)
        assert code == 1
        assert f"which belongs to {claimed['owner']}" in said

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("way", ["link", "hard link", pytest.param("bind mount", marks=as_root)])
    def test_it_was_started_on_it_by_another_path(self, claimed, ask, bind, tmp_path, way, device):  # noqa: F811
        path, other = pathlib.Path(claimed["device"]), tmp_path / "other" / "large0"
        if way == "bind mount":
            bind(path.parent, other.parent)
        else:
            other.parent.mkdir()
            (other.symlink_to if way == "link" else other.hardlink_to)(path)
        code, said = ask(DEVICES[device], other)
        if way == "link" and device == "a shared directory":
            assert code == 0, "a guest does not follow a link out of the directory"
        else:
            assert (code, claimed["owner"] in said) == (1, True)

    def test_it_has_left_its_directory(self, host, claimed, ask):
        """It is missing, and its last path leads to what is no namespace."""
        path = pathlib.Path(claimed["device"])
        path.rename(path.with_name(".large0"))
        for device in ("nvdimm", "virtio-pmem"):
            code, said = ask(DEVICES[device], path)
            assert (code, claimed["owner"] in said) == (1, True)

    def test_a_path_that_is_anothers_by_now_is_not_the_missing_ones(self, host, claimed, ask, vpmem_json):  # noqa: F811
        """Device nodes are numbered anew, and the first one's namespace is disabled."""
        (other,) = vpmem_json("claim", new_owner(), "LARGE")
        path = pathlib.Path(claimed["device"])
        path.rename(path.with_name(".large0"))
        pathlib.Path(other["device"]).rename(path)
        assert ask(DEVICES["nvdimm"], path, other["owner"]) == (0, "")
        code, said = ask(DEVICES["nvdimm"], path, claimed["owner"])
        assert (code, other["owner"] in said) == (1, True)


class TestItsOwn:
    @pytest.mark.parametrize("device", [name for name in DEVICES if name != "a shared directory"])
    def test_it_is_started(self, claimed, ask, device):
        assert ask(DEVICES[device], claimed["device"], claimed["owner"]) == (0, "")

    def test_a_directory_with_others_in_it_is_not(self, host, claimed, ask, vpmem_json):  # noqa: F811
        device = DEVICES["a shared directory"]
        assert ask(device, claimed["device"], claimed["owner"]) == (0, ""), "the others are unknown"
        (other,) = vpmem_json("claim", new_owner(), "SMALL", "--numa-node", "0")
        code, said = ask(device, claimed["device"], claimed["owner"])
        assert (code, other["owner"] in said) == (1, True)

    @pytest.mark.parametrize(
        ("change", "why"), [(_second_hard_link, "2 hard links"), (_grown, "not a multiple of 4096")]
    )
    def test_one_that_cannot_be_used_now(self, claimed, ask, change, why):
        path = pathlib.Path(claimed["device"])
        change(path)
        code, said = ask(DEVICES["nvdimm"], path, claimed["owner"])
        assert (code, why in said) == (1, True)

    def test_one_that_is_missing(self, claimed, ask):
        """A QEMU that may write there makes a new file, of zeros."""
        path = pathlib.Path(claimed["device"])
        path.rename(path.with_name(".large0"))
        code, said = ask(DEVICES["nvdimm"], path, claimed["owner"])
        assert (code, "not on this host now" in said) == (1, True)


class TestUnowned:
    @pytest.mark.parametrize("device", DEVICES)
    def test_a_clean_one_is_for_its_next_owner(self, host, ask, vpmem_json, device):  # noqa: F811
        vpmem_json("wipe", "--namespace", "large0")
        code, said = ask(DEVICES[device], host.path("large0"))
        assert (code, "which is clean and unowned" in said) == (1, True)
        assert ("vpmem adopt" in said) == (device in {"nvdimm", "virtio-pmem"})

    @pytest.mark.parametrize("device", DEVICES)
    def test_an_unknown_one_may_well_be_its_own(self, host, ask, vpmem_json, device):  # noqa: F811
        vpmem_json("namespace", "list")
        assert ask(DEVICES[device], host.path("large0")) == (0, "")


class TestADomainWithoutMemoryDevices:
    """All domains of the host start through the hook: it stands in the way of none that has none of its namespaces."""

    def test_it_starts_whatever_the_ledger_is(self, host, claimed, ask):
        for file in host.state_path.iterdir():
            file.write_bytes(b"no ledger")
        assert ask(PLAIN, "/") == (0, "")
        for device in ("nvdimm", "a file as disk"):
            code, said = ask(DEVICES[device], claimed["device"])
            assert (code, "Cannot use the ledger" in said) == (1, True), "in doubt it is not started"

    def test_it_starts_where_namespaces_cannot_be_listed(self, host, claimed, ask):
        host.directory.rename(host.directory.with_name("unmounted"))
        assert ask(PLAIN, "/") == (0, "")
        assert ask(DEVICES["nvdimm"], claimed["device"])[0] == 1

    def test_it_starts_without_a_configuration(self, host, claimed, ask, monkeypatch):
        monkeypatch.setattr(host, "config_file", lambda: "/nonexistent.conf")
        assert ask(PLAIN, "/") == (0, "")
        code, said = ask(DEVICES["nvdimm"], claimed["device"])
        assert (code, "/nonexistent.conf" in said) == (1, True)

    def test_it_does_not_wait_for_the_ledger(self, host, claimed, ask):
        """Another process has locked it, and is stopped."""
        locked = sqlite3.connect(host.state_path / ledger.FILE_NAME, isolation_level=None)
        locked.execute("BEGIN IMMEDIATE")
        assert ask(PLAIN, "/") == (0, "")
        locked.close()


class TestWhoConfiguresIt:
    @pytest.fixture
    def elsewhere(self, host, tmp_path):
        """A directory and a state path in which nobody holds anything."""
        shutil.copytree(host.directory, tmp_path / "elsewhere")
        return {"directory": tmp_path / "elsewhere", "state_path": tmp_path / "no-state"}

    def test_the_environment_did(self, claimed, ask, elsewhere, monkeypatch):
        for name, value in elsewhere.items():
            monkeypatch.setenv(f"OS_VPMEM__{name.upper()}", str(value))
        assert ask(DEVICES["nvdimm"], claimed["device"])[0] == 1

    def test_the_home_directory_did(self, claimed, ask, elsewhere, monkeypatch, tmp_path):
        lines = [f"{name} = {value}" for name, value in elsewhere.items()]
        for file in ("vpmem.conf.d/x.conf", "vpmem.conf"):
            path = tmp_path / ".vpmem" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(["[vpmem]", *lines]) + "\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert ask(DEVICES["nvdimm"], claimed["device"])[0] == 1


@pytest.mark.parametrize("operation", ["start", "started", "stopped", "release", "migrate"])
def test_every_operation_but_a_start_is_allowed_without_a_look(operation):
    program = pathlib.Path(sys.executable).with_name("vpmem-libvirt-hook")
    words = [program, "db1", operation, "begin", "-"]
    done = subprocess.run(words, input="<nonsense", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
