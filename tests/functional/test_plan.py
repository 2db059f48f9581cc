"""vpmem plan and vpmem provision with a program that is called as ndctl is, on regions in a file."""

import json
import mmap
import os
import re
import subprocess
import sys

import pytest
from lxml import etree
from scipy import optimize

from tests import ndctl_program
from tests.functional import terminal
from tests.functional.conftest import new_owner
from tests.functional.test_cli import refused, vpmem  # noqa: F401  fixtures
from tests.functional.test_listing import check, move
from tests.ndctl_program import region
from vpmem_driver import ledger
from vpmem_driver.cli import tables
from vpmem_driver.model import State
from vpmem_driver.sizes import GIB, MIB

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")

FLAVORS = """
[labels]
LARGE = "1GiB"
SMALL = "256MiB"
[flavors.db]
pmem = "LARGE,SMALL"
count = 2
[flavors.cache]
pmem = "SMALL"
count = 3
"""

#: With these, only some guests may be on several nodes, which needs the solver.
MIXED = (
    FLAVORS
    + """[flavors.wide]
pmem = "SMALL,SMALL"
count = 2
nodes = "any"
"""
)


@pytest.fixture
def flavors(tmp_path):
    path = tmp_path / "flavors.toml"
    path.write_text(FLAVORS)
    return path


@pytest.fixture
def regions(host, tmp_path, monkeypatch):
    """The file with the regions of this host, whose ndctl is the program."""
    host.options["discovery"] = "ndctl"
    host.pmem_namespaces = []
    state = ndctl_program.install(tmp_path / "bin", [region(0, 4 * GIB, node=0), region(1, 4 * GIB, node=1)])
    monkeypatch.setenv("PATH", f"{state.parent}:{os.environ['PATH']}")
    return state


def names(state):
    return [namespace["name"] for one in json.loads(state.read_text()) for namespace in one["namespaces"]]


@pytest.fixture
def plan(vpmem, flavors, regions, tmp_path):  # noqa: F811
    """A plan of this host; returns its file."""
    path = tmp_path / "plan.json"
    code, out, err = vpmem("plan", flavors, "--output", path)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "All wanted guests fit."
    assert names(regions) == []
    return path


