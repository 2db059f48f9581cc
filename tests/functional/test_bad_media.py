"""Bad media: nothing bad is handed out, nothing claimed is touched, and ndctl is not believed.

The kernel's list is a file here, and ndctl a program that changes it, or only says so.
"""

import json
import subprocess
import sys

import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from tests.functional.test_cli import refused, vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_cli_domains import URI, connection  # noqa: F401  fixtures
from tests.functional.test_listing import move
from tests.functional.test_reconcile import defined
from tests.functional.test_status import files
from vpmem_driver import exception
from vpmem_driver.discovery import badblocks
from vpmem_driver.discovery.directory import DirectoryDiscovery
from vpmem_driver.model import State

REASON = "bad media: bytes 4096 to 4607"

NDCTL = """#!{python}
import os, pathlib, sys
pathlib.Path({calls!r}).write_text(" ".join(sys.argv[1:]))
if {clears}:
    pathlib.Path({listed!r}).write_text("[]")
sys.exit({code})
"""


@pytest.fixture
def listed(host, tmp_path, monkeypatch):
    """The names of the files that the kernel knows to be bad, as JSON in a file."""
    path = tmp_path / "listed"

    def bad_ranges(_self, device):
        return ((4096, 512),) if device.rpartition("/")[2] in json.loads(path.read_text()) else ()

    monkeypatch.setattr(DirectoryDiscovery, "bad_ranges", bad_ranges)
    path.write_text("[]")
    return path


@pytest.fixture
def ndctl(listed, tmp_path, monkeypatch):
    """Install a program ndctl; returns the file that has what it was called with."""

    def install(*, clears, code=0):
        directory = tmp_path / "programs"
        directory.mkdir(exist_ok=True)
        values = {"python": sys.executable, "calls": str(tmp_path / "calls"), "listed": str(listed)}
        (directory / "ndctl").write_text(NDCTL.format(**values, clears=clears, code=code))
        (directory / "ndctl").chmod(0o755)
        monkeypatch.setenv("PATH", str(directory), prepend=":")
        monkeypatch.setattr(badblocks, "namespace_of", lambda _device: "namespace0.0")
        return tmp_path / "calls"

    return install


def state(vpmem_json, name):  # noqa: F811
    row = vpmem_json("namespace", "show", name)
    return row["state"], row["reason"]


class TestClaim:
    @pytest.mark.parametrize(
        "states", [(State.DIRTY, State.CLEAN), (State.DIRTY, State.CLAIMED, State.DIRTY)], ids=["clean", "dirty"]
    )
    def test_what_is_bad_is_quarantined_and_another_one_is_handed_out(self, host, listed, vpmem_json, states):  # noqa: F811
        host.pool()
        move(host, "small0", *states, owner=new_owner())
        content = fill(host.path("small0"))
        listed.write_text('["small0"]')
        (record,) = vpmem_json("claim", new_owner(), "SMALL")
        assert record["name"] != "small0"
        assert state(vpmem_json, "small0") == ("quarantined", REASON)
        assert host.path("small0").read_bytes() == content
        assert vpmem_json("history", "--namespace", "small0")[-1]["reason"] == REASON

    def test_all_or_nothing(self, host, listed, vpmem, vpmem_json):  # noqa: F811
        host.pool()
        for name in ("small0", "large0", "large1"):
            move(host, name, State.DIRTY, State.CLEAN)
        listed.write_text('["large0", "large1"]')
        code, out, err = vpmem("claim", new_owner(), "SMALL,LARGE")
        assert (code, out) == (6, "")
        assert f"large0 ({REASON})" in err
        assert {name: state(vpmem_json, name)[0] for name in ("small0", "large0", "large1")} == {
            "small0": "clean",
            "large0": "quarantined",
            "large1": "quarantined",
        }

    def test_an_unknown_one_is_not_handed_out_and_can_still_be_adopted(self, host, listed, vpmem, vpmem_json):  # noqa: F811
        listed.write_text('["large0", "large1"]')
        content = fill(host.path("large0"))
        assert vpmem("claim", new_owner(), "LARGE")[0] == 5
        assert state(vpmem_json, "large0")[0] == "unknown"
        owner = new_owner()
        assert vpmem_json("adopt", owner, "large0")[0]["owner"] == owner
        assert host.path("large0").read_bytes() == content

    def test_a_claimed_one_is_reported_and_never_touched(self, host, listed, vpmem, vpmem_json, refused):  # noqa: F811
        """It has become bad since, as the kernel finds after a reboot."""
        owner = new_owner()
        (record,) = vpmem_json("claim", owner, "LARGE")
        content = fill(host.path("large0"))
        listed.write_text('["large0"]')
        pool = host.pool()
        assert pool.claim_exact(owner, [record["uuid"]])[0].ready
        pool.reconcile()
        found = json.loads(vpmem("host", "check", "-f", "json")[1])
        (bad,) = [finding for finding in found if finding["id"] == "VPMEM-N13"]
        assert bad["message"] == f"{REASON}; it belongs to {owner}"
        assert f"belongs to {owner}" in refused(4, "repair", "large0")
        assert state(vpmem_json, "large0") == ("claimed", None)
        assert host.path("large0").read_bytes() == content

    def test_what_nobody_can_tell_is_a_warning(self, host, vpmem, monkeypatch):  # noqa: F811
        def fail(_self, device):
            raise exception.HostToolError(what=f"Reading {device}", reason="no", remedy="Look")

        monkeypatch.setattr(DirectoryDiscovery, "bad_ranges", fail)
        code, _, err = vpmem("claim", new_owner(), "LARGE")
        assert code == 0
        assert "Namespace large0: Reading" in err
        found = json.loads(vpmem("host", "check", "-f", "json")[1])
        assert [finding["level"] for finding in found if finding["check"] == "namespace large0"] == ["unseen"]


