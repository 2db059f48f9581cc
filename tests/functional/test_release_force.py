"""vpmem release --force: what an owner has left that does not exist any more."""

import io
import subprocess
import sys

import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from tests.functional.test_cli import refused, vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_cli_domains import URI, connection  # noqa: F401  fixtures
from tests.functional.test_reconcile import defined
from tests.functional.test_renumbered import attached, new_domain  # noqa: F401  fixtures

WHY = ("--force", "--reason", "ticket 4711: deleted by hand")


@pytest.fixture
def gone(host, vpmem_json):  # noqa: F811
    """An owner that holds large0 and small0 and has no domain."""
    host.options["connection_uri"] = URI
    owner = new_owner()
    vpmem_json("claim", owner, "LARGE,SMALL")
    fill(host.path("large0"))
    fill(host.path("small0"))
    return owner


class Typed(io.StringIO):
    """What a person types on a terminal."""

    def isatty(self):
        return True


class TestReleased:
    def test_the_reason_is_in_the_history(self, host, gone, vpmem_json):  # noqa: F811
        released = vpmem_json("release", gone, *WHY, "--confirm", gone, "--wait")
        assert {(row["name"], row["state"]) for row in released} == {("large0", "clean"), ("small0", "clean")}
        assert is_zero(host.path("large0"))
        reasons = [move["reason"] for move in vpmem_json("history", "--namespace", "large0")]
        assert "released by force: ticket 4711: deleted by hand" in reasons

    def test_only_one_namespace(self, gone, vpmem_json):  # noqa: F811
        (released,) = vpmem_json("release", gone.upper(), "--namespace", "small0", *WHY, "--confirm", gone, "--wait")
        assert (released["name"], released["state"]) == ("small0", "clean")
        assert vpmem_json("namespace", "show", "large0")["owner"] == gone

    def test_typed_on_a_terminal(self, gone, vpmem, vpmem_json, monkeypatch):  # noqa: F811
        monkeypatch.setattr("sys.stdin", Typed(f" {gone}\n"))
        code, _, err = vpmem("release", gone, *WHY, "--wait")
        assert code == 0, err
        assert f"This erases large0, small0 of {gone}.\nType the uuid of the owner to continue: " in err
        assert vpmem_json("namespace", "show", "large0")["state"] == "clean"

    def test_a_dry_run_asks_nobody_and_changes_nothing(self, host, gone, vpmem_json):  # noqa: F811
        before = host.path("large0").read_bytes()
        assert [row["name"] for row in vpmem_json("release", gone, *WHY, "--dry-run")] == ["large0", "small0"]
        assert vpmem_json("namespace", "show", "large0")["owner"] == gone
        assert host.path("large0").read_bytes() == before


class TestRefused:
    @pytest.mark.parametrize("typed", ["", "yes\n", "y\n", "large0\n"])
    def test_something_else_is_typed(self, gone, refused, monkeypatch, typed):  # noqa: F811
        monkeypatch.setattr("sys.stdin", Typed(typed))
        assert "is not the uuid of the owner" in refused(2, "release", gone, *WHY)

    def test_nobody_can_be_asked(self, gone, refused, monkeypatch):  # noqa: F811
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{gone}\n"))
        assert "with --confirm" in refused(2, "release", gone, *WHY)
        assert "is not the uuid of the owner" in refused(2, "release", gone, *WHY, "--confirm", new_owner())

    def test_options_that_do_not_fit_together(self, gone, refused):  # noqa: F811
        assert "it needs a reason" in refused(2, "release", gone, "--force", "--confirm", gone)
        assert "only for --force" in refused(2, "release", gone, "--reason", "x")
        assert "only for --force" in refused(2, "release", gone, "--confirm", gone)

    @pytest.mark.parametrize("reason", ["", "  ", "a\nb", "\x1b[31m", "x" * 501])
    def test_a_reason_that_says_nothing(self, gone, refused, reason):  # noqa: F811
        assert "reason '" in refused(2, "release", gone, "--force", "--reason", reason, "--confirm", gone)

    def test_the_owner_exists(self, host, attached, refused):  # noqa: F811
        host.options["connection_uri"] = URI
        domain, _ = attached("SMALL")
        owner = domain.UUIDString()
        err = refused(4, "release", owner, *WHY, "--confirm", owner)
        assert f"Domain {domain.name()}: it exists" in err

    @pytest.mark.parametrize("is_running", [False, True], ids=["defined", "running"])
    def test_a_domain_has_it(self, host, connection, gone, refused, is_running):  # noqa: F811
        domain = defined(connection, host.path("large0"))
        if is_running:
            domain.create()
        assert f"of domain {domain.name()}" in refused(4, "release", gone, *WHY, "--confirm", gone)

    def test_a_process_has_it(self, host, gone, refused):  # noqa: F811
        code = "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); print('ready', flush=1)"
        with subprocess.Popen(
            [sys.executable, "-c", f"{code}; sys.stdin.read()", host.path("small0")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout.readline() == b"ready\n"
            assert f"process {process.pid}" in refused(4, "release", gone, *WHY, "--confirm", gone)
            process.stdin.close()

    def test_what_the_owner_does_not_hold(self, gone, refused):  # noqa: F811
        stranger = new_owner()
        assert "(VPMEM-E08)" in refused(4, "release", stranger, *WHY, "--confirm", stranger)
        assert "(VPMEM-E08)" in refused(4, "release", gone, "--namespace", "small1", *WHY, "--confirm", gone)
        assert "it is not a uuid" in refused(2, "release", "db1", *WHY, "--confirm", "db1")

    def test_a_libvirt_that_does_not_answer(self, host, gone, refused):  # noqa: F811
        host.options["connection_uri"] = "nosuch:///system"
        assert "(VPMEM-E20)" in refused(5, "release", gone, *WHY, "--confirm", gone)