class TestPlan:
    def test_the_plan_of_a_bare_host(self, vpmem, flavors, regions):  # noqa: F811
        code, out, err = vpmem("plan", flavors)
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert [line.split() for line in lines if line.startswith(("db", "cache"))] == [
            ["db", "LARGE,SMALL", "2", "2"],
            ["cache", "SMALL", "3", "3"],
        ]
        commands = [line for line in lines if line.startswith("ndctl ")]
        assert len(commands) == 7
        assert "ndctl create-namespace -r region0 -m devdax -M dev -a 2M -s 1056M -n LARGE-0" in commands
        (option,) = [line for line in lines if line.startswith("pmem_namespaces = ")]
        assert option.endswith("LARGE:LARGE-0|LARGE-1,SMALL:SMALL-0|SMALL-1|SMALL-2|SMALL-3|SMALL-4")

    def test_too_little_memory(self, vpmem, flavors, regions):  # noqa: F811
        regions.write_text(json.dumps([region(0, 2 * GIB, node=0)]))
        code, out, _ = vpmem("plan", flavors)
        assert code == 0
        assert re.search(r"^db +LARGE,SMALL +2 +1$", out, re.MULTILINE)
        assert out.splitlines()[-1] == "No plan fits more."

    def test_a_solver_that_ended_early(self, vpmem, flavors, regions, monkeypatch):  # noqa: F811
        flavors.write_text(MIXED)
        regions.write_text(json.dumps([region(0, 2 * GIB, node=0)]))
        milp = optimize.milp

        def ended_early(*words, **values):
            result = milp(*words, **values)
            result.mip_gap = 0.125
            return result

        monkeypatch.setattr(optimize, "milp", ended_early)
        out = vpmem("plan", flavors)[1]
        assert out.splitlines()[-1] == "The solver ended early: another plan may fit up to 12.5% more."
        assert json.loads(vpmem("plan", flavors, "-f", "json")[1])[0]["gap"] == 0.125

    def test_for_programs(self, vpmem, flavors, regions):  # noqa: F811
        code, out, err = vpmem("plan", flavors, "-f", "json")
        assert (code, err) == (0, "")
        (plan,) = json.loads(out)
        check([plan], "Plans")
        for key, title in (("flavors", "Flavors"), ("labels", "Labels"), ("regions", "Regions"), ("steps", "Steps")):
            assert plan[key]
            check(plan[key], f"{title} of a plan")
        check([kept for one in plan["regions"] for kept in one["namespaces"]], "Namespaces of a region of a plan")

    def test_the_configuration_says_what_guests_have(self, host, vpmem, flavors, regions):  # noqa: F811
        used = [region(0, 8 * GIB, node=0, namespaces=[("big", 2 * GIB), ("mine", GIB)]), region(1, 4 * GIB, node=1)]
        regions.write_text(json.dumps(used))
        host.pmem_namespaces = ["large:big"]
        (plan,) = json.loads(vpmem("plan", flavors, "-f", "json")[1])
        assert [(label["kept"], label["new"]) for label in plan["labels"]] == [(1, 1), (0, 5)]
        assert plan["pmem_namespaces"].startswith("large:big|LARGE-")
        assert [kept["name"] for kept in plan["regions"][0]["namespaces"]] == ["big", "mine"]
        check(plan["regions"][0]["namespaces"], "Namespaces of a region of a plan")

    def test_the_label_areas_are_those_that_claims_get(self, host, vpmem, flavors, regions):  # noqa: F811
        regions.write_text(json.dumps([region(0, 64 * GIB, node=0)]))

        def sizes(*words):
            plan = json.loads(vpmem("plan", flavors, "--align", "1G", "-f", "json", *words)[1])[0]
            return {step["label"]: (step["raw"], step["guest"]) for step in plan["steps"]}

        assert sizes() == {"LARGE": (3 * GIB, GIB), "SMALL": (3 * GIB, GIB)}
        host.options["label_size"] = ["0"]
        assert sizes() == {"LARGE": (2 * GIB, GIB), "SMALL": (2 * GIB, GIB)}
        host.options["label_size"] = ["LARGE:0", "SMALL:128KiB"]  # of labels that pmem_namespaces does not have
        assert sizes("--inventory", regions) == {"LARGE": (2 * GIB, GIB), "SMALL": (3 * GIB, GIB)}

    def test_many_hosts(self, vpmem, flavors, tmp_path):  # noqa: F811
        directory, output = tmp_path / "hosts", tmp_path / "plans"
        directory.mkdir()
        output.mkdir()
        for number in range(20):
            (directory / f"host{number:02}.json").write_text(
                json.dumps([region(0, (1 + number % 2) * 4 * GIB, node=0)])
            )
        code, out, err = vpmem("plan", flavors, "--inventory", directory, "--output", output)
        assert (code, err) == (0, "")
        assert [line.split()[:3] for line in out.splitlines()[1:3]] == [["10", "host00", "7"], ["10", "host01", "7"]]
        assert re.search(r"^db +LARGE,SMALL +40 +40$", out, re.MULTILINE)
        assert len(list(output.iterdir())) == 20
        assert json.loads((output / "host07.json").read_text())["host"] == "host07"
        code, out, _ = vpmem("plan", flavors, "--inventory", directory, "-f", "json")
        assert [one["host"] for one in json.loads(out)] == [f"host{number:02}" for number in range(20)]

    def test_a_picture(self, vpmem, flavors, regions, tmp_path):  # noqa: F811
        assert vpmem("plan", flavors, "--svg", tmp_path / "plan.svg")[0] == 0
        assert "region1, 4.00 GiB" in "".join(etree.parse(tmp_path / "plan.svg").getroot().itertext())

    @pytest.mark.parametrize(
        ("width", "environment"),
        [(100, {}), (80, {"NO_COLOR": "1"}), (80, terminal.ASCII)],
        ids=["colour", "NO_COLOR", "ASCII"],
    )
    def test_every_line_fits(self, host, flavors, regions, tmp_path, width, environment):
        flavors.write_text(FLAVORS.replace("count = 3", "count = 99"))
        words = ["--config-file", host.config_file(), "plan", flavors]
        code, out, err = terminal.run(words, width=width, environment=environment)
        assert (code, err) == (0, "")
        plain = ESCAPE.sub("", out)
        assert plain.isascii()
        long = [line for line in plain.splitlines() if tables.width_of(line) > width]
        assert all(line.startswith("pmem_namespaces = ") for line in long), out
        assert ("\x1b[31m" in out) == ("NO_COLOR" not in environment)

    @pytest.mark.parametrize("option", ["--output", "--svg"])
    @pytest.mark.parametrize("file", ["/nonexistent/plan", "/", "", "a\0b"])
    def test_a_file_that_cannot_be_written(self, refused, flavors, regions, tmp_path, monkeypatch, option, file):  # noqa: F811
        empty = tmp_path / "empty"
        empty.mkdir()
        monkeypatch.chdir(empty)
        assert "(VPMEM-E19)" in refused(5, "plan", flavors, option, file)
        assert os.listdir(empty) == []

    @pytest.mark.parametrize(
        "words",
        [
            ["{tmp}/absent"],
            ["{tmp}"],
            ["{flavors}", "--inventory", "{tmp}/absent"],
            ["{flavors}", "--inventory", "{flavors}"],
            ["{flavors}", "--align", "3M"],
            ["{flavors}", "--map", "disk"],
            ["{flavors}", "-f", "yaml"],
            [],
        ],
    )
    def test_bad_input(self, refused, flavors, regions, tmp_path, words):  # noqa: F811
        refused(2, "plan", *[word.format(tmp=tmp_path, flavors=flavors) for word in words])

    @pytest.mark.parametrize("words", [(), ("-f", "json")], ids=["text", "json"])
    def test_progress_on_a_terminal(self, flavors, tmp_path, words):
        hosts = tmp_path / "hosts"
        hosts.mkdir()
        for number in range(3):
            (hosts / f"host{number}.json").write_text(json.dumps([region(0, (3 + number) * GIB, node=0)]))
        command = ["plan", flavors, "--inventory", hosts, *words]
        code, out, _ = terminal.run(command, shows_errors=True)
        plain = ESCAPE.sub("", out)
        assert code == 0
        assert ("Planning" in plain) == (not words)
        if words:
            assert len(json.loads(plain)) == 3
        else:
            assert plain.rstrip().endswith("No plan fits more.")

    def test_a_host_without_regions(self, refused, flavors, regions):  # noqa: F811
        regions.write_text("[]")
        assert "(VPMEM-E14)" in refused(5, "plan", flavors)

    def test_a_host_without_ndctl(self, refused, flavors, host, monkeypatch, tmp_path):  # noqa: F811
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "Install the package ndctl" in refused(5, "plan", flavors)

    def test_a_label_area_that_is_impossible(self, refused, flavors, regions, host):  # noqa: F811
        host.options["label_size"] = ["LARGE:1KiB"]
        assert "[vpmem] label_size: 'LARGE:1KiB'" in refused(2, "plan", flavors)

    def test_what_guests_have_cannot_be_read(self, refused, flavors, regions, host):  # noqa: F811
        host.options |= {"discovery": "directory", "directory": "/nonexistent"}
        assert "(VPMEM-E14)" in refused(5, "plan", flavors)

    def test_without_the_solver(self, refused, flavors, regions, monkeypatch):  # noqa: F811
        flavors.write_text(MIXED)
        monkeypatch.setitem(sys.modules, "scipy", None)
        assert "vpmem_driver[plan]" in refused(5, "plan", flavors)


