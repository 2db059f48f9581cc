"""vpmem ledger restore: what the backup cannot know is unknown, and nothing that was there is lost."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys

import pytest

from tests.functional import terminal
from tests.functional.conftest import new_owner
from tests.functional.test_cli import vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_cli_domains import DOMAIN, URI, connection  # noqa: F401  fixtures
from tests.functional.test_listing import check, move
from tests.functional.test_renumbered import attached, new_domain  # noqa: F401  fixtures
from tests.functional.test_status import files
from vpmem_driver import exception, ledger
from vpmem_driver.cli import tables
from vpmem_driver.model import State
from vpmem_driver.pool import Pool


@pytest.fixture
def backup(tmp_path):
    return tmp_path / "backup.sqlite3"


@pytest.fixture
def owner(host, vpmem, backup):  # noqa: F811
    """A host with a backup: small0 is claimed by this owner, small1 clean, small2 dirty, large0 quarantined."""
    host.options["connection_uri"] = URI
    found = new_owner()
    pool = host.pool()
    pool.mark("once")
    move(host, "small0", State.DIRTY, State.CLAIMED, owner=found)
    move(host, "small1", State.DIRTY, State.CLEAN)
    move(host, "small2", State.DIRTY, State.CLAIMED, State.DIRTY, owner=found)
    move(host, "large0", State.DIRTY, State.QUARANTINED, reason="byte 0 is not zero")
    assert vpmem("ledger", "backup", backup)[0] == 0
    host.close()
    return found


def lose(host):
    host.close()
    shutil.rmtree(host.state_path)
    host.state_path.mkdir(mode=0o700)


def damage(host):
    host.close()
    (host.state_path / ledger.FILE_NAME).write_bytes(b"garbage" * 1000)


def states(vpmem_json):  # noqa: F811
    return {row["name"]: (row["state"], row["owner"]) for row in vpmem_json("namespace", "list")}


class TestRestored:
    def test_only_what_was_claimed_is_known(self, host, owner, backup, vpmem_json):  # noqa: F811
        lose(host)
        restored = vpmem_json("ledger", "restore", backup, "--yes")
        check(restored, "Restored namespaces")
        assert states(vpmem_json) == {
            "small0": ("claimed", owner),
            **dict.fromkeys(("small1", "small2", "large0", "large1"), ("unknown", None)),
        }
        assert {row["name"]: row["backup_state"] for row in restored} == {
            "small0": "claimed",
            "small1": "clean",
            "small2": "dirty",
            "large0": "quarantined",
            "large1": "unknown",
        }
        history = vpmem_json("history", "--namespace", "small1")
        assert [line["to_state"] for line in history] == ["unknown", "dirty", "clean", "unknown"]
        assert history[-1]["reason"] == "ledger restored: clean in the backup; it may have been claimed since"
        assert not host.pool().marked("once"), "one-time steps are to be done again"
        assert not list(host.state_path.glob(".restore-*"))
        assert not list(host.state_path.glob("*replaced*"))

    def test_a_damaged_ledger_is_kept_with_its_log(self, host, owner, backup, vpmem, vpmem_json):  # noqa: F811
        damage(host)
        (host.state_path / f"{ledger.FILE_NAME}-wal").write_bytes(b"log")
        code, _, err = vpmem("ledger", "restore", backup, "--yes")
        assert code == 0, err
        kept = pathlib.Path(re.search(r"is kept as (\S+)", err)[1])
        assert kept.read_bytes() == b"garbage" * 1000
        assert kept.with_name(f"{kept.name}-wal").read_bytes() == b"log"
        assert states(vpmem_json)["small0"] == ("claimed", owner)

    def test_a_dry_run_changes_nothing(self, host, owner, backup, vpmem, vpmem_json):  # noqa: F811
        damage(host)
        before = files(host)
        code, out, err = vpmem("ledger", "restore", backup)
        assert code == 0, err
        assert re.search(r"^small1 +clean +unknown +clean in the backup; it may", out, re.MULTILINE)
        assert "Nothing was changed" in err
        assert files(host) == before
        planned = vpmem_json("ledger", "restore", backup)
        assert vpmem_json("ledger", "restore", backup, "--yes") == planned

    def test_a_restored_ledger_on_a_directory_that_is_not_there(self, host, owner, backup, vpmem_json):  # noqa: F811
        host.close()
        shutil.rmtree(host.state_path)
        vpmem_json("ledger", "restore", backup)
        assert not host.state_path.exists()
        vpmem_json("ledger", "restore", backup, "--yes")
        assert states(vpmem_json)["small0"] == ("claimed", owner)

    @pytest.mark.parametrize("moving", ["0123456789abcdef", "0123456789abcdef-0123"], ids=["by Nova", "by vpmem"])
    def test_only_the_departure_of_an_export_ends(self, host, owner, backup, vpmem, vpmem_json, moving):  # noqa: F811
        other = new_owner()
        move(host, "small1", State.DIRTY, State.CLAIMED, owner=other)
        pool = host.pool()
        pool.copies.depart(other, moving)
        backup.unlink()
        with pool.copies.hold_still(owner):
            assert vpmem("ledger", "backup", backup)[0] == 0
        pool.close()
        lose(host)
        vpmem_json("ledger", "restore", backup, "--yes")
        rows = {row.name: row for row in host.pool().rows()}
        assert (rows["small0"].state, rows["small0"].departure) == (State.CLAIMED, None)
        assert (rows["small1"].state, rows["small1"].departure) == (State.CLAIMED, moving)


class TestSinceTheBackup:
    def test_what_was_claimed_since_is_never_overwritten(self, host, attached, backup, vpmem, vpmem_json):  # noqa: F811
        """It was clean in the backup. Its domain is shut off when the ledger is lost."""
        host.options["connection_uri"] = URI
        host.pool()
        for name in ("small0", "small1", "small2"):
            move(host, name, State.DIRTY, State.CLEAN)
        assert vpmem("ledger", "backup", backup)[0] == 0
        domain, (pattern,) = (found := attached("SMALL"))[0], found[1].values()
        (record,) = [row for row in vpmem_json("namespace", "list") if row["owner"] is not None]
        lose(host)
        vpmem_json("ledger", "restore", backup, "--yes")
        claimed = {vpmem_json("claim", new_owner(), "SMALL")[0]["name"] for _ in range(2)}
        assert record["name"] not in claimed
        assert vpmem("claim", new_owner(), "SMALL")[0] == 4
        assert vpmem("reconcile", "--yes")[0] == 0
        assert states(vpmem_json)[record["name"]] == ("claimed", domain.UUIDString())
        assert pathlib.Path(record["device"]).read_bytes() == pattern

    def test_the_domains_say_that_another_owner_has_it(self, host, attached, backup, vpmem, vpmem_json):  # noqa: F811
        host.options["connection_uri"] = URI
        host.pool()
        before = new_owner()
        move(host, "small0", State.DIRTY, State.CLAIMED, owner=before)
        assert vpmem("ledger", "backup", backup)[0] == 0
        move(host, "small0", State.DIRTY, State.CLEAN)
        domain, _ = attached("SMALL")
        lose(host)
        (row,) = [row for row in vpmem_json("ledger", "restore", backup, "--yes") if row["name"] == "small0"]
        assert (row["backup_owner"], row["state"], row["owner"]) == (before, "unknown", None)
        assert row["reason"] == f"the definition of domain {domain.name()} has it, not {before}"
        assert vpmem("reconcile", "--yes")[0] == 0
        assert states(vpmem_json)["small0"] == ("claimed", domain.UUIDString())

    def test_what_its_owner_and_another_domain_have_stays_claimed(
        self,
        host,
        attached,  # noqa: F811
        connection,  # noqa: F811
        backup,
        vpmem,  # noqa: F811
        vpmem_json,  # noqa: F811
    ):
        host.options["connection_uri"] = URI
        domain, _ = attached("SMALL")
        assert vpmem("ledger", "backup", backup)[0] == 0
        connection.defineXML(domain.XMLDesc().replace(domain.name(), "copy").replace(domain.UUIDString(), new_owner()))
        lose(host)
        vpmem_json("ledger", "restore", backup, "--yes")
        assert states(vpmem_json)["small0"] == ("claimed", domain.UUIDString())
        assert "VPMEM-N08" in vpmem("reconcile")[1]


class TestRefused:
    @pytest.fixture
    def unchanged(self, host, vpmem, backup):  # noqa: F811
        def run(code, *words):
            before = files(host)
            result, out, err = vpmem("ledger", "restore", *words)
            assert (result, out) == (code, ""), err
            assert "Traceback" not in err
            assert files(host) == before
            return err

        return run

    def test_a_good_ledger_knows_more(self, owner, backup, unchanged):
        assert "it is not damaged, and knows more than a backup" in unchanged(5, backup)
        assert "it is not damaged" in unchanged(5, backup, "--yes")

    @pytest.mark.parametrize("what", ["ledger", "lock"])
    def test_a_program_uses_it(self, host, owner, backup, unchanged, what):
        """One that has the ledger open since before it was damaged; or only the lock, after its files were deleted."""
        code = {
            "ledger": "import sqlite3; db = sqlite3.connect(sys.argv[1] + '/ledger.sqlite3');"
            "db.execute('SELECT count(*) FROM namespace').fetchall()",
            "lock": "file = open(sys.argv[1] + '/ledger.lock')",
        }[what]
        with subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import sys; {code}; print('ready', flush=True); sys.stdin.read()",
                host.state_path,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout.readline() == b"ready\n"
            damage(host)
            assert re.search("process.* has it open", unchanged(5, backup, "--yes"))
            process.stdin.close()

    def test_a_libvirt_that_does_not_answer(self, host, owner, backup, unchanged):
        damage(host)
        assert "(VPMEM-E20)" in unchanged(5, backup, "--yes", "--connect", "nosuch:///system")

    def test_namespaces_that_cannot_be_listed(self, host, owner, backup, unchanged):
        damage(host)
        host.options["directory"] = host.directory / "nowhere"
        assert "(VPMEM-E14)" in unchanged(5, backup, "--yes")

    @pytest.mark.parametrize("yes", [(), ("--yes",)], ids=["dry run", "yes"])
    def test_what_is_no_backup(self, host, owner, backup, unchanged, tmp_path, yes):
        damage(host)
        made = {"empty": b"", "garbage": b"garbage" * 1000, "cut": backup.read_bytes()[:9000]}
        for name, content in made.items():
            (tmp_path / name).write_bytes(content)
        sqlite3.connect(tmp_path / "other").execute("CREATE TABLE namespace (uuid)").connection.close()
        shutil.copy(backup, tmp_path / "newer")
        with contextlib.closing(sqlite3.connect(tmp_path / "newer")) as database:
            database.execute("PRAGMA user_version = 99")
        shutil.copy(backup, tmp_path / "used")
        (tmp_path / "used-wal").write_bytes(b"log")
        for name in (*made, "other", "newer", "used", "nowhere", ".", "a\0b"):
            assert "'vpmem ledger backup' has written. (VPMEM-E04)" in unchanged(2, f"{tmp_path}/{name}", *yes)


class Killed(BaseException):
    """The process ended here."""


@pytest.mark.parametrize("step", range(1, 8))
def test_whatever_interrupts_it_no_ledger_is_made_that_knows_nothing(
    host,
    owner,
    backup,
    vpmem,  # noqa: F811
    vpmem_json,  # noqa: F811
    monkeypatch,
    step,
):
    damage(host)
    (host.state_path / f"{ledger.FILE_NAME}-wal").write_bytes(b"log")
    calls = []

    def killed(function):
        def call(*arguments, **values):
            if str(host.state_path) in str(arguments[0]) and "ledger.sqlite3" in f"{arguments[0]} {arguments[-1]}":
                calls.append(function.__name__)
                if len(calls) == step + 1:
                    raise Killed
            return function(*arguments, **values)

        return call

    from vpmem_driver.ledger import replacement

    replace = replacement.replace

    def replace_and_die(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            for name in ("rename", "hardlink_to", "unlink"):
                patch.setattr(pathlib.Path, name, killed(getattr(pathlib.Path, name)))
            return replace(*arguments)

    monkeypatch.setattr(replacement, "replace", replace_and_die)
    with contextlib.suppress(Killed):
        vpmem("ledger", "restore", backup, "--yes")
    monkeypatch.undo()
    assert calls[:1] == ["rename"]
    before = files(host)
    try:
        pool = Pool.from_conf(host.conf())
    except exception.LedgerCorrupt:
        assert files(host) == before
        vpmem_json("ledger", "restore", backup, "--yes")
        kept = [path.read_bytes() for path in host.state_path.glob("*.replaced-*")]
        assert {b"garbage" * 1000, b"log"} <= set(kept)
        pool = Pool.from_conf(host.conf())
    with contextlib.closing(pool):
        assert {row.name: row.owner for row in pool.rows()}["small0"] == owner


@pytest.mark.parametrize(
    ("width", "environment"),
    [(100, {}), (80, {"NO_COLOR": "1"}), (80, terminal.ASCII)],
    ids=["colour", "NO_COLOR", "ASCII"],
)
def test_every_line_fits(host, owner, backup, width, environment):
    lose(host)
    words = ["--config-file", host.config_file(), "ledger", "restore", backup]
    code, out, err = terminal.run(words, width=width, environment=environment)
    assert code == 0, err
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert all(tables.width_of(line) <= width for line in plain.splitlines()), out
    assert ("\x1b[" in out) == ("NO_COLOR" not in environment)


def test_root_restores_the_ledger_of_a_service(host, owner, backup, vpmem_json):  # noqa: F811
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    lose(host)
    os.chown(host.state_path, 65534, 65534)
    assert json.dumps(vpmem_json("ledger", "restore", backup, "--yes"))
    assert {path.stat().st_uid for path in host.state_path.iterdir()} == {65534}
