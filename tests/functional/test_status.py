"""vpmem status and vpmem host check, on good and on broken hosts. They change nothing and wait for nobody."""

import fcntl
import json
import os
import re
import socket
import sqlite3
import threading
import time

import pytest

from tests.functional import terminal
from tests.functional.conftest import MIB, new_owner
from tests.functional.test_cli import refused, unprivileged, vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_listing import move, schema, used  # noqa: F401  fixtures
from vpmem_driver import ledger
from vpmem_driver.checkup import virtualization
from vpmem_driver.cli import tables
from vpmem_driver.ledger.reader import LedgerReader
from vpmem_driver.model import State


@pytest.fixture
def status(host, vpmem):  # noqa: F811
    """Run a command that must change nothing; returns exit code and standard output."""

    def run(*words, code=0):
        before = files(host)
        result, out, err = vpmem(*words)
        assert result == code, err
        assert "Traceback" not in err
        assert files(host) == before
        return out

    return run


def files(host):
    """Every namespace and the ledger, byte for byte. A reader of SQLite may leave empty files."""
    paths = [path for path in (*host.directory.rglob("*"), *host.state_path.rglob("*")) if path.is_file()]
    content = {path: path.read_bytes() for path in sorted(paths) if not path.name.endswith("-shm")}
    return {path: text for path, text in content.items() if text or not path.name.endswith("-wal")}


def faults(out):
    return [fault["id"] for fault in json.loads(out)["faults"]]


class TestGoodHost:
    def test_the_screen(self, status, used):  # noqa: F811
        out = status("status")
        assert re.search(r"^state +no faults$", out, re.MULTILINE)
        assert re.search(
            r"^LABEL +STATE +NAMESPACES +SIZE\n(?:.*\n)*SMALL +unknown +1 +4194304\n +clean +1 .*\n +claimed +1 .*\n"
            r" +total +3 +12\.00 MiB\n",
            out,
            re.MULTILINE,
        )
        assert "faults:" not in out

    def test_one_line(self, status, used):  # noqa: F811
        assert status("status", "-x") == "6 namespaces, no faults\n"

    def test_json(self, status, used):  # noqa: F811
        found = json.loads(status("status", "-f", "json"))
        assert list(found) == ["namespaces", "work", "faults"]
        assert {"label": "LARGE", "state": "clean", "count": 1, "size": 8 * MIB} in found["namespaces"]
        assert (found["work"], found["faults"]) == ([], [])
        assert all(list(group) == list(schema("Status: namespaces")) for group in found["namespaces"])

    def test_without_a_ledger_none_is_made(self, host, status):
        assert status("status", "-x") == "5 namespaces, no faults\n"
        assert status("status", "-x", "-f", "json")
        assert not host.state_path.exists()

    def test_a_wipe_that_runs(self, host, status):
        host.pool()
        uuid = move(host, "large0", State.DIRTY)
        records = ledger.Ledger(host.state_path)
        run = records.begin_wipe(uuid, 0)
        ended = threading.Event()

        def work():
            for done in range(1 * MIB, 8 * MIB, 4096):
                if ended.is_set():
                    return
                records.progress(uuid, run, wiped=done)
                time.sleep(0.02)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            found = json.loads(terminal.run(["--config-file", host.config_file(), "status", "-f", "json"])[1])
            out = terminal.run(["--config-file", host.config_file(), "status"])[1]
        finally:
            ended.set()
            thread.join()
            records.close()
        (work_item,) = found["work"]
        assert list(work_item) == list(schema("Status: work"))
        assert (work_item["name"], work_item["active"], work_item["total"]) == ("large0", True, 16 * MIB)
        assert found["faults"] == []
        assert re.search(r"large0: \d+% wiped\n", out)


