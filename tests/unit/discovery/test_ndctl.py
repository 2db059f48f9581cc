"""Running ndctl: real processes, a made-up program."""

import contextlib
import json
import logging
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Iterator

import pytest

from tests.unit.discovery import hosts
from vpmem_driver import exception
from vpmem_driver.discovery import ndctl


@pytest.fixture
def path(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The only directory that programs are looked for in."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def failure(discovery: ndctl.NdctlDiscovery) -> exception.DiscoveryFailed:
    with pytest.raises(exception.DiscoveryFailed) as failed:
        discovery.namespaces()
    assert "(discovery = ndctl)" in str(failed.value)
    assert failed.value.__cause__ is not None
    return failed.value


def test_what_is_run(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    hosts.program(path, f'echo "$LC_ALL" "$@" > {path}/said; read line; echo "stdin: $line" >> {path}/said')
    with standard_input("secret\n"):
        assert ndctl.NdctlDiscovery().namespaces() == ()
    assert (path / "said").read_text() == "C list --namespaces --idle --verbose\nstdin: \n"


@contextlib.contextmanager
def standard_input(text: str) -> Iterator[None]:
    """What this process reads from its standard input."""
    saved = os.dup(0)
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    os.dup2(reader, 0)
    os.close(reader)
    try:
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)


def test_program_is_not_there(path: pathlib.Path) -> None:
    failed = failure(ndctl.NdctlDiscovery())
    assert "was not found" in str(failed)
    assert "Install the package ndctl" in str(failed)


def test_program_may_not_be_run(path: pathlib.Path) -> None:
    hosts.program(path, "exit 0", mode=0o644)
    failed = failure(ndctl.NdctlDiscovery())
    assert "may not run" in str(failed)
    assert "as root" in str(failed)


def test_program_is_no_program(path: pathlib.Path) -> None:
    hosts.program(path, "exit 0").write_text("\0")
    assert "cannot be run: Exec format error" in str(failure(ndctl.NdctlDiscovery()))


def test_program_fails_and_what_it_printed_is_logged_at_debug_only(
    path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    hosts.program(path, "echo '[]'; echo '  no access to ndctl.  ' >&2; echo second line >&2; exit 7")
    with caplog.at_level(logging.DEBUG):
        failed = failure(ndctl.NdctlDiscovery())
    assert ": ndctl list ended with exit code 7. " in str(failed)
    assert "by hand" in str(failed)
    assert "no access" not in str(failed)
    assert [record.levelno for record in caplog.records if "no access to ndctl" in record.message] == [logging.DEBUG]


def test_program_is_killed(path: pathlib.Path) -> None:
    hosts.program(path, "kill -9 $$")
    assert "was killed by signal 9 (Killed)" in str(failure(ndctl.NdctlDiscovery()))


def test_program_hangs(path: pathlib.Path) -> None:
    hosts.program(path, f"echo $$ > {path}/pid; exec /bin/sleep 60")
    started = time.monotonic()
    assert "did not end within 0.5 seconds" in str(failure(ndctl.NdctlDiscovery(timeout=0.5)))
    assert time.monotonic() - started < 30
    pid = int((path / "pid").read_text())
    with pytest.raises(ProcessLookupError):  # it is gone, and no zombie is left
        os.kill(pid, 0)


@pytest.mark.parametrize("script", ["echo 'ndctl: nonsense'", """printf '[ {"dev":"namespace0.0",'"""])
def test_program_prints_nonsense(path: pathlib.Path, script: str, caplog: pytest.LogCaptureFixture) -> None:
    hosts.program(path, script)
    with caplog.at_level(logging.DEBUG):
        failed = failure(ndctl.NdctlDiscovery())
    assert "not JSON, incomplete" in str(failed)
    assert "nonsense" not in str(failed)
    assert "namespace0.0" not in str(failed)
    assert all(record.levelno == logging.DEBUG for record in caplog.records)


def test_a_warning_is_no_failure(path: pathlib.Path) -> None:
    hosts.program(path, "echo 'some region is odd' >&2")
    assert ndctl.NdctlDiscovery().namespaces() == ()


def test_a_name_that_is_no_text_hides_nothing(path: pathlib.Path) -> None:
    slots = [hosts.Slot(), hosts.Slot()]
    text = json.dumps([slot.json() for slot in slots]).encode().replace(slots[0].name.encode(), b"\xff\xfe")
    (path / "listing").write_bytes(text)
    hosts.program(path, f"exec /bin/cat {path}/listing")
    found = {each.uuid: each for each in ndctl.NdctlDiscovery().namespaces()}
    assert found[slots[0].uuid].name == "\ufffd\ufffd"
    assert found[slots[1].uuid].name == slots[1].name


def test_node_comes_from_sysfs(tree: hosts.Tree) -> None:
    slots = [hosts.Slot(region=region, node=node) for region, node in ((0, 3), (0, 3), (1, 7), (2, 5))]
    for slot in slots[:3]:
        tree.slot(slot)
    said = [slot.json() for slot in slots]
    for each in said:
        del each["numa_node"]
        each["target_node"] = 99
        each["daxregion"]["devices"][0]["target_node"] = 98
    discovery = ndctl.NdctlDiscovery(lambda: json.dumps(said), sysfs_root=str(tree.root))
    assert {each.name: each.numa_node for each in discovery.namespaces()} == {
        slots[0].name: 3,
        slots[1].name: 3,
        slots[2].name: 7,
        slots[3].name: 99,  # sysfs does not have it
    }


def test_run_is_handed_in(path: pathlib.Path) -> None:
    slot = hosts.Slot()
    discovery = ndctl.NdctlDiscovery(lambda: json.dumps([slot.json()]))
    assert discovery.find(slot.uuid).name == slot.name
    assert discovery.options() == {}


def test_run_that_is_handed_in_fails(path: pathlib.Path) -> None:
    secret = uuid.uuid4().hex

    class ProcessExecutionError(IOError):
        pass

    def run() -> str:
        raise ProcessExecutionError(secret)

    failed = failure(ndctl.NdctlDiscovery(run))
    assert "ProcessExecutionError" in str(failed)
    assert secret not in str(failed)


def test_ndctl_of_this_machine() -> None:
    if shutil.which("ndctl") is None and not os.environ.get("CI"):
        pytest.skip("ndctl is not installed")
    for namespace in ndctl.NdctlDiscovery().namespaces():
        assert namespace.mode
