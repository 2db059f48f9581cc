"""The tasks of ./dev, and those that the README, CONTRIBUTING.md, the hooks and every CI definition name."""

import configparser
import itertools
import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def expand(name):
    """``nova{31,32}`` is nova31 and nova32."""
    parts = [part.strip("{}").split(",") for part in re.split(r"(\{[^}]*\})", name)]
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def words(text):
    """A list of tox's, with commas inside braces and between names."""
    return [name for entry in re.split(r",\s*(?![^{]*\})", text.strip()) for name in expand(entry.strip())]


def tox():
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read_string(read("tox.ini"))
    return parsed


TASKS = words(tox()["tox"]["env_list"])
#: Jobs elsewhere that .ci/run does without: one needs all of git's history, one repeats the tests, one downloads a
#: distribution.
ALONE = ["notes", "cover", "cluster"]
CI = [line.removeprefix("./dev ") for line in read(".ci/run").splitlines() if line.startswith("./dev ")]


def in_table(markdown):
    """The tasks in the first column of a table: `./dev NAME [ARGUMENTS]`, `NAME`, `NAME` … `NAME` (numbered)."""
    for row in re.findall(r"^\| (`\./dev [^|]*) \|", markdown, re.MULTILINE):
        for first, last in re.findall(r"`(?:\./dev )?([^` ]+)[^`]*`(?: … `([^`]+)`)?", row):
            name = first.rstrip("0123456789")
            yield from (
                [f"{name}{number}" for number in range(int(first[len(name) :]), int(last[len(name) :]) + 1)]
                if last
                else [first]
            )


def zuul():
    return yaml.safe_load(read(".zuul.yaml"))


def test_every_task_has_an_environment():
    sections = {name for section in tox() if section.startswith("testenv:") for name in expand(section[8:])}
    assert sections - {".pkg"} == set(TASKS)
    assert len(TASKS) == len(set(TASKS))


def test_the_readme_has_every_task():
    assert set(in_table(read("README.md"))) == set(TASKS)


@pytest.mark.parametrize(
    "name",
    [
        "CONTRIBUTING.md",
        "README.md",
        "SECURITY.md",
        "doc/architecture.md",
        "doc/installation.md",
        ".pre-commit-config.yaml",
    ],
)
def test_a_task_that_is_named_is_there(name):
    named = set(re.findall(r"\./dev ([a-z][a-z0-9-]*)", read(name)))
    assert named <= set(TASKS)


def test_contributing_has_every_task_that_ci_runs():
    named = re.findall(r"\./dev ([a-z][a-z0-9-]*)", read("CONTRIBUTING.md"))
    assert {command.split()[0] for command in CI} <= set(named)


def test_ci_runs_tasks():
    assert {command.split()[0] for command in CI} <= set(TASKS)


def test_github_runs_what_ci_runs():
    (job,) = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"].values()
    assert job["strategy"]["matrix"]["task"] == CI + ALONE
    (command,) = [step["run"] for step in job["steps"] if "run" in step]
    assert command.endswith("./dev ${{ matrix.task }}")


def test_zuul_runs_what_ci_runs():
    jobs = {entry["job"]["name"]: entry["job"] for entry in zuul() if "job" in entry}
    (template,) = [entry["project-template"] for entry in zuul() if "project-template" in entry]
    for pipeline in ("check", "gate"):
        assert [jobs[name]["vars"]["vpmem_task"] for name in template[pipeline]["jobs"]] == CI + ALONE
    assert len(jobs) == len(CI + ALONE) + 1
    (play,) = yaml.safe_load(read(jobs["vpmem-dev"]["run"]))
    (task,) = play["tasks"]
    assert task["ansible.builtin.command"]["cmd"] == "./dev {{ vpmem_task }}"


def test_debian_packages_are_for_tasks():
    selectors = {word for group in re.findall(r"\[([^]]*)\]", read("bindep.txt")) for word in group.split()}
    assert {word for word in selectors if not word.startswith("platform:")} <= set(TASKS)