class TestBrokenHost:
    @pytest.fixture
    def old(self, monkeypatch):
        """Nothing has moved for long."""
        from vpmem_driver.checkup import namespaces

        monkeypatch.setattr(namespaces, "PATIENCE", namespaces.PATIENCE * 0)

    def test_every_fault_of_a_namespace_has_its_remedy(self, host, status, old):
        host.pool()
        move(host, "large0", State.DIRTY, State.QUARANTINED, reason="byte 4096 is not zero")
        move(host, "small0", State.DIRTY)
        host.path("small1").unlink()
        out = status("status", "-f", "json")
        assert faults(out) == ["VPMEM-N01", "VPMEM-N04", "VPMEM-N02"]
        assert all(list(fault) == list(schema("Findings")) for fault in json.loads(out)["faults"])
        page = status("status")
        assert re.search(r"^state +3 faults$", page, re.MULTILINE)
        assert re.search(r"VPMEM-N01 namespace large0: byte 4096 is not zero\n +Look at", page)
        assert max(map(len, page.splitlines())) <= 100
        line = status("status", "-x", code=8)
        assert line == (
            "3 faults: namespace large0 (VPMEM-N01), namespace small0 (VPMEM-N04), namespace small1 (VPMEM-N02)\n"
        )

    def test_a_reservation_whose_process_has_ended(self, host, status, old):
        host.pool()
        records = ledger.Ledger(host.state_path)
        with records.transaction():
            row = next(row for row in records.rows() if row.name == "small0")
            records.move(row, State.DIRTY, "reserved", owner=new_owner(), position=0, reservation="r")
        records.close()
        assert faults(status("status", "-f", "json")) == ["VPMEM-N05"]

    def test_a_configuration_that_does_not_match_the_host(self, host, status):
        host.pmem_namespaces.append("HUGE:nowhere")
        out = status("status", "-f", "json")
        assert faults(out) == ["VPMEM-E01"]
        assert sum(group["count"] for group in json.loads(out)["namespaces"]) == 5, "the others are shown"

    def test_namespaces_that_cannot_be_listed(self, host, status, used):  # noqa: F811
        host.options["directory"] = host.directory / "nowhere"
        out = status("status", "-f", "json")
        assert faults(out) == ["VPMEM-E14"]
        assert {group["state"] for group in json.loads(out)["namespaces"]} == {"claimed", "clean", "unknown"}
        assert status("status", "-x", code=8).startswith("1 fault: configuration and ledger (VPMEM-E14)")

    def test_a_damaged_ledger(self, host, status):
        host.state_path.mkdir()
        (host.state_path / ledger.FILE_NAME).write_bytes(b"garbage" * 1000)
        assert faults(status("status", "-f", "json")) == ["VPMEM-E16"]
        assert "(not read)" in status("status")

    @pytest.mark.parametrize(("version", "name"), [(99, "VPMEM-E17"), (1, "VPMEM-E15")])
    def test_a_ledger_of_another_version(self, host, status, version, name):
        host.pool()
        host.close()
        database = sqlite3.connect(host.state_path / ledger.FILE_NAME)
        database.execute(f"PRAGMA user_version = {version}")
        database.close()
        assert faults(status("status", "-f", "json")) == [name]

    def test_a_ledger_that_this_user_may_not_read(self, host, vpmem, tmp_path):  # noqa: F811
        if os.geteuid() != 0:
            pytest.skip("only root can become another user")
        host.pool()
        host.close()
        vpmem("status")  # all modules are loaded now
        os.chown(host.config_file(), 65534, 65534)
        with unprivileged(tmp_path):
            code, out, err = vpmem("status", "-f", "json")
        assert code == 0, err
        assert faults(out) == ["VPMEM-E15"]
        assert "Run this as root or as its user" in json.loads(out)["faults"][0]["message"]

    def test_a_wrong_option_is_an_error(self, host, refused):  # noqa: F811
        host.options["discovery"] = "guess"
        assert "(VPMEM-E02)" in refused(2, "status")
        assert "(VPMEM-E02)" in refused(2, "host", "check")

    def test_wrong_arguments(self, vpmem):  # noqa: F811
        for words in (("status", "-f", "xml"), ("status", "ns0"), ("host", "check", "ns0"), ("host",)):
            assert vpmem(*words)[0] == 2


