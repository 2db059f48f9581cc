"""vpmem reconcile: what ledger, devices, processes and libvirt's test driver say, and what it does about it."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import types

import libvirt
import pytest

from tests.functional import terminal
from tests.functional.conftest import fill, new_owner
from tests.functional.test_cli import snapshot, vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_cli_domains import DOMAIN, URI, connection, paths  # noqa: F401  fixtures
from tests.functional.test_listing import move, schema
from tests.functional.test_renumbered import attached, new_domain, swap  # noqa: F401  fixtures
from tests.functional.test_status import files
from tests.functional.test_users import DEVICES, xml
from vpmem_driver import guestxml, interpreter, model
from vpmem_driver.cli import tables
from vpmem_driver.model import State


@pytest.fixture
def reconcile(host, vpmem):  # noqa: F811
    """Run it; returns the findings as (namespace, id, action, done). It must exit with `code`."""

    def run(*words, code=8):
        result, out, err = vpmem("reconcile", "--connect", URI, "-f", "json", *words)
        assert result == code, err
        return [(each["check"], each["id"], each["action"], each["done"]) for each in json.loads(out)["findings"]]

    return run


@pytest.fixture
def lost(host):
    """Lose the ledger."""

    def lose():
        host.close()
        for file in host.state_path.iterdir():
            file.unlink()

    return lose


def owners(vpmem_json):  # noqa: F811
    return {row["name"]: row["owner"] for row in vpmem_json("namespace", "list") if row["owner"] is not None}


def device_name(path):
    return path.rpartition("/")[2]


def defined(connection, path, kind="nvdimm"):  # noqa: F811
    """A domain that was never attached: it has a path, and no alias says of what."""
    owner = new_owner()
    return connection.defineXML(xml(owner, DEVICES[kind], path))


class TestAgreement:
    def test_everything_agrees(self, attached, vpmem):  # noqa: F811
        domain, _ = attached("LARGE,SMALL")
        domain.create()
        code, out, err = vpmem("reconcile", "--connect", URI)
        assert code == 0, err
        assert out.endswith("\nLedger, devices, processes and domains agree.\n")
        assert re.search(rf"^large0 .* claimed +{domain.name()} +/\S+ +{domain.name()} \(running\)$", out, re.MULTILINE)

    def test_an_empty_host_without_libvirt(self, host, vpmem):  # noqa: F811
        host.options["connection_uri"] = URI
        code, out, _ = vpmem("reconcile")
        assert code == 0
        assert re.search(r"^small0 +4194304 +- +/\S+small0$", out, re.MULTILINE), "not in the ledger, which is not made"
        assert not host.state_path.exists()

    def test_json_has_the_documented_keys(self, attached, lost, vpmem):  # noqa: F811
        attached("SMALL")
        lost()
        _, out, _ = vpmem("reconcile", "--connect", URI, "-f", "json")
        found = json.loads(out)
        assert (list(found), found["libvirt"]) == (["libvirt", "nova", "namespaces", "findings"], URI)
        assert all(list(each) == list(schema("Reconcile: namespaces")) for each in found["namespaces"])
        uses = [use for each in found["namespaces"] for use in each["domains"]]
        assert len(uses) == 1
        assert list(uses[0]) == list(schema("Reconcile: domains"))
        assert [list(each) for each in found["findings"]] == [list(schema("Reconcile: findings"))]


class TestLostLedger:
    def test_all_is_adopted_again_in_the_order_of_the_devices(self, host, attached, lost, reconcile, vpmem_json):  # noqa: F811
        one, mine = attached("SMALL,LARGE")
        other, yours = attached("SMALL")
        before = owners(vpmem_json)
        order = [grant.uuid for grant in host.pool().grants(one.UUIDString())]
        lost()
        expected = [(f"namespace {name}", "VPMEM-N07", "adopt", False) for name in ("large0", "small0", "small1")]
        assert reconcile() == expected
        assert not any(host.state_path.iterdir()), "a dry run changes nothing"
        assert reconcile("--yes", code=0) == [(*each[:3], True) for each in expected]
        assert owners(vpmem_json) == before
        assert [grant.uuid for grant in host.pool().grants(one.UUIDString())] == order
        assert reconcile(code=0) == []
        for uuid, pattern in (mine | yours).items():
            (record,) = [row for row in vpmem_json("namespace", "list") if row["uuid"] == uuid]
            assert pathlib.Path(record["device"]).read_bytes() == pattern
        assert {other.UUIDString(), one.UUIDString()} == set(before.values())

    def test_and_the_devices_have_new_numbers(self, host, attached, lost, reconcile, vpmem_json):  # noqa: F811
        one, mine = attached("SMALL")
        other, yours = attached("SMALL")
        lost()
        swap(host, *(pathlib.Path(path).name for path in (*paths(one), *paths(other))))
        found = reconcile("--yes", code=0)
        assert {each[1:] for each in found} == {("VPMEM-N07", "adopt", True), ("VPMEM-N10", "refresh", True)}
        for domain, pattern in ((one, mine), (other, yours)):
            assert [pathlib.Path(path).read_bytes() for path in paths(domain)] == [*pattern.values()]

    @pytest.mark.parametrize("is_running", [False, True], ids=["defined", "running"])
    def test_the_hardware_of_the_guest_stays_what_it_is(self, host, connection, reconcile, is_running):  # noqa: F811
        hardware = {
            "small1": model.Hardware(model.DeviceModel.VIRTIO_PMEM, 0),
            "small0": model.Hardware(model.DeviceModel.NVDIMM, 0),
            "large0": model.IN_TREE,
        }
        pool, owner = host.pool(), new_owner()
        rows = {row.name: row for row in pool.rows()}
        grants = [dataclasses.replace(pool.grant(rows[name]), hardware=each) for name, each in hardware.items()]
        bare = DOMAIN.format(name="db", uuid=owner).replace("</domain>", "<devices/></domain>")
        domain = connection.defineXML(guestxml.add(bare, [dataclasses.replace(each, ready=True) for each in grants]))
        if is_running:
            domain.create()
        reconcile("--yes", code=0)
        held = host.pool().grants(owner)
        assert {grant.name: grant.hardware for grant in held} == hardware
        assert [grant.name for grant in held] == [device_name(path) for path in paths(domain)]

    def test_a_path_alone_proves_nothing_while_the_domain_is_shut_off(self, host, connection, reconcile, vpmem):  # noqa: F811
        domain = defined(connection, host.path("small0"))
        assert reconcile("--yes") == [("namespace small0", "VPMEM-N07", None, False)]
        out = vpmem("reconcile", "--connect", URI)[1]
        assert "only its path identifies it" in re.sub(r"\s+", " ", out)
        domain.create()
        assert reconcile("--yes", code=0) == [("namespace small0", "VPMEM-N07", "adopt", True)]

    def test_what_is_no_memory_is_not_adopted(self, host, connection, reconcile):  # noqa: F811
        defined(connection, host.path("small0"), "a file as disk").create()
        assert reconcile("--yes") == [("namespace small0", "VPMEM-N07", None, False)]

    def test_two_domains_have_the_same(self, host, attached, connection, lost, reconcile, vpmem_json):  # noqa: F811
        domain, _ = attached("SMALL")
        copy = domain.XMLDesc().replace(domain.name(), "copy").replace(domain.UUIDString(), new_owner())
        connection.defineXML(copy)
        lost()
        assert reconcile("--yes") == [("namespace small0", "VPMEM-N11", None, False)]
        assert owners(vpmem_json) == {}

    def test_one_domain_that_fails_does_not_keep_the_others(self, host, attached, lost, vpmem, vpmem_json):  # noqa: F811
        one, _ = attached("LARGE,SMALL")
        other, _ = attached("SMALL")
        lost()
        # The ledger has one of the two namespaces for somebody else, since after the look.
        host.pool()
        stranger = new_owner()
        from vpmem_driver.pool import comparison

        compare = comparison.compare

        def compare_and_lose(*arguments):
            found = compare(*arguments)
            move(host, "small0", State.DIRTY, State.CLAIMED, owner=stranger)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(comparison, "compare", compare_and_lose)
            code, out, err = vpmem("reconcile", "--connect", URI, "-f", "json", "--yes")
        assert code == 8
        assert f"{one.UUIDString()} does not hold small0" in err
        assert {each["check"]: each["done"] for each in json.loads(out)["findings"]} == {
            "namespace large0": False,
            "namespace small0": False,
            "namespace small1": True,
        }
        assert owners(vpmem_json) == {"small0": stranger, "small1": other.UUIDString()}


class TestNeverAWipe:
    """Whatever disagrees: no byte, no owner and no definition changes, unless that keeps everything."""

    @pytest.fixture
    def nothing_is_done(self, host, connection, reconcile):  # noqa: F811
        def check(*expected):
            host.pool()
            before = snapshot(host), files(host), [domain.XMLDesc() for domain in connection.listAllDomains()]
            found = reconcile("--yes")
            # A directory, and so a domain that has it, has several namespaces.
            assert [each for each in found if each[0] in {f"namespace {name}" for name, _ in expected}] == [
                (f"namespace {name}", fault, None, False) for name, fault in expected
            ]
            assert {each[2:] for each in found} == {(None, False)}
            after = snapshot(host), files(host), [domain.XMLDesc() for domain in connection.listAllDomains()]
            assert after == before

        return check

    @pytest.mark.parametrize("kind", DEVICES)
    @pytest.mark.parametrize("is_running", [False, True], ids=["defined", "running"])
    def test_a_domain_has_what_belongs_to_another(
        self,
        host,
        connection,  # noqa: F811
        vpmem_json,  # noqa: F811
        nothing_is_done,
        kind,
        is_running,
    ):
        (claimed,) = vpmem_json("claim", new_owner(), "LARGE")
        domain = defined(connection, claimed["device"], kind)
        if is_running:
            domain.create()
        nothing_is_done((claimed["name"], "VPMEM-N08"))

    def test_it_contains_the_data_of_another(self, host, connection, attached, vpmem_json, nothing_is_done):  # noqa: F811
        attached("SMALL")
        host.pool()
        move(host, "small0", State.DIRTY)
        move(host, "small0", State.CLAIMED, State.DIRTY, owner=new_owner())
        nothing_is_done(("small0", "VPMEM-N07"))

    def test_its_wipe_has_begun(self, host, attached, nothing_is_done):  # noqa: F811
        attached("SMALL")
        host.pool()
        uuid = move(host, "small0", State.DIRTY)
        from vpmem_driver import ledger

        records = ledger.Ledger(host.state_path)
        records.begin_wipe(uuid, 0)
        records.close()
        nothing_is_done(("small0", "VPMEM-N07"))

    def test_it_is_quarantined(self, host, attached, nothing_is_done):  # noqa: F811
        attached("SMALL")
        move(host, "small0", State.DIRTY, State.QUARANTINED, reason="byte 0 is not zero")
        nothing_is_done(("small0", "VPMEM-N07"))

    def test_a_process_has_it_that_nobody_knows(self, host, nothing_is_done):
        code = "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); print('ready', flush=1)"
        with subprocess.Popen(
            [sys.executable, "-c", f"{code}; sys.stdin.read()", host.path("small1")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout.readline() == b"ready\n"
            nothing_is_done(("small1", "VPMEM-N12"))
            process.stdin.close()

    def test_its_owner_has_no_domain(self, host, vpmem, vpmem_json, reconcile):  # noqa: F811
        (claimed,) = vpmem_json("claim", new_owner(), "SMALL")
        pattern = fill(host.path("small0"))
        assert reconcile("--yes", code=0) == [("namespace small0", "VPMEM-N09", None, False)], "it is only advice"
        assert host.path("small0").read_bytes() == pattern
        assert owners(vpmem_json) == {"small0": claimed["owner"]}

    def test_without_a_libvirt_nothing_is_said_of_owners(self, host, vpmem, vpmem_json, monkeypatch):  # noqa: F811
        vpmem_json("claim", new_owner(), "SMALL")
        monkeypatch.setattr("vpmem_driver.libvirt_domains._DAEMON_SOCKETS", ())
        code, out, _ = vpmem("reconcile")
        assert code == 0
        assert "No libvirt was asked" in out

    def test_a_released_one_returns_only_to_its_domain(self, host, attached, reconcile, vpmem_json):  # noqa: F811
        domain, mine = attached("SMALL")
        host.pool()
        move(host, "small0", State.DIRTY)
        assert reconcile("--yes", code=0) == [("namespace small0", "VPMEM-N07", "adopt", True)]
        assert owners(vpmem_json) == {"small0": domain.UUIDString()}
        assert host.path("small0").read_bytes() == next(iter(mine.values()))


class TestPaths:
    def test_outdated_paths(self, host, attached, reconcile):  # noqa: F811
        one, mine = attached("SMALL")
        other, _ = attached("SMALL")
        swap(host, *(pathlib.Path(path).name for path in (*paths(one), *paths(other))))
        before = paths(one)
        assert {each[1:] for each in reconcile()} == {("VPMEM-N10", "refresh", False)}
        assert paths(one) == before
        assert {each[1:] for each in reconcile("--yes", code=0)} == {("VPMEM-N10", "refresh", True)}
        assert [pathlib.Path(path).read_bytes() for path in paths(one)] == [*mine.values()]

    def test_a_missing_device_has_no_path(self, host, attached, reconcile):  # noqa: F811
        attached("SMALL")
        host.path("small0").unlink()
        assert reconcile("--yes") == [("namespace small0", "VPMEM-N10", None, False)]

    def test_a_namespace_of_another_host(self, host, attached, lost, reconcile):  # noqa: F811
        _, mine = attached("SMALL")
        host.path("small0").unlink()
        host.make("small0", node=0)
        lost()
        ((check, fault, action, _),) = reconcile("--yes")
        assert (check, fault, action) == (f"namespace {next(iter(mine))}", "VPMEM-N02", None)


class TestBadHost:
    def test_a_damaged_ledger_proposes_nothing(self, host, attached, lost, vpmem):  # noqa: F811
        attached("SMALL")
        lost()
        (host.state_path / "ledger.sqlite3").write_bytes(b"garbage" * 1000)
        code, out, _ = vpmem("reconcile", "--connect", URI, "-f", "json")
        found = json.loads(out)["findings"]
        assert (code, [each["id"] for each in found]) == (8, ["VPMEM-E16", "VPMEM-N07"])
        assert {each["action"] for each in found} == {None}
        code, out, err = vpmem("reconcile", "--connect", URI, "--yes")
        assert (code, out) == (5, "")
        assert "(VPMEM-E16)" in err

    def test_a_libvirt_that_does_not_answer(self, vpmem):  # noqa: F811
        code, out, err = vpmem("reconcile", "--connect", "nosuch:///system")
        assert (code, out) == (5, "")
        assert "(VPMEM-E20)" in err

    def test_wrong_arguments(self, vpmem):  # noqa: F811
        for words in (("reconcile", "ns0"), ("reconcile", "-f", "xml"), ("reconcile", "--yes=1")):
            assert vpmem(*words)[0] == 2


@pytest.mark.parametrize(
    ("width", "environment"),
    [(100, {}), (80, {"NO_COLOR": "1"}), (80, terminal.ASCII)],
    ids=["colour", "NO_COLOR", "ASCII"],
)
def test_every_line_fits(host, tmp_path, attached, lost, width, environment):  # noqa: F811
    """Another process has a test driver of its own, whose domains are in a file."""
    domain, _ = attached("SMALL,LARGE")
    node = tmp_path / "node.xml"
    definition = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace("<name>db-", "<name>dñ-")
    node.write_text(f"<node>{definition}</node>")
    assert guestxml.devices(definition)
    lost()
    words = ["--config-file", host.config_file(), "reconcile", "--connect", f"test://{node}"]
    code, out, err = terminal.run(words, width=width, environment=environment)
    assert code == 8, err
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    table, _, rest = plain.partition("\n\n")
    # A name that the terminal cannot encode is escaped after the table is made.
    assert all(tables.width_of(line.replace("\\xf1", "n")) <= width for line in table.splitlines()), out
    assert "Proposed: adopt namespace large0" in rest
    assert ("\x1b[" in out) == ("NO_COLOR" not in environment)
    assert ("\\xf1" in rest) == ("LC_ALL" in environment)


class TestNova:
    """The program that asks Nova is replaced by one that prints; tests/novatests run the real one."""

    @pytest.fixture
    def answer(self, monkeypatch):
        """Have the program print, or fail."""

        def set_answer(code):
            program = types.SimpleNamespace(
                command=lambda *_words: [sys.executable, "-c", code], environment=interpreter.environment
            )
            monkeypatch.setattr("vpmem_driver.cli.reconcile.interpreter", program)

        return set_answer

    def records(self, *instances, allocations=None):
        known = {"host": "host1", "instances": instances, "allocations": allocations or {}, "migrations": {}}
        return f"print({json.dumps(json.dumps(known))})"

    def instance(self, owner, *namespaces, settled=True):
        return {"uuid": owner, "name": "web-1", "namespaces": namespaces, "is_settled": settled}

    def test_everything_agrees(self, attached, vpmem, answer):  # noqa: F811
        domain, _ = attached("SMALL")
        owner = domain.UUIDString()
        allocations = {owner: {"CUSTOM_PMEM_NAMESPACE_SMALL": 1}}
        answer(self.records(self.instance(owner, "small0"), allocations=allocations))
        code, out, err = vpmem("reconcile", "--connect", URI, "--nova")
        assert code == 0, err
        assert re.search(r"^small0 .* claimed .*\(defined\) +web-1 +1 allocated$", out, re.MULTILINE)
        assert out.endswith("\nLedger, devices, processes, domains, Nova and Placement agree.\n")
        code, out, err = vpmem("reconcile", "--connect", URI, "--nova", "-f", "json")
        found = json.loads(out)["nova"]
        assert list(found) == list(schema("Reconcile: Nova"))
        assert list(found["instances"][0]) == list(schema("Reconcile: instances"))

    def test_nothing_is_adopted_that_nova_records_for_another_one(self, attached, lost, reconcile, answer, vpmem_json):  # noqa: F811
        attached("SMALL")
        lost()
        assert ("namespace small0", "VPMEM-N07", "adopt", False) in reconcile()
        answer(self.records(self.instance(new_owner(), "small0")))
        found = reconcile("--nova", "--yes")
        assert ("namespace small0", "VPMEM-N07", None, False) in found
        assert ("namespace small0", "VPMEM-N14", None, False) in found
        assert owners(vpmem_json) == {}

    def test_what_this_host_does_not_have(self, host, vpmem, answer):  # noqa: F811
        answer(self.records(self.instance(new_owner(), "gone")))
        code, out, _ = vpmem("reconcile", "--connect", URI, "--nova")
        assert code == 8
        assert "VPMEM-N02 namespace gone: Nova records it for instance" in out

    @pytest.mark.parametrize("words", [(), ("--yes",)], ids=["look", "yes"])
    @pytest.mark.parametrize(
        ("code", "said"),
        [
            ("import sys; sys.exit('ConnectFailure: no route\\nto host')", "to host"),
            ("import sys; sys.exit(3)", "exit code 3"),
            ("print('no JSON')", "JSON is malformed"),
            ("print('{}')", "missing required field"),
            ("import time; time.sleep(600)", "no answer within 0.5 seconds"),
        ],
    )
    def test_nova_that_does_not_answer_changes_nothing(
        self,
        attached,  # noqa: F811
        lost,
        host,
        vpmem,  # noqa: F811
        answer,
        monkeypatch,
        words,
        code,
        said,
    ):
        attached("SMALL")
        lost()
        monkeypatch.setattr("vpmem_driver.cli.reconcile._NOVA_LIMIT_SECONDS", 0.5 if "sleep" in code else 60)
        answer(code)
        before = files(host)
        result, out, err = vpmem("reconcile", "--connect", URI, "--nova", *words)
        assert (result, out) == (5, "")
        assert said in err
        assert "(VPMEM-E19)" in err
        assert files(host) == before

    def test_a_python_without_nova(self, host, vpmem):  # noqa: F811
        result, _, err = vpmem("reconcile", "--connect", URI, "--nova")
        assert result == 5
        assert "this Python has no Nova" in err
