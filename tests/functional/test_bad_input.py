"""Whatever is typed, configured, or told by ndctl: a documented exit code, no stack trace, and a ledger that opens."""

import json
import os
import subprocess
import sys
import tracemalloc
import uuid

import pytest

from tests.functional.conftest import new_owner
from tests.functional.test_cli import refused, vpmem, vpmem_json  # noqa: F401  fixtures
from vpmem_driver import ledger
from vpmem_driver.cli.main import VPMEMApp
from vpmem_driver.discovery.ndctl import NdctlDiscovery
from vpmem_driver.pool import Pool
from vpmem_driver.sizes import MIB

#: All that --help documents, without the one for a defect of the program.
DOCUMENTED = {0, 2, 3, 4, 5, 6, 7, 8}

NASTY = {
    "not UTF-8": "\udcff",
    "empty": "",
    "negative": "-1",
    "2**31": str(1 << 31),
    "2**40": str(1 << 40),
    "2**64": str(1 << 64),
    "5000 digits": "9" * 5000,
    "control characters": "a\x1b[31m\x07\n\tb",
    "markup": "a[/b]",
    "formats": "%s%(x)d{0}{x!r}",
    "quotes": "'\"`$(x)\\",
    "a directory": "/",
    "100,000 characters": "x" * 100_000,
    "10,000 labels": ",".join(["SMALL"] * 10_000),
    "not ASCII": "ñ…☃\U0001f4be",
}

#: What is right for an argument, so that another one can be wrong.
RIGHT = {
    "labels": "SMALL",
    "namespaces": "small0",
    "namespace": "small0",
    "domain": "test",
    "cmd": "claim",
    "connect": "test:///default",
}


def command_lines(name: str) -> dict[str, tuple[list[str], int]]:
    """A command line for each argument of a command that takes a value, and the place of that value in it."""
    app = VPMEMApp()
    app.options = app.parser.parse_args([])
    factory, _, _ = app.command_manager.find_command(name.split())
    actions = [action for action in factory(app, app.options).get_parser(name)._actions if action.nargs != 0]
    lines = {}
    for tried in actions:
        words = name.split()
        for action in actions:
            required = not action.option_strings and action.nargs not in {"*", "?"}
            if required or action is tried or action.dest == "connect":
                words += action.option_strings[-1:]
                if action is tried:
                    place = len(words)
                words.append(RIGHT.get(action.dest) or new_owner())
        lines[tried.dest] = (words, place)
    return lines


