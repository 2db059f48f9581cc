"""What the tests share: one libvirtd, the small guest's kernel and initramfs, and a table of what was seen."""

import json
import pathlib
import subprocess
import sys

import libvirt
import pytest

from tests.functional import conftest as functional
from tests.integration.domain import Boot, Guest
from tests.machine import guest, kernel, libvirtd

#: The longest that one command may take: a claim that wipes first.
_VPMEM_SECONDS = 120

_SEEN = pytest.StashKey[list[tuple[str, str]]]()


@pytest.fixture(scope="session")
def boot(pytestconfig, tmp_path_factory):
    """What the small guest is booted from."""
    unpacked = kernel.unpacked(pytestconfig.rootpath / ".tox" / "kernel")
    return Boot(unpacked.image, guest.build(tmp_path_factory.mktemp("boot") / "initramfs", unpacked))


@pytest.fixture(scope="session")
def uri():
    with libvirtd.running() as running:
        yield running


@pytest.fixture(scope="session")
def connection(uri):
    opened = libvirt.open(uri)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def host(tmp_path_factory, uri):
    """A host with files as namespaces, whose pool asks the libvirtd of the run."""
    made = functional.Host(tmp_path_factory.mktemp("host"))
    made.options["connection_uri"] = uri
    yield made
    made.close()


@pytest.fixture(scope="module")
def vpmem(host):
    """Run the program itself, behind `prefix`; returns exit code, what it lists, by name, and what it says."""

    def run(*words, prefix=()):
        program = pathlib.Path(sys.executable).with_name("vpmem")
        line = [*prefix, program, "--config-file", host.config_file(), *words, "-f", "json"]
        done = subprocess.run(list(map(str, line)), check=False, capture_output=True, text=True, timeout=_VPMEM_SECONDS)
        assert "Traceback" not in done.stderr
        listed = json.loads(done.stdout) if done.returncode == 0 else []
        return done.returncode, {record["name"]: record for record in listed}, done.stderr

    return run


@pytest.fixture(scope="module")
def new_guest(connection, boot, tmp_path_factory):
    """Defines plain domains, and takes them away in the end."""
    made = []

    def define(**arguments):
        made.append(Guest(connection, boot, tmp_path_factory.mktemp("guest") / "serial.log", **arguments))
        return made[-1]

    yield define
    for each in made:
        each.close()


@pytest.fixture
def seen(pytestconfig):
    """Call it with what was done, and what was seen then, for the table at the end."""
    rows = pytestconfig.stash.setdefault(_SEEN, [])
    return lambda *row: rows.append(row)


def pytest_terminal_summary(terminalreporter, config):
    if rows := config.stash.get(_SEEN, []):
        width = max(len(what) for what, _ in rows)
        terminalreporter.section("what was seen")
        for what, result in rows:
            terminalreporter.write_line(f"{what:{width}}  {result}")
