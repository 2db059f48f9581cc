"""Whose directory a ledger may be in, and whose files it is made of."""

import contextlib
import errno
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile
import traceback

import pytest

from tests.unit.ledger.test_ledger import insert
from vpmem_driver import exception, ledger
from vpmem_driver.ledger import state_directory

SERVICE, STRANGER = 61001, 61002

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of other users take root")


@pytest.fixture
def place():
    """A directory that every user can go through, as /var/lib."""
    path = pathlib.Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def as_user(uid, call):
    """What `call` returns, as text, in a process of another user; or the error of this package that it raises."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.write(writer, str(call()).encode())
        except exception.VPMEMError as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        except BaseException:  # noqa: BLE001  the test shows it
            os.write(writer, traceback.format_exc().encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def add_one(state):
    """Open the ledger and commit to it; how many namespaces there are now."""
    with contextlib.closing(ledger.Ledger(state)) as records:
        insert(records)
        return len(records.rows())


def owners(state):
    return {path.name: path.stat().st_uid for path in state.iterdir()}


def refused(state):
    with pytest.raises(exception.LedgerError) as caught:
        ledger.Ledger(state)
    assert not isinstance(caught.value, exception.LedgerCorrupt)
    return str(caught.value)


class TestRootAndTheServiceUser:
    """Root runs ``vpmem --config-file /etc/nova/nova.conf`` on the ledger of the service."""

    @pytest.fixture
    def state(self, place):
        path = place / "vpmem"
        path.mkdir(mode=0o700)
        os.chown(path, SERVICE, SERVICE)
        return path

    @needs_root
    def test_what_root_makes_first_is_the_services(self, state):
        records = ledger.Ledger(state)
        insert(records)
        assert owners(state) == dict.fromkeys(owners(state), SERVICE)
        assert len(owners(state)) == 4, "with the log and the shared memory, which SQLite makes"
        assert as_user(SERVICE, lambda: add_one(state)) == "2"
        insert(records)
        records.close()
        assert as_user(SERVICE, lambda: add_one(state)) == "4"

    @needs_root
    def test_what_root_makes_later_is_the_services(self, state):
        assert as_user(SERVICE, lambda: add_one(state)) == "1"
        with contextlib.closing(ledger.Ledger(state)) as records:
            insert(records)
            assert owners(state) == dict.fromkeys(owners(state), SERVICE)
            assert as_user(SERVICE, lambda: add_one(state)) == "3"

    @needs_root
    def test_a_log_that_root_left_after_a_kill_is_the_services(self, state):
        pid = os.fork()
        if pid == 0:
            insert(ledger.Ledger(state))
            os._exit(0)
        os.waitpid(pid, 0)
        assert "ledger.sqlite3-wal" in owners(state)
        assert as_user(SERVICE, lambda: add_one(state)) == "2"

    @needs_root
    def test_a_file_of_root_in_it_is_refused(self, state):
        add_one(state)
        os.chown(state / ledger.FILE_NAME, 0, 0)
        for said in (as_user(SERVICE, lambda: add_one(state)), refused(state)):
            assert "belongs to user root and its directory to user 61001" in said
            assert f"'chown 61001 {state / ledger.FILE_NAME}'" in said

    @needs_root
    def test_root_changes_no_mode_by_a_path_that_the_service_can_replace(self, state):
        add_one(state)
        (state / ledger.FILE_NAME).chmod(0o640)
        add_one(state)
        assert stat.S_IMODE((state / ledger.FILE_NAME).stat().st_mode) == 0o640
        assert as_user(SERVICE, lambda: add_one(state)) == "3"
        assert stat.S_IMODE((state / ledger.FILE_NAME).stat().st_mode) == 0o600


class TestForeign:
    @needs_root
    def test_the_directory_of_another_user(self, place):
        place.chmod(0o755)
        add_one(place)
        said = as_user(SERVICE, lambda: add_one(place))
        assert said.startswith("LedgerError")
        assert f"{place} belongs to user root" in said
        assert "chown" in said

    @needs_root
    @pytest.mark.parametrize("name", [ledger.FILE_NAME, "ledger.lock"])
    def test_a_file_of_another_user(self, place, name):
        add_one(place)
        os.chown(place / name, STRANGER, STRANGER)
        assert "belongs to user 61002" in refused(place)

    @needs_root
    @pytest.mark.parametrize("below", [".", "deeper/still"])
    def test_a_ledger_planted_in_a_directory_with_the_sticky_bit(self, place, below):
        place.chmod(0o1777)
        state = place / "vpmem" / below
        as_user(STRANGER, lambda: (state.mkdir(parents=True, mode=0o700), add_one(state)))
        assert owners(state)[ledger.FILE_NAME] == STRANGER
        said = refused(state)
        assert f"{place / 'vpmem'} belongs to user 61002, and everyone may write to {place}" in said

    @needs_root
    def test_a_link_planted_in_a_directory_with_the_sticky_bit(self, place):
        (place / "mine").mkdir(mode=0o700)
        (place / "tmp").mkdir()
        (place / "tmp").chmod(0o1777)
        as_user(STRANGER, lambda: (place / "tmp" / "vpmem").symlink_to(place / "mine"))
        assert "belongs to user 61002" in refused(place / "tmp" / "vpmem")
        assert list((place / "mine").iterdir()) == []

    @needs_root
    def test_a_link_that_only_root_can_make_is_followed(self, place):
        (place / "big").mkdir(mode=0o700)
        (place / "vpmem").symlink_to(place / "big")
        assert add_one(place / "vpmem") == 1

    @pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o722])
    def test_a_directory_that_others_may_write_to(self, tmp_path, mode):
        tmp_path.chmod(mode)
        said = refused(tmp_path)
        assert f"(mode {mode:04o})" in said
        assert f"'chmod 700 {tmp_path}'" in said
        assert list(tmp_path.iterdir()) == []

    def test_a_directory_in_one_that_others_may_write_to(self, tmp_path):
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        assert "everyone may write to" in refused(tmp_path / "open" / "vpmem")

    @pytest.mark.parametrize("mode", [0o620, 0o602])
    def test_a_file_that_others_may_write_to(self, tmp_path, mode):
        add_one(tmp_path)
        (tmp_path / ledger.FILE_NAME).chmod(mode)
        assert f"(mode {mode:04o})" in refused(tmp_path)

    def test_a_lock_that_is_a_link(self, tmp_path):
        (tmp_path / "elsewhere").touch()
        (tmp_path / "ledger.lock").symlink_to(tmp_path / "elsewhere")
        assert "not a regular file" in refused(tmp_path)

    def test_a_directory_that_others_may_read_serves(self, tmp_path):
        tmp_path.chmod(0o755)
        assert add_one(tmp_path) == 1


class TestRemedies:
    """What to do depends on what the kernel says; a full disk is no question of permissions."""

    @pytest.mark.parametrize("call", ["mkdir", "open"])
    @pytest.mark.parametrize(
        ("code", "remedy"),
        [
            (errno.ENOSPC, "Free space"),
            (errno.EDQUOT, "quota"),
            (errno.EROFS, "writable"),
            (errno.EACCES, "chown"),
            (errno.EPERM, "chown"),
            (errno.ENOTDIR, "Set [vpmem] state_path to a directory"),
            (errno.ELOOP, "symbolic links"),
            (errno.EIO, "kernel log"),
        ],
    )
    def test_of_an_error(self, tmp_path, monkeypatch, call, code, remedy):
        def fail(*arguments, **options):
            raise OSError(code, os.strerror(code), str(arguments[0]))

        (tmp_path / "state").mkdir(mode=0o700)
        monkeypatch.setattr(*{"mkdir": (pathlib.Path, "mkdir"), "open": (state_directory.os, "open")}[call], fail)
        said = refused(tmp_path / "state")
        assert os.strerror(code) in said
        assert remedy in said

    def test_of_a_file_in_the_way(self, tmp_path):
        (tmp_path / "file").touch()
        for path in (tmp_path / "file", tmp_path / "file" / "state"):
            assert "Set [vpmem] state_path to a directory" in refused(path)

    def test_of_links_that_lead_to_each_other(self, tmp_path):
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        assert "symbolic links" in refused(tmp_path / "a" / "state")

    def test_of_a_full_filesystem(self, tmp_path):
        with mounted(tmp_path, "-t", "tmpfs", "-o", "nr_inodes=1,mode=700", "none"):
            assert "Free space" in refused(tmp_path / "state")

    def test_of_one_that_is_mounted_read_only(self, tmp_path):
        with mounted(tmp_path, "-t", "tmpfs", "-o", "ro,mode=700", "none"):
            assert "writable" in refused(tmp_path / "state")


@contextlib.contextmanager
def mounted(path, *arguments):
    if os.geteuid() != 0:
        pytest.skip("mounting a filesystem takes root")
    if subprocess.run(["mount", *arguments, path], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


#: Opens a ledger, waits, and commits to it; prints the first error of ours, or dies.
_OPEN_AND_COMMIT = """
import sys
from tests.unit.ledger.test_ledger import insert
from vpmem_driver import exception, ledger
try:
    records = ledger.Ledger(sys.argv[1])
    print("opened", flush=True)
    sys.stdin.read()
    insert(records)
    print("committed")
