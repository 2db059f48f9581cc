"""The command line: what it prints, what it exits with, and that bad input changes nothing.

Commands run in this process, except where another process is what matters.
"""

import contextlib
import json
import logging
import os
import pathlib
import stat
import subprocess
import sys
import tempfile
import uuid

import pytest

from tests.functional.conftest import MIB, fill, is_zero, new_owner
from vpmem_driver import ledger
from vpmem_driver.cli.main import VPMEMApp
from vpmem_driver.discovery.directory import DirectoryDiscovery

KEYS = [
    *("uuid", "name", "label", "resource_class", "size", "align", "numa_node", "device", "state", "owner", "reason"),
    *("volatile", "provider", "persistence_domain", "memdev", "serial"),
    *("device_model", "label_size", "guest_size"),
]


@pytest.fixture
def vpmem(host, capsys):
    """Run a command line on the host; returns exit code, standard output and standard error."""

    def run(*words):
        root = logging.getLogger()
        handlers = root.handlers[:]
        try:
            code = VPMEMApp().run(["--config-file", str(host.config_file()), *map(str, words)])
        except SystemExit as error:  # argparse
            code = error.code
        finally:
            for handler in set(root.handlers) - set(handlers):
                handler.close()
            root.handlers[:] = handlers
        out, err = capsys.readouterr()
        return code, out, err

    yield run
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)  # a wipe in the background, whose parent would have ended in the meantime


@pytest.fixture
def vpmem_json(vpmem):
    def run(*words):
        code, out, err = vpmem(*words, "-f", "json")
        assert code == 0, err
        return json.loads(out)

    return run


def snapshot(host):
    """Every namespace byte for byte, and the ledger row for row, but for what was merely seen for the first time."""
    files = {str(path): path.read_bytes() for path in sorted(host.directory.rglob("*")) if path.is_file()}
    rows, moves = [], []
    if (host.state_path / ledger.FILE_NAME).exists():
        records = ledger.Ledger(host.state_path)
        moves = [move for move in records.history() if move.reason != "discovered"]
        moved = {move.uuid for move in moves}
        rows = [row for row in records.rows() if row.uuid in moved]
        records.close()
    return files, rows, moves


@pytest.fixture
def refused(host, vpmem):
    """Run a command line that must fail with `code`, change nothing, and show no stack trace; returns what it says."""

    def run(code, *words):
        before = snapshot(host)
        result, out, err = vpmem(*words)
        assert (result, out) == (code, ""), err
        assert "Traceback" not in err
        assert snapshot(host) == before
        return err

    return run


class TestListing:
    def test_json_has_the_keys_of_the_table(self, vpmem_json):
        listed = vpmem_json("namespace", "list")
        assert [list(namespace) for namespace in listed] == [KEYS] * 5
        assert [namespace["name"] for namespace in listed] == ["large0", "large1", "small0", "small1", "small2"]
        (first, *_) = listed
        assert (first["label"], first["resource_class"]) == ("LARGE", "CUSTOM_PMEM_NAMESPACE_LARGE")
        assert (first["size"], first["align"], first["numa_node"]) == (8 * MIB, 4096, 0)
        assert (first["state"], first["owner"], first["reason"]) == ("unknown", None, None)

    def test_all_shows_why_the_others_are_of_no_use(self, host, vpmem_json):
        (host.directory / "empty").touch()
        (host.directory / "link").symlink_to(host.path("small0"))
        (host.directory / "odd").write_bytes(b"x" * 4097)
        os.mkfifo(host.directory / "pipe")
        assert len(vpmem_json("namespace", "list")) == 5
        unusable = {
            ns["name"]: ns["reason"] for ns in vpmem_json("namespace", "list", "--all") if ns["state"] == "unusable"
        }
        assert set(unusable) == {"empty", "link", "odd", "pipe"}
        assert all(unusable.values())

    def test_show_by_name_and_by_uuid(self, vpmem_json):
        by_name = vpmem_json("namespace", "show", "small1")
        assert by_name["numa_node"] == 1
        assert vpmem_json("namespace", "show", by_name["uuid"].upper()) == by_name

    def test_without_labels_a_hint(self, host, vpmem):
        host.pmem_namespaces = []
        code, _, err = vpmem("namespace", "list")
        assert code == 0
        assert "None of the 5 namespaces of this host has a label" in err

    def test_a_file_system_without_dax_is_said_once(self, vpmem):
        _, _, err = vpmem("namespace", "list")
        assert err.lower().count("dax") >= 1
        assert len(err.splitlines()) == 1


