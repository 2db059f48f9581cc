"""Listings: what people see on a terminal, and what programs can rely on."""

import csv
import io
import pathlib
import re
import subprocess
import sys
import time

import pytest
import yaml

from tests.functional import terminal
from tests.functional.conftest import MIB, Host, new_owner
from tests.functional.test_cli import KEYS, refused, vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_cli_domains import DOMAIN, URI, connection  # noqa: F401  fixtures
from vpmem_driver import exception, ledger, libvirt_domains
from vpmem_driver.cli import main, tables
from vpmem_driver.model import State

PAGE = pathlib.Path(__file__).parents[2] / "doc" / "listings.md"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def schema(title: str) -> dict[str, list[str]]:
    """The keys of a listing in the documentation, and the types of each."""
    section = PAGE.read_text(encoding="utf-8").split(f"### {title}\n")[1].split("\n### ")[0].split("\n## ")[0]
    return {key: types.split(" or ") for key, types in re.findall(r"^\| `(\w+)` \| ([\w ]+) \|", section, re.MULTILINE)}


TYPES = {"boolean": bool, "string": str, "integer": int, "number": float, "array": list, "null": type(None)}


def check(rows, title):
    described = schema(title)
    for row in rows:
        assert list(row) == list(described)
        for key, value in row.items():
            assert type(value) in {TYPES[name] for name in described[key]}, (key, value)


def move(host, name, *states, owner=None, reason=None):
    """Move a namespace through states in the ledger, without a wipe."""
    records = ledger.Ledger(host.state_path)
    for state in states:
        (row,) = [row for row in records.rows() if row.name == name]
        held = {"owner": owner, "position": records.next_position(owner)} if state is State.CLAIMED else {}
        with records.transaction():
            records.move(row, state, "for the test", reason=reason, **held)
    records.close()
    return row.uuid


@pytest.fixture
def used(host):
    """A host with claimed, clean, unknown and unusable namespaces; returns the owner of the claimed one."""
    owner = new_owner()
    host.pool()
    move(host, "small0", State.DIRTY, State.CLAIMED, owner=owner)
    move(host, "small1", State.DIRTY, State.CLEAN)
    move(host, "large0", State.DIRTY, State.CLAIMED, State.DIRTY, State.CLEAN, owner=owner)
    (host.directory / "empty").touch()
    return owner


