"""Real processes that map and open real files and devices; a made-up /proc for what cannot be made here."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.files import another_process, fill
from vpmem_driver import device_users, exception

OPEN = "import sys; file = open(sys.argv[1], 'r+b'); print('ready', flush=True); sys.stdin.read()"
MAP = """
import mmap, sys
flags = mmap.MAP_PRIVATE if sys.argv[1].startswith("/dev/") else mmap.MAP_SHARED
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 4096, flags=flags)
print("ready", flush=True)
sys.stdin.read()
"""
#: Its main thread ends, and another one keeps what it has.
WITHOUT_MAIN_THREAD = """
import ctypes, mmap, os, sys, threading, time
with open(sys.argv[1], "r+b") as file:
    kept = [os.dup(file.fileno()) if sys.argv[2] == "open" else mmap.mmap(file.fileno(), 4096)]
def keep():
    with open("/proc/self/stat") as stat:
        while stat.read().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.005)
            stat.seek(0)
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=keep).start()
ctypes.CDLL(None).pthread_exit(None)
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
    assert device_users.mapped_by(file.fileno()) is None


def test_a_process_that_maps_it_is_found_at_once(file):
    with another_process(MAP, file.name) as process:
        # It has closed the file, so that only the mapping tells; with no end of patience for files that are only open.
        assert device_users.mapped_by(file.fileno(), patience=1e9) == text(process)
    os.fchmod(file.fileno(), 0o600)
    assert device_users.mapped_by(file.fileno()) is None


@pytest.mark.parametrize("code", [MAP, OPEN], ids=["map", "open"])
def test_by_another_name_or_none_it_is_the_same_file(file, tmp_path, code):
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "other name"
    os.link(file.name, other)
    with another_process(code, other) as process:
        assert device_users.mapped_by(file.fileno(), patience=0) == text(process)
        other.unlink()
        os.unlink(file.name)
        assert device_users.mapped_by(file.fileno(), patience=0) == text(process)


@pytest.mark.parametrize("how", ["map", "open"])
def test_a_process_whose_main_thread_has_ended_is_found(file, how):
    """Its mapping was overwritten: /proc/PID/maps and fd are those of the main thread, and empty then."""
    with another_process(WITHOUT_MAIN_THREAD, file.name, how) as process:
        assert Path(f"/proc/{process.pid}/maps").read_text() == ""
        assert device_users.mapped_by(file.fileno(), patience=0) == text(process)


def test_who_only_opens_it_is_given_time_to_go(file, monkeypatch):
    os.fchmod(file.fileno(), 0o600)
    with another_process(OPEN, file.name) as process:
        assert device_users.mapped_by(file.fileno(), patience=0) == text(process)

        def go(_seconds):
            process.stdin.close()
            process.wait()

        monkeypatch.setattr(device_users.time, "sleep", go)
        assert device_users.mapped_by(file.fileno(), patience=1e9) is None