class TestTheWholeWay:
    def test_claim_release_wipe_claim(self, host, vpmem_json):
        first, second = new_owner(), new_owner()
        claimed = vpmem_json("claim", first, "SMALL,LARGE,SMALL")
        assert [namespace["label"] for namespace in claimed] == ["SMALL", "LARGE", "SMALL"]
        assert {(namespace["state"], namespace["owner"]) for namespace in claimed} == {("claimed", first)}
        for namespace in claimed:
            fill(pathlib.Path(namespace["device"]))
        released = vpmem_json("release", first, "--wait")
        assert {(namespace["state"], namespace["owner"]) for namespace in released} == {("clean", None)}
        assert all(is_zero(pathlib.Path(namespace["device"])) for namespace in claimed)
        assert [ns["uuid"] for ns in vpmem_json("claim", second, "SMALL,LARGE,SMALL")] == [ns["uuid"] for ns in claimed]

    def test_the_wanted_numa_node(self, vpmem_json):
        claimed = vpmem_json("claim", new_owner(), "SMALL,LARGE", "--numa-node", "1")
        assert [namespace["numa_node"] for namespace in claimed] == [1, 1]

    def test_release_of_one(self, vpmem_json):
        owner = new_owner()
        first, second = vpmem_json("claim", owner, "SMALL,SMALL")
        (released,) = vpmem_json("release", owner, "--namespace", first["name"], "--wait")
        assert released["uuid"] == first["uuid"]
        assert vpmem_json("namespace", "show", second["uuid"])["owner"] == owner

    def test_release_returns_at_once_and_the_wipe_goes_on(self, host, vpmem_json):
        owner = new_owner()
        (claimed,) = vpmem_json("claim", owner, "LARGE")
        fill(pathlib.Path(claimed["device"]))
        host.options["wipe_rate"] = 8  # one second for these 8 MiB
        (released,) = vpmem_json("release", owner)
        assert released["state"] == "dirty"
        (done,) = vpmem_json("wipe", "--namespace", claimed["uuid"])  # waits for the one in the background
        assert done["state"] == "clean"
        assert is_zero(pathlib.Path(claimed["device"]))

    def test_dry_runs_change_nothing(self, host, vpmem_json):
        owner = new_owner()
        (claimed,) = vpmem_json("claim", owner, "SMALL")
        before = snapshot(host)
        assert [ns["uuid"] for ns in vpmem_json("release", owner, "--dry-run")] == [claimed["uuid"]]
        assert [ns["name"] for ns in vpmem_json("wipe", "--dry-run", "--namespace", "large1")] == ["large1"]
        assert vpmem_json("wipe", "--dry-run") == []
        assert snapshot(host) == before

    def test_history(self, vpmem_json):
        owner = new_owner()
        (claimed,) = vpmem_json("claim", owner, "SMALL")
        vpmem_json("release", owner, "--wait")
        moves = vpmem_json("history", "--namespace", claimed["name"])
        assert [(move["from_state"], move["to_state"]) for move in moves] == [
            (None, "unknown"),
            ("unknown", "dirty"),
            ("dirty", "claimed"),
            ("claimed", "dirty"),
            ("dirty", "clean"),
        ]
        assert [move["reason"] for move in vpmem_json("history", "--owner", owner, "--last", "1")] == ["released"]

    def test_adopt_keeps_the_bytes(self, host, vpmem_json):
        owner, pattern = new_owner(), fill(host.path("large1"))
        (adopted,) = vpmem_json("adopt", owner, "large1")
        assert (adopted["state"], adopted["owner"]) == ("claimed", owner)
        assert host.path("large1").read_bytes() == pattern

    def test_adopting_one_twice_is_adopting_it(self, vpmem_json):
        (adopted,) = vpmem_json("adopt", new_owner(), "large1", "large1")
        assert adopted["state"] == "claimed"

    def test_domain_xml_alone_and_on_a_base(self, vpmem):
        owner = new_owner()
        assert vpmem("claim", owner, "LARGE,SMALL")[0] == 0
        code, out, _ = vpmem("domain", "xml", owner, "--type", "test", "--memory", "64")
        assert (code, out.count("<memory model=")) == (0, 2)
        assert out.index("large0") < out.index("small0"), "devices are in the order of the labels"