COMMANDS = sorted(VPMEMApp().command_manager.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_argument_ends_in_exit_code_1_or_a_stack_trace(vpmem, tmp_path, monkeypatch, name):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    failed = []
    for argument, (words, place) in command_lines(name).items():
        for nasty, value in NASTY.items():
            if name == "demo" and nasty != "not UTF-8":
                continue  # it takes seconds, and its one argument is that of the other commands
            if (name, nasty) == ("metrics", "a directory"):
                continue  # it writes there
            words[place] = value
            code, _, err = vpmem(*words)
            if code not in DOCUMENTED or "Traceback" in err:
                failed.append((argument, nasty, code, err[:300]))
    assert not failed


@pytest.mark.parametrize("option", ["--config-file", "--log-file"])
@pytest.mark.parametrize("nasty", NASTY)
def test_no_global_option_ends_in_exit_code_1_or_a_stack_trace(vpmem, tmp_path, monkeypatch, option, nasty):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    code, _, err = vpmem(f"{option}={NASTY[nasty]}", "namespace", "list")
    assert code in DOCUMENTED, err
    assert "Traceback" not in err
    if nasty in {"not UTF-8", "a directory"}:
        assert code == 2


@pytest.mark.parametrize("nasty", [nasty for nasty, value in NASTY.items() if len(value) < 1000])  # cliff takes long
def test_no_command_that_there_is_not_ends_in_exit_code_1(vpmem, nasty):  # noqa: F811
    for words in ([NASTY[nasty]], ["help", NASTY[nasty]], ["namespace", NASTY[nasty]], ["namespace"], ["help", "x"]):
        code, _, err = vpmem(*words)
        assert code in {0, 2}, err


@pytest.mark.parametrize("formatter", ["table", "json", "yaml", "csv", "value"])
@pytest.mark.parametrize("words", [("namespace", "list", "--all"), ("history",), ("wipe", "--dry-run")], ids=" ".join)
def test_every_format_prints_every_name(host, vpmem, words, formatter):  # noqa: F811
    for number, name in enumerate(['"', "'", "a[b]", "%s", "{x}", "a,b|c:d", "ñ☃", "\udcff", "\x1b[31m", "a\nb"]):
        host.make(name, node=number % 2, size=4096)
    code, out, err = vpmem(*words, "-f", formatter)
    assert (code, "\x1b" in out) == (0, False), err


@pytest.mark.parametrize("option", ["-c", "--column"])
def test_a_column_that_there_is_not_is_refused_before_anything_is_done(vpmem_json, refused, option):  # noqa: F811
    owner = new_owner()
    vpmem_json("claim", owner, "SMALL")
    err = refused(2, "release", owner, "--wait", option, "nosuch")
    assert "column 'nosuch'" in err
    assert "The columns are: uuid, name, label" in err


def test_a_numa_node_that_no_host_has(refused):  # noqa: F811
    for node in ("-1", "1024", str(1 << 40)):
        assert f"NUMA node '{node}'" in refused(2, "claim", new_owner(), "SMALL", "--numa-node", node)


def test_history_of_an_owner_that_is_no_uuid(refused):  # noqa: F811
    assert "it is not a uuid" in refused(2, "history", "--owner", "db1")


def test_a_number_of_lines_that_cannot_be(refused):  # noqa: F811
    for number in ("-1", str(1 << 64), "x"):
        assert "is not a whole number" in refused(2, "history", "--last", number)


def test_an_open_quote_in_wipe_command(host, refused):  # noqa: F811
    host.options["wipe_command"] = "sudo 'vpmem-wipe"
    assert "[vpmem] wipe_command: No closing quotation" in refused(2, "namespace", "list")


def test_a_default_in_the_environment_that_is_no_number(vpmem, monkeypatch):  # noqa: F811
    monkeypatch.setenv("CLIFF_MAX_TERM_WIDTH", "wide")
    code, _, err = vpmem("namespace", "list")
    assert code == 2
    assert "CLIFF_MAX_TERM_WIDTH" in err


def test_an_encoding_that_does_not_have_every_character():
    done = subprocess.run(
        [sys.executable, "-m", "vpmem_driver.cli.main", "claim", "--help"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "LABEL[,LABEL\\u2026]" in done.stdout


@pytest.mark.parametrize("count", [1, 1000], ids=["at the end", "before"])
def test_a_standard_output_that_is_full(host, count):
    lines(host, count)
    words = ["--config-file", str(host.config_file()), "history", "-f", "value"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vpmem_driver.cli.main", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 5, done.stderr
    assert "No space left" in done.stderr
    assert "OSError" not in done.stderr


# What ndctl tells


def said(number: int, **garbled: object) -> dict[str, object]:
    device = {"chardev": f"dax0.{number}", "size": 64 * MIB, "align": 2 * MIB, "mode": "devdax"}
    namespace = {"dev": f"namespace0.{number}", "mode": "devdax", "name": f"ns{number}", "numa_node": 0}
    namespace |= {"uuid": str(uuid.uuid5(uuid.NAMESPACE_DNS, str(number))), "daxregion": {"devices": [device]}}
    for key, value in garbled.items():
        (device if key in device else namespace)[key] = value
    return namespace


@pytest.mark.parametrize(
    "garbled",
    [
        {"numa_node": 1 << 31},
        {"numa_node": 1 << 70},
        {"size": 1 << 62},
        {"size": (1 << 63) - 1},
        {"size": 1 << 63},
        {"align": 1 << 62},
        {"align": 3},
        {"name": "a\0"},
        {"uuid": "x" * 36},
        {"chardev": "dax0.0\0"},
    ],
    ids=str,
)
def test_one_garbled_answer_of_ndctl_poisons_the_ledger_for_ever(host, garbled):
    host.pmem_namespaces = []
    garbled_answer = [said(0, **garbled), said(1, **garbled), said(2)]
    for answer in (garbled_answer, [said(0), said(2)], garbled_answer, [said(2)]):
        pool = Pool.from_conf(host.conf(), source=NdctlDiscovery(lambda answer=answer: json.dumps(answer)))
        assert pool.inventory() == ()
        assert {record.name: record.state for record in pool.records()}["ns2"] == "unknown"
        pool.close()


# A long history


def lines(host, count: int) -> None:
    host.pool()
    records = ledger.Ledger(host.state_path)
    with records.transaction():
        records._db.executemany(
            "INSERT INTO history (at, uuid, name, from_state, to_state, owner, reason) "
            "VALUES (?, ?, 'ns0', 'dirty', 'clean', NULL, 'wiped')",
            [("2025-01-01T00:00:00.000+00:00", new_owner())] * count,
        )
    records.close()


@pytest.mark.parametrize("words", [("-f", "json"), ("-f", "csv", "--last", "29999"), ("-f", "value", "--all"), ()])
def test_a_million_lines_of_history_take_800_mib(host, words):
    lines(host, 30_000)
    app = VPMEMApp()
    with open(os.devnull, "w", encoding="utf-8") as app.stdout:
        tracemalloc.start()
        try:
            assert app.run(["--config-file", str(host.config_file()), "history", *words]) == 0
            assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        finally:
            tracemalloc.stop()


def test_a_table_has_a_screenful_of_history_and_a_pipe_all(host, vpmem, vpmem_json):  # noqa: F811
    lines(host, 100)
    code, out, err = vpmem("history")
    assert (code, out.count("wiped")) == (0, 50)
    assert "Only the newest 50 lines are shown" in err
    code, out, err = vpmem("history", "--all")
    assert (out.count("wiped"), "newest" in err) == (100, False)
    assert vpmem("history", "--last", "60")[1].count("wiped") == 60
    assert len(vpmem_json("history")) == 105
    assert vpmem("history", "--last", "1", "--all")[0] == 2


@pytest.mark.parametrize("words", [(), ("--noindent",), ("--last", "0"), ("--last", "1"), ("-c", "id", "-c", "owner")])
def test_json_of_the_history_is_what_cliff_prints(vpmem, words):  # noqa: F811
    vpmem("namespace", "list")
    out = vpmem("history", "-f", "json", *words)[1]
    assert out == json.dumps(json.loads(out), indent=None if "--noindent" in words else 2) + "\n"
