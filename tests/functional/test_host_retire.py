"""vpmem host retire: everything is wiped and read back, and the report says only what is true."""

import json
import re
import subprocess
import sys

import pytest

from tests.functional import terminal
from tests.functional.conftest import fill, is_zero, new_owner
from tests.functional.test_cli import refused, vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_listing import move, schema, used  # noqa: F401  fixtures
from tests.functional.test_status import files
from vpmem_driver import exception, model
from vpmem_driver.cli import tables
from vpmem_driver.model import State

NAMES = ("large0", "large1", "small0", "small1", "small2")


@pytest.fixture
def retire(vpmem):  # noqa: F811
    """Run it; returns the report. It must exit with `code`."""

    def run(*words, code=0):
        result, out, err = vpmem("host", "retire", "-f", "json", *words)
        assert result == code, err
        report = json.loads(out)
        assert list(report) == list(schema("Retired host"))
        assert all(list(item) == list(schema("Retired namespaces")) for item in report["namespaces"])
        return report

    return run


@pytest.fixture
def released(host):
    """Nobody holds anything. One is clean, or was when it was wiped: a byte has changed since."""
    host.pool()
    move(host, "small0", State.DIRTY, State.CLEAN)
    move(host, "large0", State.DIRTY, State.CLAIMED, State.DIRTY, owner=new_owner())
    move(host, "large1", State.DIRTY, State.QUARANTINED, reason="byte 0 is not zero")


def results(report):
    return {item["name"]: item["result"] for item in report["namespaces"]}


class TestRetired:
    def test_everything_is_wiped_and_verified(self, host, released, retire, vpmem_json):  # noqa: F811
        assert results(retire()) == dict.fromkeys(NAMES, "planned")
        report = retire("--yes")
        assert results(report) == dict.fromkeys(NAMES, "verified")
        assert report["complete"] is True
        assert all(is_zero(host.path(name)) for name in NAMES), "the clean one too"
        for item in report["namespaces"]:
            assert report["begun"][:19] <= item["verified_at"][:19] <= report["ended"][:19]
        assert {row["state"] for row in vpmem_json("namespace", "list")} == {"clean"}
        assert [line["reason"] for line in vpmem_json("history", "--namespace", "small0")][-2:] == [
            "host retired",
            "wiped",
        ]

    def test_a_dry_run_changes_nothing(self, host, released, retire, vpmem):  # noqa: F811
        before = files(host), [host.path(name).read_bytes() for name in NAMES]
        report = retire()
        assert (report["complete"], report["begun"], report["ended"]) == (False, None, None)
        assert "Nothing was changed" in vpmem("host", "retire")[1]
        assert (files(host), [host.path(name).read_bytes() for name in NAMES]) == before

    def test_nobody_gets_anything_until_it_is_cancelled(self, host, released, retire, refused, vpmem, vpmem_json):  # noqa: F811
        assert "retired" not in vpmem("status")[1]
        retire("--yes")
        assert re.search("^service +retired: no owner gets a namespace$", vpmem("status")[1], re.MULTILINE)
        owner = new_owner()
        assert "(VPMEM-E27)" in refused(4, "claim", owner, "SMALL")
        pool = host.pool()
        (uuid,) = [row.uuid for row in pool.rows() if row.name == "small0"]
        with pytest.raises(exception.HostRetired):
            pool.claim_exact(owner, [uuid])
        source = model.Grant(
            owner=owner,
            uuid=new_owner(),
            name="far",
            label="SMALL",
            size=4 << 20,
            align=4096,
            numa_node=0,
            device=None,
            known_device=None,
            pmem=False,
        )
        with pytest.raises(exception.HostRetired):
            pool.copies.expect_exact(owner, "copy", [uuid], [source])
        assert pool.held(owner) == []
        assert pool.free("CUSTOM_PMEM_NAMESPACE_SMALL", ()) == 0
        assert pool.next_free("CUSTOM_PMEM_NAMESPACE_SMALL", ()) is None
        assert vpmem("host", "retire", "--cancel")[:2] == (0, "")
        assert pool.free("CUSTOM_PMEM_NAMESPACE_SMALL", ()) == 3
        assert vpmem_json("claim", owner, "SMALL")[0]["owner"] == owner
        assert "the host is not retired" in refused(2, "host", "retire", "--cancel")

    def test_what_a_domain_has_can_still_be_adopted(self, host, released, retire):
        retire("--yes")
        owner, pool = new_owner(), host.pool()
        (uuid,) = [row.uuid for row in pool.rows() if row.name == "small0"]
        (grant,) = pool.adopt(owner, [uuid], in_domain=True)
        assert (grant.owner, grant.uuid) == (owner, uuid)


