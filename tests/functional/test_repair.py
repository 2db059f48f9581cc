"""vpmem ledger check and backup, vpmem quarantine list and retry."""

import os
import shutil
import sqlite3
import stat
import threading

import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from tests.functional.test_cli import refused, vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_listing import move, used  # noqa: F401  fixtures
from tests.functional.test_status import files
from vpmem_driver import ledger
from vpmem_driver.ledger.reader import LedgerReader
from vpmem_driver.model import State
from vpmem_driver.pool import Pool


class TestCheck:
    def test_a_good_ledger(self, host, vpmem, used):  # noqa: F811
        before = files(host)
        code, out, err = vpmem("ledger", "check")
        assert (code, out) == (0, f"{host.state_path / ledger.FILE_NAME}: ok, 5 namespaces, 13 changes of state\n"), err
        assert files(host) == before

    def test_damage_of_the_history_that_no_other_command_notices(self, host, vpmem, used):  # noqa: F811
        host.close()
        file = host.state_path / ledger.FILE_NAME
        database = sqlite3.connect(file)
        database.execute("PRAGMA journal_mode = DELETE")
        database.executemany(
            "INSERT INTO history (at, uuid, from_state, to_state, reason) VALUES ('x', 'y', 'dirty', 'clean', ?)",
            [("z" * 900,)] * 200,
        )
        database.commit()
        database.close()
        content = bytearray(file.read_bytes())
        at = content.rindex(b"z" * 900) // 4096 * 4096  # a page of the history's table
        content[at : at + 8] = b"\xff" * 8
        file.write_bytes(content)
        assert vpmem("status", "-x")[0] == 0
        code, out, err = vpmem("ledger", "check")
        assert (code, out) == (5, "")
        assert "(VPMEM-E16)" in err

    def test_no_ledger(self, host, refused):  # noqa: F811
        assert "it does not exist yet" in refused(5, "ledger", "check")
        assert not host.state_path.exists()


class TestBackup:
    def restored(self, host, file):
        """A pool on the backup."""
        shutil.rmtree(host.state_path)
        host.state_path.mkdir(mode=0o700)
        shutil.copy(file, host.state_path / ledger.FILE_NAME)
        return Pool.from_conf(host.conf())

    def test_a_backup_is_the_ledger(self, host, vpmem, used, tmp_path):  # noqa: F811
        file, before = tmp_path / "backup.sqlite3", files(host)
        assert vpmem("ledger", "backup", file)[:2] == (0, "")
        assert files(host) == before
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert [name for name in os.listdir(tmp_path) if "backup" in name] == ["backup.sqlite3"], "it is one file"
        rows = host._pools[0].rows()
        host.close()
        pool = self.restored(host, file)
        assert pool.rows() == rows
        pool.close()

    def test_while_others_write(self, host, vpmem, tmp_path):  # noqa: F811
        host.pool()
        ended = threading.Event()

        def work():
            records = ledger.Ledger(host.state_path)
            while not ended.is_set():
                row = next(row for row in records.rows() if row.name == "small0")
                with records.transaction():
                    dirty = records.move(row, State.DIRTY, "for the test")
                    records.move(dirty, State.CLEAN, "wiped")
            records.close()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for number in range(10):
                assert vpmem("ledger", "backup", tmp_path / f"backup{number}")[0] == 0
        finally:
            ended.set()
            thread.join()
        for number in range(10):
            directory = tmp_path / f"copy{number}"
            directory.mkdir()
            shutil.copy(tmp_path / f"backup{number}", directory / ledger.FILE_NAME)
            reader = LedgerReader(directory)
            states = {row.name: row.state for row in reader.rows()}
            assert states["small0"] is not State.DIRTY, "a half of a transaction"
            assert reader.check_all() >= 5
            reader.close()

    def test_an_existing_file_is_never_replaced(self, refused, used, tmp_path):  # noqa: F811
        file = tmp_path / "backup"
        file.write_text("precious")
        assert "it exists" in refused(2, "ledger", "backup", file)
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "elsewhere")
        assert "it exists" in refused(2, "ledger", "backup", link)
        assert file.read_text() == "precious"
        assert sorted(name for name in os.listdir(tmp_path) if name not in {"pmem", "state", "vpmem.conf"}) == [
            "backup",
            "link",
        ]

    @pytest.mark.parametrize("file", ["/nonexistent/backup", "/proc/self/backup", "/", "", "a\0b"])
    def test_a_file_that_cannot_be_written(self, refused, used, tmp_path, monkeypatch, file):  # noqa: F811
        empty = tmp_path / "empty"
        empty.mkdir()
        monkeypatch.chdir(empty)
        assert "(VPMEM-E19)" in refused(5, "ledger", "backup", file)
        assert os.listdir(empty) == []

    def test_a_damaged_ledger_is_not_copied(self, host, vpmem, tmp_path):  # noqa: F811
        host.state_path.mkdir()
        (host.state_path / ledger.FILE_NAME).write_bytes(b"garbage" * 1000)
        assert vpmem("ledger", "backup", tmp_path / "backup")[0] == 5
        assert not (tmp_path / "backup").exists()


class TestQuarantine:
    @pytest.fixture
    def quarantined(self, host):
        host.pool()
        fill(host.path("small0"))
        move(host, "large0", State.DIRTY, State.QUARANTINED, reason="byte 4096 is not zero")
        move(host, "small0", State.DIRTY, State.QUARANTINED, reason="byte 8192 is not zero")

    def test_list(self, vpmem, vpmem_json, quarantined):  # noqa: F811
        found = vpmem_json("quarantine", "list")
        assert [(row["name"], row["reason"]) for row in found] == [
            ("large0", "byte 4096 is not zero"),
            ("small0", "byte 8192 is not zero"),
        ]
        assert vpmem("quarantine", "list")[1].count("quarantined") == 2

    def test_retry_of_one(self, host, vpmem_json, quarantined):  # noqa: F811
        (row,) = vpmem_json("quarantine", "retry", "small0")
        assert (row["name"], row["state"]) == ("small0", "clean")
        assert is_zero(host.path("small0"))
        assert [row["name"] for row in vpmem_json("quarantine", "list")] == ["large0"]

    def test_retry_on_a_medium_that_is_still_bad(self, host, vpmem, vpmem_json, quarantined):  # noqa: F811
        host.options["wipe_command"] = host.forgetful(host.path("small0"), 100)
        code, out, err = vpmem("quarantine", "retry")
        assert (code, out) == (6, "")
        assert "small0 (byte 100 is not zero" in err
        assert [row["name"] for row in vpmem_json("quarantine", "list")] == ["small0"], "the other one is clean now"

    def test_a_dry_run_changes_nothing(self, host, vpmem_json, quarantined):  # noqa: F811
        before = files(host)
        assert [row["name"] for row in vpmem_json("quarantine", "retry", "--dry-run")] == ["large0", "small0"]
        assert files(host) == before

    def test_what_is_not_quarantined_is_refused_and_nothing_else_is_wiped(self, host, refused, quarantined):  # noqa: F811
        owner = new_owner()
        move(host, "small1", State.DIRTY, State.CLAIMED, owner=owner)
        for name in ("small1", "large1"):
            assert "not quarantined" in refused(2, "quarantine", "retry", "small0", name)
        assert "does not exist" in refused(2, "quarantine", "retry", "nowhere")

    def test_nothing_is_quarantined(self, vpmem):  # noqa: F811
        assert vpmem("quarantine", "retry")[:2] == (0, "")
        assert vpmem("quarantine", "list")[:2] == (0, "")