def test_who_keeps_it_open_is_found_when_patience_ends(file, monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(device_users.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(device_users.time, "sleep", lambda _seconds: None)
    with another_process(OPEN, file.name) as process:
        assert device_users.mapped_by(file.fileno(), patience=3) == text(process)
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
        found = device_users.mapped_by(device.fileno(), patience=0)
        assert found is not None
        assert found.startswith(f"process {process.pid} (python")


def test_processes_of_others_do_not_matter_for_a_file_that_only_we_can_open(file, ordinary_user):
    os.fchmod(file.fileno(), 0o600)
    assert device_users.mapped_by(file.fileno()) is None


def test_in_doubt_nobody_can_tell(file, ordinary_user):
    os.fchmod(file.fileno(), 0o644)
    with pytest.raises(exception.HostToolError, match="Run this as root"):
        device_users.mapped_by(file.fileno())


@pytest.mark.parametrize("ended", [FileNotFoundError, ProcessLookupError])
def test_a_thread_that_ends_meanwhile_does_not_hide_the_others(file, tmp_path, monkeypatch, ended):
    proc = FakeProc(tmp_path / "proc")
    for thread in ("4712", "4713"):
        (proc.process / "task" / thread).mkdir()
        shutil.copytree(proc.process, proc.path / thread, ignore=lambda *_: ["task"])
    status = os.fstat(file.fileno())
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    (proc.path / "4713" / "maps").write_text(f"1000-3000 rw-s 0 {device} {status.st_ino} {file.name}\n")
    # 4712 is in the listing, and gone when it is read.
    read = device_users._read_maps

    def read_maps(process):
        if process.endswith("4712"):
            raise ended
        return read(process)

    monkeypatch.setattr(device_users, "_read_maps", read_maps)
    monkeypatch.setattr(device_users, "_processes", lambda *_: ["4711"])
    assert device_users.mapped_by(file.fileno(), proc=str(proc.path)) == "process 4711 (qemu)"


class FakeProc:
    """A made-up /proc with us, init and one process that maps `file`, as the arguments tell it."""

    def __init__(self, path, *, maps="", comm="qemu"):
        self.path = path
        self.process = path / "4711"
        for pid in ("1", str(os.getpid()), "4711"):
            (path / pid / "fd").mkdir(parents=True)
            (path / pid / "map_files").mkdir()
            (path / pid / "task" / pid).mkdir(parents=True)
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
    assert device_users.mapped_by(file.fileno(), proc=str(proc.path)) == "process 4711 (qemu)"
    link.unlink()
    link.symlink_to(fill(tmp_path / "same inode number, other filesystem", 1))
    assert device_users.mapped_by(file.fileno(), proc=str(proc.path)) is None


def test_where_the_mapped_file_cannot_be_reached_its_path_decides(file, tmp_path, other_device_maps):
    proc = FakeProc(tmp_path / "proc", maps=other_device_maps)
    (proc.process / "root").symlink_to("/")
    assert device_users.mapped_by(file.fileno(), proc=str(proc.path)) == "process 4711 (qemu)"


@pytest.mark.parametrize("suffix,found", [("", True), (" (deleted)", True), (".old", False)])
def test_where_nothing_can_be_reached_its_name_decides(file, tmp_path, other_device_maps, suffix, found):
    proc = FakeProc(tmp_path / "proc", maps=other_device_maps.replace("\n", suffix + "\n"))
    assert (device_users.mapped_by(file.fileno(), proc=str(proc.path)) is not None) is found


@needs_root
@pytest.mark.parametrize("minor,found", [(5, True), (7, False)])
def test_another_device_is_not_it(tmp_path, minor, found):
    node = tmp_path / "node"
    os.mknod(node, 0o20600, os.makedev(1, minor))
    proc = FakeProc(tmp_path / "proc", maps="7f0000000000-7f0000001000 rw-s 00000000 00:06 9    /dev/zero\n")
    (proc.process / "map_files" / "7f0000000000-7f0000001000").symlink_to("/dev/zero")
    with node.open("r+b") as device:
        assert (device_users.mapped_by(device.fileno(), proc=str(proc.path)) is not None) is found


def test_a_process_that_ends_meanwhile_is_passed_over(file, tmp_path):
    proc = FakeProc(tmp_path / "proc")
    shutil.rmtree(proc.process)
    proc.process.mkdir()
    assert device_users.mapped_by(file.fileno(), proc=str(proc.path)) is None


def test_an_open_file_that_cannot_be_looked_at_does_not_hide_the_next(file, tmp_path):
    proc = FakeProc(tmp_path / "proc")
    (proc.process / "fd" / "0").symlink_to("/nonexistent/of a dead filesystem")
    (proc.process / "fd" / "1").symlink_to("socket:[1]")
    (proc.process / "fd" / "2").symlink_to(file.name)
    assert device_users.mapped_by(file.fileno(), proc=str(proc.path), patience=0) == "process 4711 (qemu)"


def test_a_process_cannot_write_to_the_operators_terminal(file, tmp_path):
    proc = FakeProc(tmp_path / "proc", comm="\x1b[2Jqemu")
    (proc.process / "fd" / "3").symlink_to(file.name)
    assert device_users.mapped_by(file.fileno(), proc=str(proc.path), patience=0) == "process 4711 (?[2Jqemu)"


def test_a_proc_that_hides_others_is_not_believed(file, tmp_path):
    proc = FakeProc(tmp_path / "proc")
    shutil.rmtree(proc.path / "1")
    os.fchmod(file.fileno(), 0o644)
    with pytest.raises(exception.HostToolError, match="process 1 cannot be inspected"):
        device_users.mapped_by(file.fileno(), proc=str(proc.path))


@pytest.mark.parametrize("make", [lambda _path: None, lambda path: path.mkdir()])
def test_a_proc_that_is_none_is_not_believed(file, tmp_path, make):
    make(tmp_path / "proc")
    with pytest.raises(exception.HostToolError, match=r"cannot be read|does not show this process"):
        device_users.mapped_by(file.fileno(), proc=str(tmp_path / "proc"))


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.EMFILE])
def test_a_process_that_cannot_be_read_is_one_that_cannot_be_looked_at(file, tmp_path, monkeypatch, number):
    """Not an error without a type, and not a process that has nothing."""
    proc = FakeProc(tmp_path / "proc")

    def fail(_process):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(device_users, "_read_maps", fail)
    os.fchmod(file.fileno(), 0o644)
    with pytest.raises(exception.HostToolError, match="process 1 cannot be inspected"):
        device_users.mapped_by(file.fileno(), proc=str(proc.path))