class TestNotComplete:
    def test_others_are_left_alone_and_the_report_says_so(self, host, released, retire):
        content = host.make("other").read_bytes()
        (host.directory / "empty").touch()
        report = retire("--yes", code=8)
        assert report["complete"] is False
        left = {item["name"]: item["reason"] for item in report["namespaces"] if item["result"] == "left"}
        assert set(left) == {"other", "empty"}
        assert "it has no label" in left["other"]
        assert host.path("other").read_bytes() == content

    def test_one_is_missing(self, host, released, retire):
        host.path("small1").unlink()
        report = retire("--yes", code=8)
        assert (report["complete"], results(report)["small1"]) == (False, "left")

    def test_the_medium_is_bad(self, host, released, retire, vpmem):  # noqa: F811
        host.options["wipe_command"] = host.forgetful(host.path("small0"), 100)
        report = retire("--yes", code=6)
        assert report["complete"] is False
        (failed,) = [item for item in report["namespaces"] if item["result"] == "failed"]
        assert (failed["name"], failed["verified_at"]) == ("small0", None)
        assert "byte 100 is not zero" in failed["reason"]
        assert results(report)["large0"] == "verified"

    def test_a_process_has_one(self, host, released, retire):
        pattern = fill(host.path("small2"))
        code = "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); print('ready', flush=1)"
        with subprocess.Popen(
            [sys.executable, "-c", f"{code}; sys.stdin.read()", host.path("small2")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout.readline() == b"ready\n"
            report = retire("--yes", code=4)
            process.stdin.close()
        assert (report["complete"], results(report)["small2"]) == (False, "failed")
        assert host.path("small2").read_bytes() == pattern
        assert retire("--yes")["complete"] is True, "it can be repeated"


class TestRefused:
    @pytest.mark.parametrize("words", [(), ("--yes",)], ids=["dry run", "yes"])
    def test_somebody_holds_one(self, host, used, refused, vpmem_json, words):  # noqa: F811
        assert f"belongs to {used}" in refused(4, "host", "retire", *words)
        host.path("small0").unlink()
        assert f"belongs to {used}" in refused(4, "host", "retire", *words), "also while it is missing"
        assert not host.pool().maintenance.is_retired()

    def test_somebody_has_reserved_one(self, host, refused):  # noqa: F811
        from vpmem_driver import ledger

        host.pool()
        records = ledger.Ledger(host.state_path)
        with records.transaction():
            row = next(row for row in records.rows() if row.name == "small0")
            records.move(row, State.DIRTY, "reserved", owner=new_owner(), position=0, reservation="r")
        records.close()
        assert "(VPMEM-E09)" in refused(4, "host", "retire", "--yes")

    def test_wrong_arguments(self, vpmem):  # noqa: F811
        for words in (("--yes", "--cancel"), ("ns0",), ("-f", "xml")):
            assert vpmem("host", "retire", *words)[0] == 2


@pytest.mark.parametrize(
    ("width", "environment"),
    [(100, {}), (80, {"NO_COLOR": "1"}), (80, terminal.ASCII)],
    ids=["colour", "NO_COLOR", "ASCII"],
)
def test_every_line_fits(host, released, width, environment):
    (host.directory / "empty").touch()
    words = ["--config-file", host.config_file(), "host", "retire", "--yes"]
    code, out, err = terminal.run(words, width=width, environment=environment)
    assert code == 8, err
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    paths = [line for line in plain.splitlines() if str(host.state_path) in line]  # a path is never cut
    assert all(tables.width_of(line) <= width for line in plain.splitlines() if line not in paths), out
    assert re.search(r"^complete +no$", plain, re.MULTILINE)
    assert ("\x1b[" in out) == ("NO_COLOR" not in environment)