class TestProvision:
    def test_a_dry_run_changes_nothing(self, vpmem, plan, regions):  # noqa: F811
        before = regions.read_text()
        code, out, err = vpmem("provision", plan)
        assert (code, err) == (0, "")
        assert out.count("ndctl create-namespace") == 7
        assert "step 7 of 7: ndctl create-namespace" in out
        assert "Nothing was changed. With --yes, 7 namespaces are cut." in out
        assert regions.read_text() == before

    def test_a_plan_is_carried_out(self, host, vpmem, plan, regions):  # noqa: F811
        code, out, err = vpmem("provision", plan, "--yes")
        assert (code, err) == (0, "")
        assert len(names(regions)) == len(set(names(regions))) == 7
        host.pmem_namespaces = out.splitlines()[-1].removeprefix("pmem_namespaces = ").split(",")
        code, listed, err = vpmem("namespace", "list", "-f", "json")
        assert (code, err) == (0, "")
        assert {(row["label"], row["state"]) for row in json.loads(listed)} == {
            ("LARGE", "unknown"),
            ("SMALL", "unknown"),
        }
        code, out, _ = vpmem("provision", plan, "--yes")
        assert (code, out.count("ndctl")) == (0, 0)
        assert "All namespaces of the plan exist." in out

    @pytest.mark.parametrize(
        ("fault", "code", "said", "left"),
        [
            ("fail", 5, "exit code 1, failed to create namespace: Invalid argument", 0),
            ("stop", 5, "exit code 1", 1),
            ("small", 4, "the plan has 1088421888 bytes in mode devdax", 1),
        ],
    )
    def test_the_first_surprise_ends_it(self, vpmem, plan, regions, monkeypatch, fault, code, said, left):  # noqa: F811
        monkeypatch.setenv("NDCTL_FAULT", fault)
        result, out, err = vpmem("provision", plan, "--yes")
        assert (result, out.count("step ")) == (code, 1)
        assert said in err
        assert "'vpmem provision' again" in err
        assert len(names(regions)) == left
        monkeypatch.delenv("NDCTL_FAULT")
        result, _, err = vpmem("provision", plan, "--yes")
        if left:  # half a namespace is for a person
            assert (result, len(names(regions))) == (4, 1)
            assert "ndctl destroy-namespace --force namespace0.0" in err
            one, other = json.loads(regions.read_text())
            regions.write_text(json.dumps([region(0, one["size"], node=0), other]))
            result, _, err = vpmem("provision", plan, "--yes")
        assert (result, len(names(regions))) == (0, 7), err

    def test_a_second_run_does_the_rest(self, vpmem, plan, regions):  # noqa: F811
        program = regions.parent / "ndctl"
        whole = program.read_text()
        limit = f'if [ "$1" = create-namespace ] && grep -q SMALL-1 {regions}; then exit 7; fi\nexec'
        program.write_text(whole.replace("exec", limit))
        code, out, err = vpmem("provision", plan, "--yes")
        assert code == 5
        done = names(regions)
        assert 0 < len(done) < 7
        program.write_text(whole)
        code, out, err = vpmem("provision", plan, "--yes")
        assert (code, out.count("step ")) == (0, 7 - len(done)), err
        assert len(names(regions)) == 7

    def test_a_stranger_in_the_region(self, vpmem, plan, regions):  # noqa: F811
        one, other = json.loads(regions.read_text())
        ndctl_program.add(one, "stranger", 16 * MIB)
        regions.write_text(json.dumps([one, other]))
        for words in ([], ["--yes"]):
            code, out, err = vpmem("provision", plan, *words)
            assert (code, out) == (4, "")
            assert "(stranger) in region0 is not in the plan" in err
            assert "(VPMEM-E26)" in err
            assert names(regions) == ["stranger"]

    @pytest.fixture
    def in_use(self, host, vpmem, flavors, regions, tmp_path):  # noqa: F811
        """A plan for a region that has the namespace `old`; returns its file and what ndctl prints of it."""
        one = region(0, 4 * GIB, node=0, namespaces=[("old", 256 * MIB)])
        regions.write_text(json.dumps([one]))
        path = tmp_path / "used.json"
        assert vpmem("plan", flavors, "--output", path)[0] == 0
        return path, one

    def test_an_unused_namespace_is_no_obstacle(self, vpmem, in_use, regions):  # noqa: F811
        assert vpmem("provision", in_use[0], "--yes")[0] == 0
        assert names(regions)[0] == "old"

    def test_an_owner_has_a_namespace(self, host, vpmem, in_use, regions):  # noqa: F811
        owner = new_owner()
        host.pmem_namespaces = ["SMALL:old"]
        assert vpmem("namespace", "list")[0] == 0
        host.pool()
        host.close()
        move(host, "old", State.DIRTY, State.CLAIMED, owner=owner)
        code, out, err = vpmem("provision", in_use[0], "--yes")
        assert (code, out) == (4, "")
        assert f"Namespace old is in use by {owner}" in err
        assert names(regions) == ["old"]

    def test_a_ledger_that_cannot_be_read(self, host, vpmem, in_use, regions):  # noqa: F811
        host.state_path.mkdir()
        (host.state_path / ledger.FILE_NAME).write_bytes(b"garbage" * 1000)
        code, out, err = vpmem("provision", in_use[0], "--yes")
        assert (code, out) == (5, "")
        assert "(VPMEM-E16)" in err
        assert names(regions) == ["old"]

    def test_a_process_has_a_namespace(self, vpmem, in_use, regions, tmp_path):  # noqa: F811
        path, one = in_use
        file = tmp_path / "device"
        file.write_bytes(bytes(mmap.PAGESIZE))
        one["namespaces"][0]["daxregion"]["devices"][0]["chardev"] = f"../{file}"
        regions.write_text(json.dumps([one]))
        script = (
            "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); print(flush=True); input()"
        )
        words = [sys.executable, "-c", script, file]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            code, out, err = vpmem("provision", path, "--yes")
            process.communicate(b"\n")
        assert (code, out) == (4, "")
        assert f"Namespace old is in use by process {process.pid}" in err

    def test_the_kernel_has_a_namespace(self, vpmem, in_use, regions):  # noqa: F811
        path, one = in_use
        one["namespaces"][0]["daxregion"]["devices"][0]["mode"] = "system-ram"
        regions.write_text(json.dumps([one]))
        code, out, err = vpmem("provision", path, "--yes")
        assert (code, out) == (4, "")
        assert "in use by the kernel, as system memory" in err

    @pytest.mark.parametrize("text", ["", "{}", "[1]"])
    def test_bad_input(self, refused, regions, tmp_path, text):  # noqa: F811
        path = tmp_path / "bad.json"
        path.write_text(text)
        assert "(VPMEM-E04)" in refused(2, "provision", path)
        refused(2, "provision", tmp_path / "absent", "--yes")
        refused(2, "provision", tmp_path, "--yes")
        assert names(regions) == []