class TestConfiguration:
    """Exit code 2, the entry and the remedy named."""

    @pytest.mark.parametrize(
        ("entries", "said"),
        [
            (["LARGE:nowhere"], "namespace 'nowhere' is not on this host. Usable namespaces: large0, large1, small0"),
            (["A:small0|small0"], "namespace 'small0' appears twice under this label"),
            (["A:small0", "B:small0"], "namespace 'small0' is already under another label"),
            (["small0"], "it has no colon"),
            (["A:"], "a namespace name is empty"),
            (["A:small0||small1"], "a namespace name is empty"),
            ([":small0"], "the label is empty"),
            (["A_B:small0", "a-b:small1"], "have the same resource class CUSTOM_PMEM_NAMESPACE_A_B"),
        ],
    )
    def test_pmem_namespaces(self, host, refused, entries, said):
        host.pmem_namespaces = entries
        err = refused(2, "namespace", "list")
        assert said in err
        assert f"entry '{entries[-1]}'" in err

    @pytest.mark.parametrize(
        ("option", "entries", "said"),
        [
            ("device_model", ["SMALL:dimm"], "[vpmem] device_model: 'SMALL:dimm': the model must be nvdimm or"),
            (
                "device_model",
                ["TINY:nvdimm"],
                "'TINY:nvdimm': no such label. Labels of [libvirt] pmem_namespaces: LARGE",
            ),
            ("label_size", ["SMALL:1"], "[vpmem] label_size: 'SMALL:1': a label area has 131072 bytes to"),
        ],
    )
    def test_the_hardware_of_new_claims(self, host, refused, option, entries, said):
        host.options[option] = entries
        assert said in refused(2, "claim", new_owner(), "SMALL")

    def test_one_name_for_two_namespaces(self, host, refused):
        host.make("small0", node=3)
        namespaces = DirectoryDiscovery(str(host.directory)).namespaces()
        uuids = [namespace.uuid for namespace in namespaces if namespace.name == "small0"]
        err = refused(2, "namespace", "list")
        assert "several namespaces of this host have the name 'small0'. Write the uuid" in err
        assert all(uuid in err for uuid in uuids)  # no listing can be had until the configuration is right

    @pytest.mark.parametrize("kind", ["empty", "odd", "symlink", "fifo", "device"])
    def test_what_cannot_be_a_namespace(self, host, refused, kind):
        path = host.directory / "bad"
        match kind:
            case "empty":
                path.touch()
            case "odd":
                path.write_bytes(b"x" * 5000)
            case "symlink":
                path.symlink_to(host.path("small0"))
            case "fifo":
                os.mkfifo(path)
            case "device":
                if os.geteuid() != 0:
                    pytest.skip("only root can make a device node")
                os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        host.pmem_namespaces = ["A:bad"]
        assert "namespace 'bad' is unusable" in refused(2, "namespace", "list")

    def test_a_configuration_file_that_is_not_there(self, vpmem):
        code, _, err = vpmem("--config-file", "/nonexistent.conf", "namespace", "list")
        assert code == 2
        assert "/nonexistent.conf" in err

    def test_a_value_of_the_wrong_kind(self, host, refused):
        host.options["wipe_threads"] = "many"
        assert "wipe_threads" in refused(2, "namespace", "list")

    def test_a_discovery_that_does_not_exist(self, host, refused):
        host.options["discovery"] = "guess"
        assert "discovery" in refused(2, "namespace", "list")


class TestRequests:
    def test_an_owner_that_is_no_uuid(self, refused):
        for owner in ("db1", "", "12345678-1234", "{" + new_owner() + "}"):
            assert "it is not a uuid" in refused(2, "claim", owner, "SMALL")

    def test_a_label_that_is_not_configured(self, refused):
        err = refused(2, "claim", new_owner(), "SMALL,HUGE")
        assert "label 'HUGE'" in err
        assert "Configured labels: LARGE, SMALL." in err

    @pytest.mark.parametrize("labels", ["", ",", "SMALL,", ",SMALL"])
    def test_an_empty_label(self, refused, labels):
        assert "a label is empty" in refused(2, "claim", new_owner(), labels)

    def test_ten_thousand_labels(self, refused):
        assert "10000 labels" in refused(2, "claim", new_owner(), ",".join(["SMALL"] * 10_000))

    def test_more_than_there_are(self, vpmem, refused):
        vpmem("claim", new_owner(), "SMALL")
        err = refused(3, "claim", new_owner(), "LARGE,SMALL,SMALL,SMALL")
        assert "SMALL: 3 wanted, 2 free" in err
        assert "Nothing was claimed" in err

    def test_an_unknown_namespace(self, vpmem, refused):
        vpmem("namespace", "list")
        for words in (
            ("namespace", "show", "nowhere"),
            ("wipe", "--namespace", "nowhere"),
            ("adopt", new_owner(), "nowhere"),
        ):
            assert "Namespace 'nowhere' does not exist" in refused(2, *words)

    def test_an_unusable_namespace(self, host, vpmem, refused):
        (host.directory / "empty").touch()
        vpmem("namespace", "list")
        assert "namespace 'empty'" in refused(2, "wipe", "--namespace", "empty")

    def test_an_unknown_command_and_option(self, vpmem):
        assert vpmem("destroy")[0] == 2
        assert vpmem("wipe", "--hard")[0] == 2

    def test_no_command_shows_the_help(self, vpmem):
        assert "exit codes:" in vpmem()[1]