class TestNobodyIsWaitedFor:
    def test_a_process_that_holds_the_lock_of_the_ledger(self, host, status, used):  # noqa: F811
        host.close()
        with (host.state_path / "ledger.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            started = time.monotonic()
            assert status("status", "-x") == "6 namespaces, no faults\n"
            assert time.monotonic() - started < 5

    def test_a_transaction_that_does_not_end(self, host, status, used):  # noqa: F811
        host.close()
        database = sqlite3.connect(host.state_path / ledger.FILE_NAME, isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE namespace SET reason = 'not committed'")
        try:
            assert status("status", "-x") == "6 namespaces, no faults\n"
        finally:
            database.execute("ROLLBACK")
            database.close()

    def test_a_libvirt_that_says_nothing(self, host, status, vpmem, used, tmp_path, monkeypatch):  # noqa: F811
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "silent-sock"))
            listener.listen()
            host.options["connection_uri"] = f"qemu:///system?socket={tmp_path / 'silent-sock'}"
            assert status("status", "-x") == "6 namespaces, no faults\n"
            monkeypatch.setattr(virtualization, "LIMIT_SECONDS", 0.3)
            code, out, err = vpmem("host", "check", "-f", "json")
        found = json.loads(out)
        assert (code == 8) == any(finding["level"] == "failure" for finding in found), err
        (libvirt,) = [finding for finding in found if finding["check"] == "libvirt"]
        assert (libvirt["level"], libvirt["id"]) == ("warning", "VPMEM-C22"), "it may only be busy"
        assert "did not answer within 0.3 seconds" in libvirt["message"]

    def test_a_reader_never_writes(self, host, used):  # noqa: F811
        reader = LedgerReader(host.state_path)
        row = reader.rows()[0]
        with pytest.raises(AssertionError, match="does not write"), reader.transaction():
            pass
        from vpmem_driver import exception

        with pytest.raises(exception.LedgerError):
            reader.move(row, State.DIRTY, "no")
        reader.close()


class TestHostCheck:
    def test_json_has_the_documented_keys(self, host, vpmem):  # noqa: F811
        code, out, err = vpmem("host", "check", "-f", "json")
        found = json.loads(out)
        assert code in {0, 8}, err
        assert all(list(finding) == list(schema("Findings")) for finding in found)
        checks = {finding["check"] for finding in found}
        assert {"configuration", "devices", "ledger space", "QEMU", "libvirt", "PID namespace"} <= checks
        assert (code == 8) == any(finding["level"] == "failure" for finding in found)
        for finding in found:
            assert (finding["id"] is not None) == (finding["level"] in {"warning", "failure"}), finding

    def test_a_page_has_a_line_for_each_check_and_each_remedy(self, host, status, vpmem, used):  # noqa: F811
        move(host, "large0", State.DIRTY, State.QUARANTINED, reason="byte 4096 is not zero")
        out = status("host", "check", code=8)
        assert re.search(r"^failure +namespace large0 +byte 4096 is not zero$", out, re.MULTILINE)
        assert "\nVPMEM-N01 namespace large0: byte 4096 is not zero\n    Look at the reason" in out
        assert re.fullmatch(r"\d+ ok, \d+ unseen, \d+ warning, \d+ failure", out.splitlines()[-1])

    def test_another_libvirt(self, status):
        code, out, err = 0, status("host", "check", "-f", "json", "--connect", "nosuch:///system", code=8), ""
        assert "VPMEM-E20" in out, (code, err)

    def test_as_an_ordinary_user(self, host, vpmem, tmp_path, used):  # noqa: F811
        if os.geteuid() != 0:
            pytest.skip("only root can become another user")
        host.close()
        vpmem("host", "check")  # all modules are loaded now
        os.chown(host.config_file(), 65534, 65534)
        before = files(host)
        with unprivileged(tmp_path):
            code, out, err = vpmem("host", "check", "-f", "json")
        assert code == 8, err
        found = {finding["check"]: finding for finding in json.loads(out)}
        assert found["devices"]["level"] == "unseen"
        assert found["configuration and ledger"]["id"] == "VPMEM-E15"
        assert files(host) == before

    @pytest.mark.parametrize("words", [("status",), ("status", "-x"), ("host", "check")], ids=" ".join)
    @pytest.mark.parametrize(
        ("width", "environment"),
        [(100, {}), (80, {"NO_COLOR": "1"}), (80, terminal.ASCII)],
        ids=["colour", "NO_COLOR", "ASCII"],
    )
    def test_every_line_fits(self, host, used, words, width, environment):  # noqa: F811
        move(host, "large0", State.DIRTY, State.QUARANTINED, reason="byte 4096 is not zero")
        code, out, err = terminal.run(
            ["--config-file", host.config_file(), *words], width=width, environment=environment
        )
        assert code in {0, 8}, err
        plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
        paths = [line for line in plain.splitlines() if str(host.state_path) in line]  # a path is never cut
        assert all(tables.width_of(line) <= width for line in plain.splitlines() if line not in paths), out
        assert plain.isascii()
        assert ("\x1b[" in out) == ("NO_COLOR" not in environment and words != ("status", "-x"))