def test_the_users_of_several_paths_are_found_in_one_sweep(tmp_path, monkeypatch):
    paths = [str(fill(tmp_path / name, 8192)) for name in ("ns0", "ns1", "ns2", "ns3")]
    swept = []
    processes = device_users._processes
    monkeypatch.setattr(
        device_users, "_processes", lambda *args, **kwargs: swept.append(args) or processes(*args, **kwargs)
    )
    os.link(paths[0], tmp_path / "other name")
    with (
        another_process(MAP, tmp_path / "other name") as first,
        another_process(MAP, paths[2]) as second,
        another_process(OPEN, paths[3]),
    ):
        users = device_users.users_of([*paths, str(tmp_path / "none")])
        assert users == {paths[0]: text(first), paths[2]: text(second)}
    assert len(swept) == 1


def test_paths_of_one_file_have_the_same_user(tmp_path):
    path, link = str(fill(tmp_path / "ns0", 8192)), str(tmp_path / "link")
    os.link(path, link)
    with another_process(MAP, path) as process:
        assert device_users.users_of(iter([path, link, path])) == {path: text(process), link: text(process)}


@needs_root
def test_the_user_of_a_device_is_found_by_its_number(tmp_path):
    node, other = tmp_path / "our-node", tmp_path / "other-node"
    os.mknod(node, 0o20600, os.makedev(1, 5))
    os.mknod(other, 0o20600, os.makedev(1, 7))
    with another_process(MAP, "/dev/zero") as process:
        assert device_users.users_of([str(node), str(other)]) == {str(node): text(process)}


def test_a_user_without_a_main_thread_is_found(tmp_path):
    path = str(fill(tmp_path / "ns0", 8192))
    with another_process(WITHOUT_MAIN_THREAD, path, "map") as process:
        assert device_users.users_of([path]) == {path: text(process)}


def test_users_that_may_not_be_looked_at_are_passed_over(file, ordinary_user):
    os.fchmod(file.fileno(), 0o644)
    assert device_users.users_of([file.name]) == {}


def test_each_process_is_read_once_however_many_paths_there_are(tmp_path, monkeypatch):
    paths = [str(fill(tmp_path / f"ns{number}", 1)) for number in range(50)]
    proc = FakeProc(tmp_path / "proc", maps="1000-2000 rw-s 0 00:01 1 /dev/shm/a\n")
    read, content = [], device_users._read_maps
    monkeypatch.setattr(device_users, "_read_maps", lambda process: read.append(process) or content(process))
    assert device_users.users_of(paths, proc=str(proc.path)) == {}
    assert read == [f"{proc.path}/1", f"{proc.path}/4711"]


def test_nobody_is_looked_for_where_there_is_nothing(tmp_path):
    assert device_users.users_of([], proc=str(tmp_path / "none")) == {}
    assert device_users.users_of([str(tmp_path / "gone")], proc=str(tmp_path / "none")) == {}


LOCK = """
import fcntl, os, sys
file = open(sys.argv[1], "r+b")
fcntl.flock(file, fcntl.LOCK_EX)
{then}
print("ready", flush=True)
sys.stdin.read()
"""


#: The child waits for the end of the process that took the lock, which is a zombie from then on.
LEFT_TO_A_CHILD = """
first = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == first:
    os.sched_yield()
"""


def test_the_process_that_holds_the_lock_is_named(file):
    assert device_users.locked_by(file.fileno()) is None
    with another_process(LOCK.format(then=""), file.name) as process:
        assert device_users.locked_by(file.fileno()) == text(process)
    assert device_users.locked_by(file.fileno()) is None


def test_a_process_that_left_the_lock_to_its_child_is_not_named(file, tmp_path):
    """Its number may be another's by now."""
    with another_process(LOCK.format(then=LEFT_TO_A_CHILD), file.name):
        assert device_users.locked_by(file.fileno()) is None
    gone = FakeProc(tmp_path / "proc")
    status = os.fstat(file.fileno())
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    (gone.path / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 4711 {inode} 0 EOF\n")
    assert device_users.locked_by(file.fileno(), proc=str(gone.path)) is None
    (gone.process / "fd" / "3").symlink_to(file.name)
    assert device_users.locked_by(file.fileno(), proc=str(gone.path)) == "process 4711 (qemu)"


@pytest.mark.parametrize("line", ["1: -> FLOCK ADVISORY WRITE 4711 {} 0 EOF", "1: POSIX ADVISORY WRITE 4711 {} 0 EOF"])
def test_who_waits_for_the_lock_or_has_another_is_not_its_holder(file, tmp_path, line):
    proc = FakeProc(tmp_path / "proc")
    (proc.process / "fd" / "3").symlink_to(file.name)
    status = os.fstat(file.fileno())
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    (proc.path / "locks").write_text(line.format(inode) + "\n")
    assert device_users.locked_by(file.fileno(), proc=str(proc.path)) is None
