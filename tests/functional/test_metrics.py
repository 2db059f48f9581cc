"""vpmem metrics, and the alerts and the dashboard that use them."""

import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys

import pytest
import yaml
from prometheus_client import parser

from tests.functional.conftest import MIB, new_owner
from tests.functional.test_cli import refused, vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_listing import move, used  # noqa: F401  fixtures
from tests.functional.test_status import files
from tests.machine import promtool as promtool_package
from vpmem_driver import ledger
from vpmem_driver.model import State

PACKAGING = pathlib.Path(__file__).parents[2] / "packaging"
RULES = PACKAGING / "prometheus" / "vpmem.rules.yml"
RULE_TESTS = PACKAGING / "prometheus" / "vpmem.test.yml"
DASHBOARD = PACKAGING / "grafana" / "vpmem.json"


@pytest.fixture(scope="module")
def promtool():
    return promtool_package.program(pathlib.Path(__file__).parents[2] / ".tox" / "promtool")


def samples(text):
    """Value by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found, name, **labels):
    return found.get((name, *sorted(labels.items())))


@pytest.fixture
def metrics(host, vpmem):  # noqa: F811
    def run():
        before = files(host)
        code, out, err = vpmem("metrics")
        assert code == 0, err
        assert files(host) == before
        return samples(out)

    return run


def test_a_good_host(metrics, used):  # noqa: F811
    found = metrics()
    assert value(found, "vpmem_namespaces", state="clean", label="LARGE", node="0") == 1
    assert value(found, "vpmem_namespaces", state="claimed", label="SMALL", node="0") == 1
    assert value(found, "vpmem_namespaces", state="quarantined", label="SMALL", node="0") == 0
    assert value(found, "vpmem_namespaces_bytes", state="unknown", label="LARGE", node="1") == 8 * MIB
    assert sum(number for key, number in found.items() if key[0] == "vpmem_namespaces") == 6
    for name, expected in {
        "vpmem_faults_all": 0,
        "vpmem_ledger_readable": 1,
        "vpmem_discovery_up": 1,
        "vpmem_active_jobs": 0,
        "vpmem_waiting_owners": 0,
    }.items():
        assert value(found, name) == expected, name
    assert value(found, "vpmem_ledger_free_bytes") > 0
    assert value(found, "vpmem_oldest_dirty_timestamp_seconds") is None


def test_a_broken_host(host, metrics):
    host.pool()
    move(host, "large0", State.DIRTY, State.QUARANTINED, reason="byte 4096 is not zero")
    dirty = move(host, "large1", State.DIRTY)
    records = ledger.Ledger(host.state_path)
    with records.transaction():
        row = next(row for row in records.rows() if row.name == "small0")
        records.move(row, State.DIRTY, "reserved", owner=new_owner(), position=0, reservation="r")
    records.progress(dirty, records.begin_wipe(dirty, 0), wiped=2 * MIB)
    records.close()
    found = metrics()
    assert value(found, "vpmem_faults", id="VPMEM-N01") == value(found, "vpmem_faults_all") == 1
    assert value(found, "vpmem_stalled_jobs") == 1
    assert value(found, "vpmem_jobs_remaining_bytes") == 14 * MIB
    assert value(found, "vpmem_waiting_owners") == 1
    age = value(found, "vpmem_metrics_timestamp_seconds") - value(found, "vpmem_oldest_dirty_timestamp_seconds")
    assert 0 <= age < 300
    assert value(found, "vpmem_wipes_last_day", result="failed") == 1


def test_an_unreadable_ledger_and_a_failed_discovery(host, metrics):
    host.state_path.mkdir()
    (host.state_path / ledger.FILE_NAME).write_bytes(b"garbage" * 1000)
    host.options["directory"] = host.directory / "nowhere"
    found = metrics()
    assert value(found, "vpmem_ledger_readable") == value(found, "vpmem_discovery_up") == 0
    assert value(found, "vpmem_faults", id="VPMEM-E16") == value(found, "vpmem_faults", id="VPMEM-E14") == 1


def test_wipes_of_the_last_day(host, metrics):
    host.pool()
    records = ledger.Ledger(host.state_path)
    rows = {row.name: row for row in records.rows()}
    with records.transaction():
        dirty = records.move(rows["large0"], State.DIRTY, "released")
        records.move(dirty, State.CLEAN, "wiped")
        dirty = records.move(rows["small0"], State.DIRTY, "reserved", owner=new_owner(), position=0, reservation="r")
        records.move(dirty, State.CLAIMED, "wiped for its owner", owner=dirty.owner, position=0)
        old = records.move(records.move(rows["large1"], State.DIRTY, "released"), State.CLEAN, "wiped")
        # 30 hours before, on both lines, and 2 hours for the wipe of large0
        records._execute("UPDATE history SET at = '2020-01-01T00:00:00.000+00:00' WHERE uuid = ?", (old.uuid,))
        records._execute(
            "UPDATE history SET at = strftime('%Y-%m-%dT%H:%M:%S.000+00:00', at, '-2 hours') "
            "WHERE uuid = ? AND to_state = 'dirty'",
            (rows["large0"].uuid,),
        )
        # The history is in the order of time.
        records._execute("UPDATE history SET id = -id WHERE uuid = ?", (old.uuid,))
        records._execute("UPDATE namespace SET changed = -changed WHERE uuid = ?", (old.uuid,))
    records.close()
    found = metrics()
    assert value(found, "vpmem_wipes_last_day", result="wiped") == 2
    assert value(found, "vpmem_wiped_last_day_bytes") == 12 * MIB
    assert value(found, "vpmem_longest_dirty_last_day_seconds") == pytest.approx(7200, abs=60)


class TestTextfile:
    def test_the_file_is_replaced_in_one_step(self, host, vpmem, tmp_path):  # noqa: F811
        directory = tmp_path / "collector"
        directory.mkdir()
        file = directory / "vpmem.prom"
        file.write_text("old")
        inode = file.stat().st_ino
        code, out, err = vpmem("metrics", "--textfile", directory)
        assert (code, out) == (0, ""), err
        assert os.listdir(directory) == ["vpmem.prom"]
        assert file.stat().st_ino != inode, "it was written in place"
        assert value(samples(file.read_text()), "vpmem_discovery_up") == 1
        assert stat.S_IMODE(file.stat().st_mode) & 0o444 == 0o444 & ~_umask()

    @pytest.mark.parametrize("directory", ["/nonexistent", "", "/dev/null"])
    def test_what_is_no_directory(self, refused, directory):  # noqa: F811
        assert "--textfile" in refused(2, "metrics", "--textfile", directory)

    def test_a_directory_that_cannot_be_written(self, host, vpmem):  # noqa: F811
        code, out, err = vpmem("metrics", "--textfile", "/proc/self")
        assert (code, out) == (5, "")
        assert "Writing /proc/self/vpmem.prom failed" in err
        assert "(VPMEM-E19)" in err

    def test_without_prometheus_client(self, refused, monkeypatch):  # noqa: F811
        monkeypatch.delitem(sys.modules, "vpmem_driver.metrics", raising=False)
        monkeypatch.delattr("vpmem_driver.metrics", raising=False)
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        assert "pip install 'vpmem_driver[metrics]'" in refused(5, "metrics")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


class TestPromtool:
    def test_metrics_follow_the_conventions(self, vpmem, promtool, used):  # noqa: F811
        out = vpmem("metrics")[1]
        done = subprocess.run([promtool, "check", "metrics"], input=out, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")

    def test_rules(self, promtool):
        subprocess.run([promtool, "check", "rules", RULES], check=True)
        subprocess.run([promtool, "test", "rules", RULE_TESTS], check=True)

    def test_the_tests_of_the_rules_notice_each_broken_rule(self, promtool, tmp_path):
        rules = yaml.safe_load(RULES.read_text())
        shutil.copy(RULE_TESTS, tmp_path)
        for rule in rules["groups"][0]["rules"]:
            for broken in ("vector(0) > 1", "vector(1)"):
                expression, rule["expr"] = rule["expr"], broken
                (tmp_path / RULES.name).write_text(yaml.safe_dump(rules))
                done = subprocess.run(
                    [promtool, "test", "rules", tmp_path / RULE_TESTS.name], capture_output=True, check=False
                )
                assert done.returncode != 0, f"{rule['alert']} with {broken}"
                rule["expr"] = expression


def names_in(text):
    return set(re.findall(r"\bvpmem_[a-z_]+", text))


def test_rules_and_dashboard_use_metrics_that_exist(host, vpmem):  # noqa: F811
    host.pool()
    move(host, "large0", State.DIRTY, State.QUARANTINED, reason="byte 4096 is not zero")
    move(host, "large1", State.DIRTY)
    made = {key[0] for key in samples(vpmem("metrics")[1])}
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    expressions = [rule["expr"] for rule in rules]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions += [target["expr"] for panel in panels for target in panel["targets"]]
    assert names_in(" ".join(expressions)) <= made
    page = (PACKAGING.parent / "doc" / "operation.md").read_text()
    assert {name for name in made if f"`{name}`" not in page} == set(), "doc/operation.md describes each metric"