except exception.LedgerError as error:
    print(error)
"""


@pytest.fixture
def small_blocks(tmp_path):
    """An ext4 of 8 MiB, in blocks of 1 KiB, that root may fill to the last one."""
    image, path = tmp_path / "image", tmp_path / "mount"
    with image.open("wb") as file:
        file.truncate(8 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", "-m", "0", image], check=True)
    path.mkdir()
    with mounted(path, "-o", "loop", image):
        (path / "state").mkdir(mode=0o700)
        yield path


def fill(filesystem, free):
    """Leave `free` KiB."""
    with (filesystem / "other").open("wb") as other:
        room = os.statvfs(filesystem).f_bavail - free - 8  # the map of the file's blocks may take a few
        os.posix_fallocate(other.fileno(), 0, room * 1024)
        if left := os.statvfs(filesystem).f_bavail - free:
            os.posix_fallocate(other.fileno(), room * 1024, left * 1024)
    os.sync()


def start(state):
    command = [sys.executable, "-c", _OPEN_AND_COMMIT, state]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )


@pytest.mark.parametrize("free", [9, 10, 11])
def test_opening_on_a_full_filesystem_with_small_blocks_is_no_sigbus(small_blocks, free):
    """SQLite's shared memory file gets one block in four; the others come with stores to a mapping of it."""
    ledger.Ledger(small_blocks / "state").close()
    fill(small_blocks, free)
    with start(small_blocks / "state") as process:
        said = process.communicate()[0]
    assert process.returncode == 0, "killed"
    assert "Free space" in said


def test_a_commit_on_a_full_filesystem_with_small_blocks_is_no_sigbus(small_blocks):
    with start(small_blocks / "state") as process:
        assert process.stdout.readline() == "opened\n"
        fill(small_blocks, 0)
        said = process.communicate()[0]
    assert process.returncode == 0, "killed"
    assert "Free space" in said
