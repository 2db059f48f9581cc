"""Real processes that map and open real files and devices; a made-up /proc for what cannot be made here."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.wipe import another_process, fill
from vpmem_driver import exception
from vpmem_driver.wipe import in_use

OPEN = "import sys; file = open(sys.argv[1], 'r+b'); print('ready', flush=True); sys.stdin.read()"
MAP = """
import mmap, sys
flags = mmap.MAP_PRIVATE if sys.argv[1].startswith("/dev/") else mmap.MAP_SHARED
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 4096, flags=flags)
print("ready", flush=True)
sys.stdin.read()
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="device nodes and mount namespaces take root")


@pytest.fixture
def file(tmp_path):
    with fill(tmp_path / "ns0", 8192).open("r+b") as opened:
        yield opened


@pytest.fixture
def ordinary_user(file):
    """The file is an ordinary user's, and so are we for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.fchown(file.fileno(), 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def text(process):
    return f"process {process.pid} ({Path(f'/proc/{process.pid}/comm').read_text().strip()})"


def test_nobody_has_it_but_we_ourselves(file):
    os.fchmod(file.fileno(), 0o600)
    assert in_use.mapped_by(file.fileno()) is None


def test_a_process_that_maps_it_is_found_at_once(file):
    with another_process(MAP, file.name) as process:
        # It has closed the file, so that only the mapping tells; with no end of patience for files that are only open.
        assert in_use.mapped_by(file.fileno(), patience=1e9) == text(process)
    os.fchmod(file.fileno(), 0o600)
    assert in_use.mapped_by(file.fileno()) is None


@pytest.mark.parametrize("code", [MAP, OPEN], ids=["map", "open"])
def test_by_another_name_or_none_it_is_the_same_file(file, tmp_path, code):
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "other name"
    os.link(file.name, other)
    with another_process(code, other) as process:
        assert in_use.mapped_by(file.fileno(), patience=0) == text(process)
        other.unlink()
        os.unlink(file.name)
        assert in_use.mapped_by(file.fileno(), patience=0) == text(process)


def test_who_only_opens_it_is_given_time_to_go(file, monkeypatch):
    os.fchmod(file.fileno(), 0o600)
    with another_process(OPEN, file.name) as process:
        assert in_use.mapped_by(file.fileno(), patience=0) == text(process)

        def go(_seconds):
            process.stdin.close()
            process.wait()

        monkeypatch.setattr(in_use.time, "sleep", go)
        assert in_use.mapped_by(file.fileno(), patience=1e9) is None


def test_who_keeps_it_open_is_found_when_patience_ends(file, monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(in_use.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(in_use.time, "sleep", lambda _seconds: None)
    with another_process(OPEN, file.name) as process:
        assert in_use.mapped_by(file.fileno(), patience=3) == text(process)
    assert next(now) == 4


@needs_root
@pytest.mark.parametrize("code", [MAP, OPEN], ids=["map", "open"])
def test_a_device_is_known_by_its_number_not_by_its_path(tmp_path, code):
    """As with QEMU under libvirt, which has a /dev and device nodes of its own."""
    # Documentation/admin-guide/devices.txt: 1:5 is zero, which can be mapped, and 1:7 is full, which nobody has open.
    name, number = ("zero", os.makedev(1, 5)) if code == MAP else ("full", os.makedev(1, 7))
    node = tmp_path / "our-node"
    os.mknod(node, 0o20600, number)
    private_dev = f'mount -t tmpfs none /dev && mknod -m 600 /dev/{name} c 1 {os.minor(number)} && exec "$@"'
    wrapper = ["unshare", "--mount", "sh", "-c", private_dev, "sh"]
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody make mount namespaces")
    with node.open("r+b") as device, another_process(code, f"/dev/{name}", wrapper=wrapper) as process:
        found = in_use.mapped_by(device.fileno(), patience=0)
        assert found is not None
        assert found.startswith(f"process {process.pid} (python")


def test_processes_of_others_do_not_matter_for_a_file_that_only_we_can_open(file, ordinary_user):
    os.fchmod(file.fileno(), 0o600)
    assert in_use.mapped_by(file.fileno()) is None


def test_in_doubt_nobody_can_tell(file, ordinary_user):
    os.fchmod(file.fileno(), 0o644)
    with pytest.raises(exception.HostToolError, match="Run this as root"):
        in_use.mapped_by(file.fileno())


class FakeProc:
    """A made-up /proc with us, init and one process that maps `file`, as the arguments tell it."""

    def __init__(self, path, *, maps="", comm="qemu"):
        self.path = path
        self.process = path / "4711"
        for pid in ("1", str(os.getpid()), "4711"):
            (path / pid / "fd").mkdir(parents=True)
            (path / pid / "map_files").mkdir()
            (path / pid / "maps").write_text("")
        (path / "meminfo").write_text("")
        (self.process / "maps").write_text(maps)
        (self.process / "comm").write_text(comm + "\n")


@pytest.fixture
def other_device_maps(file):
    """The maps line of a file whose filesystem tells stat another device (btrfs); its addresses have leading zeros."""
    return f"00400000-00402000 rw-s 00000000 00:2f {os.fstat(file.fileno()).st_ino}    {file.name}\n"


def test_on_btrfs_the_mapped_file_itself_decides(file, tmp_path, other_device_maps):
    proc = FakeProc(tmp_path / "proc", maps=other_device_maps)
    link = proc.process / "map_files" / "400000-402000"
    link.symlink_to(file.name)
    assert in_use.mapped_by(file.fileno(), proc=str(proc.path)) == "process 4711 (qemu)"
    link.unlink()
    link.symlink_to(fill(tmp_path / "same inode number, other filesystem", 1))
    assert in_use.mapped_by(file.fileno(), proc=str(proc.path)) is None


def test_where_the_mapped_file_cannot_be_reached_its_path_decides(file, tmp_path, other_device_maps):
    proc = FakeProc(tmp_path / "proc", maps=other_device_maps)
    (proc.process / "root").symlink_to("/")
    assert in_use.mapped_by(file.fileno(), proc=str(proc.path)) == "process 4711 (qemu)"


@pytest.mark.parametrize("suffix,found", [("", True), (" (deleted)", True), (".old", False)])
def test_where_nothing_can_be_reached_its_name_decides(file, tmp_path, other_device_maps, suffix, found):
    proc = FakeProc(tmp_path / "proc", maps=other_device_maps.replace("\n", suffix + "\n"))
    assert (in_use.mapped_by(file.fileno(), proc=str(proc.path)) is not None) is found


@needs_root
@pytest.mark.parametrize("minor,found", [(5, True), (7, False)])
def test_another_device_is_not_it(tmp_path, minor, found):
    node = tmp_path / "node"
    os.mknod(node, 0o20600, os.makedev(1, minor))
    proc = FakeProc(tmp_path / "proc", maps="7f0000000000-7f0000001000 rw-s 00000000 00:06 9    /dev/zero\n")
    (proc.process / "map_files" / "7f0000000000-7f0000001000").symlink_to("/dev/zero")
    with node.open("r+b") as device:
        assert (in_use.mapped_by(device.fileno(), proc=str(proc.path)) is not None) is found


def test_a_process_that_ends_meanwhile_is_passed_over(file, tmp_path):
    proc = FakeProc(tmp_path / "proc")
    shutil.rmtree(proc.process)
    proc.process.mkdir()
    assert in_use.mapped_by(file.fileno(), proc=str(proc.path)) is None


def test_an_open_file_that_cannot_be_looked_at_does_not_hide_the_next(file, tmp_path):
    proc = FakeProc(tmp_path / "proc")
    (proc.process / "fd" / "0").symlink_to("/nonexistent/of a dead filesystem")
    (proc.process / "fd" / "1").symlink_to("socket:[1]")
    (proc.process / "fd" / "2").symlink_to(file.name)
    assert in_use.mapped_by(file.fileno(), proc=str(proc.path), patience=0) == "process 4711 (qemu)"


def test_a_process_cannot_write_to_the_operators_terminal(file, tmp_path):
    proc = FakeProc(tmp_path / "proc", comm="\x1b[2Jqemu")
    (proc.process / "fd" / "3").symlink_to(file.name)
    assert in_use.mapped_by(file.fileno(), proc=str(proc.path), patience=0) == "process 4711 (?[2Jqemu)"


def test_a_proc_that_hides_others_is_not_believed(file, tmp_path):
    proc = FakeProc(tmp_path / "proc")
    shutil.rmtree(proc.path / "1")
    os.fchmod(file.fileno(), 0o644)
    with pytest.raises(exception.HostToolError, match="process 1 cannot be looked at"):
        in_use.mapped_by(file.fileno(), proc=str(proc.path))


@pytest.mark.parametrize("make", [lambda _path: None, lambda path: path.mkdir()])
def test_a_proc_that_is_none_is_not_believed(file, tmp_path, make):
    make(tmp_path / "proc")
    with pytest.raises(exception.HostToolError, match=r"cannot be read|does not show this process"):
        in_use.mapped_by(file.fileno(), proc=str(tmp_path / "proc"))