class TestRepair:
    @pytest.fixture
    def bad(self, host, listed):
        host.pool()
        move(host, "small0", State.DIRTY, State.QUARANTINED, reason=REASON)
        fill(host.path("small0"))
        listed.write_text('["small0"]')

    @pytest.mark.parametrize("code", [0, 1])
    def test_cleared_wiped_and_looked_at_again(self, host, bad, ndctl, vpmem_json, code):  # noqa: F811
        calls = ndctl(clears=True, code=code)
        (record,) = vpmem_json("repair", "small0")
        assert (record["name"], record["state"]) == ("small0", "clean")
        assert calls.read_text() == "clear-errors namespace0.0"
        assert is_zero(host.path("small0"))

    def test_ndctl_is_not_believed(self, host, bad, ndctl, vpmem, vpmem_json):  # noqa: F811
        ndctl(clears=False)
        code, out, err = vpmem("repair", "small0")
        assert (code, out) == (6, "")
        assert f"small0 ({REASON})" in err
        assert state(vpmem_json, "small0") == ("quarantined", REASON)

    def test_the_medium_does_not_keep_zeros(self, host, bad, ndctl, vpmem, vpmem_json):  # noqa: F811
        ndctl(clears=True)
        host.options["wipe_command"] = host.forgetful(host.path("small0"), 100)
        assert vpmem("repair", "small0")[0] == 6
        assert "byte 100 is not zero" in state(vpmem_json, "small0")[1]

    def test_without_ndctl_it_stays_quarantined(self, host, bad, ndctl, vpmem, vpmem_json, monkeypatch):  # noqa: F811
        ndctl(clears=True)
        content = host.path("small0").read_bytes()
        monkeypatch.setenv("PATH", "/nonexistent")
        code, _, err = vpmem("repair", "small0")
        assert code == 5
        assert "'ndctl clear-errors namespace0.0' failed" in err
        assert state(vpmem_json, "small0") == ("quarantined", REASON)
        assert host.path("small0").read_bytes() == content

    def test_a_clean_one_is_quarantined_until_it_is_repaired(self, host, listed, ndctl, vpmem_json):  # noqa: F811
        host.pool()
        move(host, "small0", State.DIRTY, State.CLEAN)
        listed.write_text('["small0"]')
        ndctl(clears=True)
        vpmem_json("repair", "small0")
        states = [line["to_state"] for line in vpmem_json("history", "--namespace", "small0")]
        assert states[-3:] == ["quarantined", "dirty", "clean"]

    def test_a_dry_run_changes_nothing(self, host, bad, ndctl, vpmem_json):  # noqa: F811
        calls = ndctl(clears=True)
        before = files(host)
        assert [row["name"] for row in vpmem_json("repair", "small0", "--dry-run")] == ["small0"]
        assert files(host) == before
        assert not calls.exists()


class TestRefused:
    def test_somebody_has_it(self, host, connection, listed, ndctl, refused):  # noqa: F811
        host.options["connection_uri"] = URI
        calls = ndctl(clears=True)
        domain = defined(connection, host.path("small0"))
        assert f"domain {domain.name()}" in refused(4, "repair", "small0")
        code = "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); print('ready', flush=1)"
        with subprocess.Popen(
            [sys.executable, "-c", f"{code}; sys.stdin.read()", host.path("small1")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout.readline() == b"ready\n"
            assert f"process {process.pid}" in refused(4, "repair", "small1")
            process.stdin.close()
        assert not calls.exists()

    def test_it_is_missing_or_not_there(self, host, ndctl, refused):  # noqa: F811
        calls = ndctl(clears=True)
        host.pool()
        move(host, "small0", State.DIRTY)
        host.path("small0").unlink()
        assert "(VPMEM-E18)" in refused(5, "repair", "small0")
        assert "(VPMEM-E06)" in refused(2, "repair", "nowhere")
        assert not calls.exists()

    def test_wrong_arguments(self, vpmem):  # noqa: F811
        for words in ((), ("small0", "small1"), ("small0", "--yes")):
            assert vpmem("repair", *words)[0] == 2