class TestRefusals:
    def test_adoption_of_what_is_clean(self, vpmem, refused):
        vpmem("wipe", "--namespace", "small0")
        assert "'vpmem claim'" in refused(4, "adopt", new_owner(), "small0")

    def test_release_of_what_somebody_else_holds(self, vpmem_json, refused):
        owner, stranger = new_owner(), new_owner()
        (claimed,) = vpmem_json("claim", owner, "SMALL")
        vpmem_json("claim", stranger, "SMALL")
        assert f"it belongs to {owner}" in refused(4, "release", stranger, "--namespace", claimed["name"])
        assert "the ledger records none for it" in refused(4, "release", new_owner())

    def test_wipe_of_what_is_claimed(self, vpmem_json, refused):
        owner = new_owner()
        (claimed,) = vpmem_json("claim", owner, "SMALL")
        assert f"vpmem release {owner}" in refused(4, "wipe", "--namespace", claimed["name"])

    def test_wipe_of_what_a_process_maps(self, host, vpmem, vpmem_json):
        path = host.path("small0")
        pattern = fill(path)
        program = (
            "import mmap, sys; file = open(sys.argv[1], 'r+b'); memory = mmap.mmap(file.fileno(), 0); "
            "print('mapped', flush=True); sys.stdin.read()"
        )
        guest = subprocess.Popen(
            [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert guest.stdout.readline() == "mapped\n"
            code, _, err = vpmem("wipe", "--namespace", "small0")
            assert code == 4
            assert f"small0 is in use by process {guest.pid}" in err
        finally:
            guest.communicate("")
        assert path.read_bytes() == pattern
        assert vpmem_json("namespace", "show", "small0")["state"] == "unknown"


@contextlib.contextmanager
def unprivileged(path):
    """As somebody whom permissions bind, when the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    modes = {way: stat.S_IMODE(way.stat().st_mode) for way in (path, *path.parents)}
    closed = {way: mode for way, mode in modes.items() if not mode & 0o001}  # pytest's own, for root alone
    for way, mode in closed.items():
        way.chmod(mode | 0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for way, mode in closed.items():
            way.chmod(mode)


@pytest.fixture
def small_filesystem(tmp_path):
    """A filesystem of its own, of 512 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a filesystem")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


class TestStorageThatDoesNotLast:
    """A ledger that is lost takes along who owns which namespace."""

    @pytest.fixture
    def in_memory(self):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
            yield pathlib.Path(path)

    def test_every_command_warns_and_goes_on(self, host, vpmem, in_memory):
        host.options["state_path"] = in_memory / "state"
        for words in (["namespace", "list"], ["claim", new_owner(), "LARGE"], ["history"]):
            code, out, err = vpmem(*words, "-f", "json")
            assert (code, type(json.loads(out))) == (0, list)
            (line,) = [line for line in err.splitlines() if "is lost" in line]
            assert line.startswith(f"vpmem: The ledger in {in_memory}/state is on tmpfs")

    def test_a_temporary_directory_is_so_on_purpose(self, host, vpmem, in_memory, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(in_memory))
        host.options["state_path"] = in_memory / "state"
        code, _, err = vpmem("namespace", "list")
        assert (code, "is lost" in err) == (0, False)

    def test_the_demo_does_not_warn(self, vpmem, in_memory, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(in_memory))
        monkeypatch.setattr(tempfile, "tempdir", None)
        code, out, err = vpmem("demo")
        assert (code, "Summary" in out, "is lost" in out + err) == (0, True, False)
        assert str(in_memory) in out


class TestHostTrouble:
    """Exit code 5."""

    def test_a_directory_that_is_not_there(self, host, refused):
        host.options["directory"] = host.directory / "nowhere"
        assert "nowhere" in refused(5, "namespace", "list")

    def test_a_directory_that_cannot_be_read(self, host, vpmem, tmp_path):
        locked = host.directory / "locked"
        locked.mkdir(mode=0)
        vpmem("namespace", "list")  # all modules are loaded now: the one without rights may not be able to
        for file in (host.config_file(), host.state_path, *host.state_path.iterdir()):
            os.chown(file, 65534, 65534)
        host.options["directory"] = locked
        with unprivileged(tmp_path):
            code, out, err = vpmem("namespace", "list")
        assert (code, out) == (5, "")
        assert f"{locked}" in err
        assert "this user may not read" in err

    @pytest.mark.parametrize(
        ("script", "said"),
        [
            ("exit 3", "ndctl"),
            ("echo nonsense", "ndctl"),
            ('echo \'[{"dev":"namespace0.0",\'', "ndctl"),
            ("kill -9 $$", "ndctl"),
        ],
    )
    def test_ndctl_in_trouble(self, host, refused, monkeypatch, tmp_path, script, said):
        program = tmp_path / "bin" / "ndctl"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        host.options["discovery"] = "ndctl"
        assert said in refused(5, "namespace", "list")

    def test_no_ndctl(self, host, refused, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        host.options["discovery"] = "ndctl"
        assert "install" in refused(5, "namespace", "list").lower()

    def test_a_corrupt_ledger(self, host, vpmem):
        host.state_path.mkdir()
        (host.state_path / ledger.FILE_NAME).write_bytes(b"garbage" * 1000)
        code, _, err = vpmem("claim", new_owner(), "SMALL")
        assert code == 5
        assert "every namespace is then unknown" in err
        assert (host.state_path / ledger.FILE_NAME).read_bytes() == b"garbage" * 1000

    def test_a_ledger_of_a_newer_version(self, host, vpmem):
        records = ledger.Ledger(host.state_path)
        records._db.execute("PRAGMA user_version = 99")
        records.close()
        code, _, err = vpmem("claim", new_owner(), "SMALL")
        assert code == 5
        assert "version 99" in err

    @pytest.mark.parametrize("trouble", ["read-only", "full"])
    def test_a_ledger_on_a_filesystem_in_trouble(self, host, vpmem, small_filesystem, trouble):
        host.state_path = small_filesystem / "state"
        owner = new_owner()
        (claimed,) = json.loads(vpmem("claim", owner, "SMALL", "-f", "json")[1])
        before = snapshot(host)
        if trouble == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", small_filesystem], check=True)
        else:
            with contextlib.suppress(OSError), (small_filesystem / "filler").open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
        code, out, err = vpmem("release", owner)
        assert (code, out) == (5, "")
        assert str(host.state_path) in err
        assert "Traceback" not in err
        if trouble == "read-only":
            subprocess.run(["mount", "-o", "remount,rw", small_filesystem], check=True)
        else:
            (small_filesystem / "filler").unlink()
        assert snapshot(host) == before
        assert json.loads(vpmem("namespace", "show", claimed["uuid"], "-f", "json")[1])["owner"] == owner

    def test_a_libvirt_that_is_not_there(self, refused):
        assert "nosuch" in refused(5, "domain", "attach", "db1", "SMALL", "--connect", "nosuch:///system")


class TestWipeFails:
    def test_a_medium_that_does_not_keep_zeros(self, host, vpmem, vpmem_json):
        owner = new_owner()
        (claimed,) = vpmem_json("claim", owner, "LARGE")
        host.options["wipe_command"] = host.forgetful(claimed["device"], claimed["size"] - 1)
        code, _, err = vpmem("release", owner, "--wait")
        assert code == 6
        assert f"{claimed['name']} (byte {claimed['size'] - 1} is not zero" in err
        shown = vpmem_json("namespace", "show", claimed["name"])
        assert (shown["state"], shown["owner"]) == ("quarantined", None)
        assert "is not zero" in shown["reason"]
        assert vpmem_json("claim", new_owner(), "LARGE")[0]["name"] != claimed["name"]
        assert vpmem("claim", new_owner(), "LARGE")[0] == 3, "it is out of everyone's reach"
        del host.options["wipe_command"]
        assert vpmem_json("wipe", "--namespace", claimed["name"])[0]["state"] == "clean"


def test_another_process_sees_it_at_once(host, vpmem_json):
    owner = new_owner()
    (claimed,) = vpmem_json("claim", owner, "SMALL")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vpmem_driver.cli.main", "--config-file", host.config_file()),
            *("namespace", "show", claimed["name"], "-f", "value", "-c", "owner"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert uuid.UUID(done.stdout.strip()) == uuid.UUID(owner)
