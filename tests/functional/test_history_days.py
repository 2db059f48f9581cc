"""``[vpmem] history_days``: the command line removes old lines of the history when it wipes."""

import contextlib
import logging
import sqlite3

import pytest

from tests.functional.conftest import new_owner
from tests.unit.ledger.test_pruning import make_older
from vpmem_driver import exception
from vpmem_driver.cli import main
from vpmem_driver.ledger import Ledger


@pytest.fixture
def used(host):
    """A host whose history is 500 days old: two owners after each other had the same namespace."""
    pool = host.pool()
    for _ in range(2):
        owner = new_owner()
        pool.claim(owner, ["LARGE"])
        pool.release(owner)
        pool.wipe()
    with contextlib.closing(Ledger(host.state_path)) as records:
        make_older(records, 500)
    return host


def lines(host):
    with contextlib.closing(sqlite3.connect(host.state_path / "ledger.sqlite3")) as database:
        return database.execute("SELECT count(*) FROM history").fetchone()[0]


def vpmem(host, *words):
    return main.main(["--config-file", str(host.config_file()), *words])


@pytest.mark.parametrize("words", [["wipe"], ["release", "OWNER", "--wait"]])
def test_a_wipe_removes_old_lines(used, words, capsys):
    owner = new_owner()
    used.pool().claim(owner, ["SMALL"])
    before = lines(used)
    assert vpmem(used, *(owner if word == "OWNER" else word for word in words)) == 0
    assert lines(used) < before
    capsys.readouterr()
    assert vpmem(used, "history", "-f", "value", "--namespace", "large0") == 0
    kept = capsys.readouterr().out.splitlines()
    assert [line.split()[5] for line in kept] == ["claimed", "dirty", "clean"], kept


@pytest.mark.parametrize(
    ("words", "days"),
    [(["wipe"], 0), (["wipe"], 501), (["wipe", "--dry-run"], 400), (["namespace", "list"], 400), (["history"], 400)],
)
def test_nothing_else_does(used, words, days, capsys):
    used.options["history_days"] = days
    before = lines(used)
    assert vpmem(used, *words) == 0
    assert lines(used) == before
    capsys.readouterr()


def test_a_failure_does_not_fail_the_wipe(used, monkeypatch, caplog, capsys):
    def fail(_ledger, _days):
        raise exception.LedgerError(path="ledger", reason="disk full", remedy="Free space")

    monkeypatch.setattr(Ledger, "prune_history", fail)
    with caplog.at_level(logging.WARNING):
        assert vpmem(used, "wipe") == 0
    assert "Old lines remain in the history" in caplog.text
    capsys.readouterr()