class TestForPrograms:
    def test_every_listing_of_namespaces_has_the_documented_keys(self, vpmem_json, used):  # noqa: F811
        assert list(schema("Namespaces")) == KEYS
        check(vpmem_json("namespace", "list", "--all"), "Namespaces")
        check([vpmem_json("namespace", "show", "small0")], "Namespaces")
        check(vpmem_json("claim", new_owner(), "LARGE"), "Namespaces")
        check(vpmem_json("wipe", "--dry-run", "--namespace", "small2"), "Namespaces")
        check(vpmem_json("adopt", used, "small2"), "Namespaces")
        check(vpmem_json("release", used, "--dry-run"), "Namespaces")

    def test_the_history_has_the_documented_keys(self, vpmem_json, used):  # noqa: F811
        moves = vpmem_json("history")
        check(moves, "Changes of state")
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", move["at"]) for move in moves)

    def test_changed_definitions_have_the_documented_keys(self, host, vpmem_json, connection):  # noqa: F811
        owner = new_owner()
        connection.defineXML(DOMAIN.format(name=f"db-{owner[:4]}", uuid=owner))
        host.pool()
        move(host, "small0", State.DIRTY, State.CLEAN)
        vpmem_json("domain", "attach", owner, "SMALL", "--connect", URI)
        host.path("small0").parent.rename(host.directory / "node7")
        changes = vpmem_json("domain", "refresh", "--connect", URI)
        check(changes, "Changes of domain definitions")
        assert changes[0]["now"].endswith("node7/small0")

    def test_the_states_are_those_of_the_ledger(self):
        line, *_ = re.findall(r"^\| `state` \|.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
        assert {state.value for state in State} <= set(re.findall(r"`(\w+)`", line))

    def test_every_format_has_the_same_values(self, vpmem, vpmem_json, used):  # noqa: F811
        expected = vpmem_json("namespace", "list", "--all")
        assert yaml.safe_load(vpmem("namespace", "list", "--all", "-f", "yaml")[1]) == expected
        lines = list(csv.DictReader(io.StringIO(vpmem("namespace", "list", "--all", "-f", "csv")[1])))
        assert lines == [{key: str(cell) for key, cell in row.items()} for row in expected]
        first = vpmem("namespace", "list", "--all", "-f", "value")[1].splitlines()[0]
        assert first.split()[:2] == [str(expected[0]["uuid"]), str(expected[0]["name"])]
        assert " None" in first

    def test_raw_columns_of_a_table(self, vpmem, used):  # noqa: F811
        out = vpmem("namespace", "list", "-c", "size", "-c", "owner")[1]
        assert re.search(rf"\| +{4 * MIB} \| {used} \|", out)

    def test_by_sorts_and_changes_nothing_else(self, vpmem_json, used):  # noqa: F811
        rows = vpmem_json("namespace", "list", "--by", "node")
        assert [row["numa_node"] for row in rows] == [0, 0, 0, 1, 1]
        assert [row["owner"] for row in vpmem_json("namespace", "list", "--by", "owner")] == [used, *[None] * 4]
        assert sorted(map(str, rows)) == sorted(map(str, vpmem_json("namespace", "list")))


class TestForPeople:
    def test_a_pipe_gets_everything_in_plain_ascii(self, vpmem, used):  # noqa: F811
        code, out, _ = vpmem("namespace", "list")
        assert code == 0
        assert out.splitlines() == [
            "NAME    LABEL      SIZE  NODE  STATE    OWNER",
            "large0  LARGE  8.00 MiB     0  clean",
            "large1  LARGE  8.00 MiB     1  unknown",
            f"small0  SMALL   4194304     0  claimed  {used[:8]}",
            "small1  SMALL   4194304     1  clean",
            "small2  SMALL   4194304     0  unknown",
        ]

    def test_long_has_everything(self, host, vpmem, vpmem_json, used):  # noqa: F811
        host.options["directory"] = host.directory
        out = vpmem("namespace", "list", "--all", "--long")[1]
        for row in vpmem_json("namespace", "list", "--all"):
            shown = {key: value for key, value in row.items() if "size" not in key and key != "volatile"}
            values = [value for value in shown.values() if value is not None]
            (line,) = [line for line in out.splitlines() if line.startswith(row["name"] + " ")]
            assert all(str(value) in line for value in values)
        assert "8.00 MiB (8.39 MB)" in out
        header, *lines = out.splitlines()
        (line,) = [line for line in lines if used in line]
        assert re.search(r"MODEL +LABEL AREA +GUEST SEES", header)
        assert re.search(rf"{used} +nvdimm +2097152 +2097152 *$", line), "4 MiB, without the label area"

    def test_groups(self, vpmem, used):  # noqa: F811
        out = vpmem("namespace", "list", "--by", "node")[1]
        assert [line for line in out.splitlines() if ":" in line] == [
            "node 0: 3 namespaces, 16.00 MiB",
            "node 1: 2 namespaces, 12.00 MiB",
        ]
        out = vpmem("namespace", "list", "--by", "owner")[1]
        assert f"owner {used}: 1 namespace, 4194304\n" in out
        assert "no owner: 4 namespaces, 24.00 MiB\n" in out
        assert vpmem("namespace", "list", "--by", "size")[0] == 2

    def test_show(self, vpmem, vpmem_json, used):  # noqa: F811
        out = vpmem("namespace", "show", "large0")[1]
        assert re.search(r"^size +8\.00 MiB \(8\.39 MB\)$", out, re.MULTILINE)
        assert re.search(r"^state +clean$", out, re.MULTILINE)
        assert "owner" not in out
        assert "device model" not in out
        assert re.search(r"^guest sees +6\.00 MiB \(6\.29 MB\)$", out, re.MULTILINE)
        (name,) = [row["name"] for row in vpmem_json("namespace", "list") if row["owner"] == used]
        out = vpmem("namespace", "show", name)[1]
        assert re.search(r"^device model +nvdimm$", out, re.MULTILINE)
        assert re.search(r"^label area +2097152$", out, re.MULTILINE)
        assert re.search(r"^guest sees +2097152$", out, re.MULTILINE)

    def test_history(self, vpmem, used):  # noqa: F811
        out = vpmem("history", "--namespace", "large0")[1].splitlines()
        assert out[0].split() == ["TIME", "(UTC)", "NAME", "CHANGE", "OWNER", "REASON"]
        assert re.fullmatch(rf"\S{{10}} \S{{8}}  large0  claimed -> dirty  +{used[:8]}  for the test", out[-2])

    def test_nothing_to_list(self, vpmem):  # noqa: F811
        assert vpmem("wipe", "--dry-run")[1] == ""
        assert vpmem("wipe", "--dry-run", "--print-empty")[1].startswith("NAME  LABEL  SIZE")

    def test_a_width_on_request(self, host, vpmem):  # noqa: F811
        host.make("n" * 60, size=8 * MIB)
        out = vpmem("namespace", "list", "--all", "--max-width", "60")[1]
        assert max(map(len, out.splitlines())) == 60

    def test_the_owner_is_the_name_of_its_domain(self, host, vpmem, connection):  # noqa: F811
        owner = new_owner()
        connection.defineXML(DOMAIN.format(name=f"db-{owner[:4]}", uuid=owner))
        host.pool()
        move(host, "small0", State.DIRTY, State.CLEAN)
        out = vpmem("domain", "attach", owner, "SMALL", "--connect", URI)[1]
        assert f"  claimed  db-{owner[:4]}\n" in out


class TestNames:
    """Which names libvirt has for owners."""

    NOVA = (
        "<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>"
        "<nova:name>{name}</nova:name></nova:instance></metadata>"
    )

    def define(self, connection, names):  # noqa: F811
        uuids = []
        for number, display in enumerate(names):
            uuids.append(new_owner())
            xml = DOMAIN.format(name=f"instance-{uuids[-1][:8]}-{number}", uuid=uuids[-1])
            metadata = "" if display is None else self.NOVA.format(name=display)
            connection.defineXML(xml.replace("<vcpu>", metadata + "<vcpu>"))
        return uuids

    def test_the_display_name_of_an_instance(self, connection):  # noqa: F811
        first, second = self.define(connection, ["web &amp; db", None])
        names = libvirt_domains.Domains(URI).names([first, second, new_owner()])
        assert names == {first: "web & db", second: f"instance-{second[:8]}-1"}

    def test_two_instances_with_one_display_name(self, connection):  # noqa: F811
        first, second = self.define(connection, ["web", "web"])
        names = libvirt_domains.Domains(URI).names([first, second])
        assert names == {first: f"instance-{first[:8]}-0", second: f"instance-{second[:8]}-1"}

    def test_without_owners_libvirt_is_not_asked(self):
        assert libvirt_domains.Domains("nosuch:///system").names([]) == {}

    def test_a_time_limit(self, monkeypatch):
        asked = libvirt_domains.Domains(URI)
        monkeypatch.setattr(asked, "_names", lambda uuids: time.sleep(2))
        with pytest.raises(exception.LibvirtError, match=r"no answer after 0\.1 seconds"):
            asked.names([new_owner()], limit=0.1)
        asked._unanswered.join(30)


def lines(out):
    return ESCAPE.sub("", out).splitlines()


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """The options of a host with long names and reasons, and a namespace in most states."""
    made = Host(tmp_path_factory.mktemp("crowded"))
    for name, node in (("a-namespace-with-a-rather-long-name", 1), ("large0", 0), ("small0", 0), ("small1", None)):
        made.make(name, node=node, size=8 * MIB)
    made.pmem_namespaces = ["A_LABEL_OF_SOME_LENGTH:a-namespace-with-a-rather-long-name", "L:large0", "S:small0|small1"]
    made.pool()
    made.close()
    move(made, "a-namespace-with-a-rather-long-name", State.DIRTY, State.QUARANTINED, reason="byte 4096 is not zero")
    move(made, "large0", State.DIRTY, State.CLAIMED, owner=new_owner())
    return ["--config-file", made.config_file()]


ENVIRONMENTS = {
    "colour": {},
    "NO_COLOR": {"NO_COLOR": "1"},
    "C locale": {"LC_ALL": "C"},
    "ASCII": terminal.ASCII,
}


class TestTerminal:
    @pytest.mark.parametrize(
        "words",
        [
            ("namespace", "list"),
            ("namespace", "list", "--all", "--by", "state"),
            ("history",),
            ("explain",),
            ("explain", "E12"),
        ],
        ids=" ".join,
    )
    @pytest.mark.parametrize(
        ("width", "environment"), [(100, "colour"), (80, "NO_COLOR"), (80, "C locale"), (80, "ASCII")]
    )
    def test_every_line_fits(self, crowded, words, width, environment):
        code, out, err = terminal.run([*crowded, *words], width=width, environment=ENVIRONMENTS[environment])
        assert code == 0, err
        assert all(tables.width_of(line) <= width for line in lines(out)), out
        assert ("\x1b[" in out) == (environment != "NO_COLOR" and words != ("explain", "E12"))
        assert out.isascii()
        if words == ("namespace", "list"):
            (quarantined,) = [line for line in lines(out) if "quarantined" in line]
            assert quarantined.startswith("a-nam")
            assert "byte 4096 is not" in quarantined

    def test_states_have_colours(self, crowded):
        out = terminal.run([*crowded, "namespace", "list"])[1]
        assert "\x1b[31mquarantined\x1b[0m" in out
        assert "\x1b[36mclaimed\x1b[0m" in out

    def test_a_wipe_has_a_speed_and_time_left(self, host, vpmem):  # noqa: F811
        host.options["wipe_rate"] = 1  # 16 s for both passes over 8 MiB
        host.pool()
        uuid = move(host, "large0", State.DIRTY)
        wiping = subprocess.Popen(
            [sys.executable, "-m", "vpmem_driver.cli.main", "--config-file", host.config_file(), "wipe"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            words = ["--config-file", host.config_file(), "namespace", "list"]
            pattern = r"dirty, \d+% (?:wip|verifi)ed, (\S+) MiB/s, (\d+)s left"
            while not (found := re.search(pattern, terminal.run(words)[1])):
                assert wiping.poll() is None, vpmem("history", "--namespace", uuid)
            assert 0.1 < float(found[1]) < 3
            assert int(found[2]) <= 160
        finally:
            wiping.terminate()
            wiping.wait()

    def test_a_pipe_does_not_wait_for_the_speed(self, host, vpmem):  # noqa: F811
        host.pool()
        uuid = move(host, "large0", State.DIRTY)
        records = ledger.Ledger(host.state_path)
        records.progress(uuid, records.begin_wipe(uuid, 0), wiped=2 * MIB)
        records.close()
        out = vpmem("namespace", "list")[1]
        assert re.search(r"large0 .* dirty, 25% wiped$", out, re.MULTILINE)


class TestExplain:
    @pytest.mark.parametrize("name", ["VPMEM-E12", "e12"])
    def test_a_fault(self, vpmem, name):  # noqa: F811
        code, out, _ = vpmem("explain", name)
        assert code == 0
        assert out.startswith("VPMEM-E12: the namespace is reserved")
        assert "What to do:" in out
        assert out.endswith("See doc/faults.md#vpmem-e12\n")
        assert max(map(len, out.splitlines())) <= 100

    def test_what_is_no_fault(self, refused):  # noqa: F811
        assert "id 'E99': no fault has it. 'vpmem explain' lists the faults. (VPMEM-E04)" in refused(
            2, "explain", "E99"
        )

    def test_every_message_ends_with_the_id_of_its_error(self, vpmem):  # noqa: F811
        err = vpmem("claim", new_owner(), "HUGE")[2]
        assert err.endswith("Configured labels: LARGE, SMALL. (VPMEM-E04)\n")

    def test_it_needs_no_configuration_and_no_ledger(self):
        with_nothing = main.VPMEMApp().run(["--config-file", "/nonexistent.conf", "explain"])
        assert with_nothing == 0


def test_a_size_with_a_unit(vpmem, used):  # noqa: F811
    owner = used
    for size, kib in (("64", 65536), ("64MiB", 65536), ("1G", 1048576)):
        out = vpmem("domain", "xml", owner, "--memory", size)[1]
        assert f'<currentMemory unit="KiB">{kib}<' in out
    for size in ("4GB", "1K", "x", "8P"):
        code, out, err = vpmem("domain", "xml", owner, "--memory", size)
        assert (code, out) == (2, "")
        assert f"--memory: '{size}': it is not" in err
