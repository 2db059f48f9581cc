"""How processes take turns at the ledger, and what a process is told that waits in vain."""

import contextlib
import errno
import fcntl
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from tests.unit.ledger.test_ledger import insert
from vpmem_driver import exception, ledger
from vpmem_driver.ledger import lock


@pytest.fixture
def records(tmp_path):
    with contextlib.closing(ledger.Ledger(tmp_path)) as opened:
        yield opened


@contextlib.contextmanager
def python(program, *arguments, **environment):
    """A process that runs `program`, which can import the tests; ended if it is still there."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd(), **environment},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_stopped(process):
    """Until a signal has stopped it; its parent is told."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


HOLD = """
import sys
from vpmem_driver import ledger
with ledger.Ledger(sys.argv[1]).transaction():
    print("held", flush=True)
    sys.stdin.read()
"""

HOLD_WITH_SQLITE = """
import sys, sqlite3
database = sqlite3.connect(sys.argv[1] + "/ledger.sqlite3", isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


class TestWaiting:
    """Under eventlet, :func:`time.sleep` lets all the rest of nova-compute run; SQLite's own busy handler does not."""

    @pytest.fixture
    def sleeps(self, monkeypatch):
        """Each sleep; after the third one, what ``release`` was set to is called."""

        class Sleeps(list):
            def __call__(self, seconds):
                self.append(seconds)
                if len(self) == 3:
                    self.release()

        found = Sleeps()
        monkeypatch.setattr(time, "sleep", found)
        return found

    def test_for_another_ledger_it_sleeps(self, records, tmp_path, sleeps):
        with contextlib.closing(ledger.Ledger(tmp_path)) as other, contextlib.ExitStack() as held:
            held.enter_context(other.transaction())
            sleeps.release = held.close
            insert(records)
        assert len(sleeps) == 3

    def test_for_the_sqlite3_program_it_sleeps(self, records, sleeps):
        with contextlib.closing(sqlite3.connect(records.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            sleeps.release = lambda: other.execute("ROLLBACK")
            insert(records)
        assert len(sleeps) == 3

    def test_to_open_it_it_sleeps(self, records, tmp_path, sleeps):
        with contextlib.ExitStack() as held:
            held.enter_context(records.transaction())
            sleeps.release = held.close
            ledger.Ledger(tmp_path).close()
        assert len(sleeps) == 3

    def test_to_change_it_to_wal_it_sleeps(self, tmp_path, sleeps):
        """SQLite does not call its busy handler here, so that of processes that made it at once some failed."""
        ledger.Ledger(tmp_path).close()
        with contextlib.closing(sqlite3.connect(tmp_path / ledger.FILE_NAME, isolation_level=None)) as other:
            other.execute("PRAGMA journal_mode = DELETE")
            other.execute("BEGIN IMMEDIATE")
            sleeps.release = lambda: other.execute("ROLLBACK")
            ledger.Ledger(tmp_path).close()
        assert len(sleeps) == 3

    def test_who_has_waited_for_long_has_the_same_chance(self, monkeypatch):
        now, sleeps = [0.0], []

        def sleep(seconds):
            sleeps.append(seconds)
            now[0] += seconds

        monkeypatch.setattr(lock.time, "sleep", sleep)
        monkeypatch.setattr(lock.time, "monotonic", lambda: now[0])
        patience = lock.Patience()
        while patience.wait():
            pass
        assert lock.TIMEOUT_SECONDS <= now[0] < lock.TIMEOUT_SECONDS + 0.1
        first_second = [seconds for number, seconds in enumerate(sleeps) if sum(sleeps[:number]) < 1]
        assert max(first_second) < 0.004
        assert len(sleeps) < 10_000, "a process that waits for one that hangs must not use a processor"


class TestQueue:
    """The lock was for whoever tried at the right time: one of two busy processes got 139 turns, and the other 1."""

    @pytest.fixture(autouse=True)
    def strict(self, monkeypatch):
        monkeypatch.setattr(lock, "_TURN_SECONDS", 0, raising=False)
        monkeypatch.setattr(lock, "_OVERDUE_SECONDS", 60, raising=False)

    @staticmethod
    def wait_for(records, number):
        """Until so many wait for the ledger, or for a second."""
        inode = f":{records.path.with_name('ledger.lock').stat().st_ino} "
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            lines = pathlib.Path("/proc/locks").read_text().splitlines()
            if sum("OFDLCK" in line and inode in line for line in lines) >= number:
                return
            time.sleep(0.001)

    def test_it_is_given_in_the_order_of_arrival(self, records, tmp_path):
        order, threads = [], []
        with contextlib.ExitStack() as opened:
            others = [opened.enter_context(contextlib.closing(ledger.Ledger(tmp_path))) for _ in range(6)]

            def write(number):
                with others[number].transaction():
                    order.append(number)

            with records.transaction():
                for number in range(6):
                    threads.append(threading.Thread(target=write, args=(number,)))
                    threads[-1].start()
                    self.wait_for(records, number + 1)
            for thread in threads:
                thread.join()
        assert order == [0, 1, 2, 3, 4, 5]

    def test_who_has_had_it_is_behind_who_waits(self, records, tmp_path):
        order = []

        def write():
            with other.transaction():
                order.append("other")

        with contextlib.closing(ledger.Ledger(tmp_path)) as other:
            thread = threading.Thread(target=write)
            with records.transaction():
                thread.start()
                self.wait_for(records, 1)
            with records.transaction():
                order.append("again")
            thread.join()
        assert order == ["other", "again"]

    def test_one_that_is_stopped_while_it_waits_does_not_stop_others(self, records, tmp_path, monkeypatch):
        monkeypatch.setattr(lock, "_OVERDUE_SECONDS", 0.2)
        with contextlib.closing(lock.WriteLock(tmp_path / "ledger.lock")) as stopped:
            stopped._queue(fcntl.F_OFD_SETLK, fcntl.F_RDLCK, 1, 1)
            begin = time.monotonic()
            insert(records)
            assert time.monotonic() - begin >= 0.2

    def test_who_is_gone_is_not_waited_for(self, records, tmp_path, monkeypatch):
        program = """
import sys, threading
from vpmem_driver import ledger
print("ready", flush=True)
with ledger.Ledger(sys.argv[1]).transaction():
    pass
"""
        with records.transaction(), python(program, str(tmp_path)) as process:
            process.stdout.readline()
            self.wait_for(records, 1)
            process.kill()
            process.wait()
        sleeps = []
        monkeypatch.setattr(time, "sleep", sleeps.append)
        insert(records)
        assert sleeps == []


class TestInVain:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch):
        monkeypatch.setattr(lock, "TIMEOUT_SECONDS", 0.1)

    @pytest.mark.parametrize("program", [HOLD, HOLD_WITH_SQLITE], ids=["ours", "sqlite3"])
    def test_a_stopped_process_that_holds_it_is_named(self, records, program):
        with python(program, str(records.path.parent)) as process:
            assert process.stdout.readline() == "held\n"
            process.send_signal(signal.SIGSTOP)
            wait_until_stopped(process)
            with pytest.raises(exception.LedgerError, match=f"process {process.pid} has held the lock.*kill -CONT"):
                insert(records)
            assert not records._db.in_transaction
            assert records.rows() == [], "reading waits for nobody"
            process.send_signal(signal.SIGCONT)
            process.communicate()
        insert(records)

    def test_one_that_the_kernel_does_not_name(self, records, tmp_path, monkeypatch):
        monkeypatch.setattr(pathlib.Path, "read_text", lambda path: "1: FLOCK  ADVISORY  WRITE 0 0:0:0 0 EOF")
        held_too_long = pytest.raises(exception.LedgerError, match="another process has held the lock")
        with contextlib.closing(ledger.Ledger(tmp_path)) as other, other.transaction(), held_too_long:
            insert(records)

    def test_a_closed_ledger_is_an_error_of_ours(self, records):
        records.close()
        with pytest.raises(exception.LedgerError, match="closed"), records.transaction():
            pass


MANY = """
import os, sys
from vpmem_driver import exception, ledger
start, go = os.pipe()
for _ in range(40):
    if os.fork() == 0:
        os.close(go)
        os.read(start, 1)
        try:
            ledger.Ledger(sys.argv[1]).rows()
        except exception.VPMEMError as error:
            print(error, flush=True)
            os._exit(1)
        os._exit(0)
os.close(go)
sys.exit(max(os.wait()[1] for _ in range(40)) != 0)
"""


def test_forty_processes_make_it_at_once_and_all_get_it(tmp_path):
    """SQLite's change to WAL does not wait for other processes: about one in ten failed."""
    with python(MANY, str(tmp_path / "state")) as process:
        said = process.communicate()[0]
    assert (process.returncode, said) == (0, "")


#: Stops the process that is about to make a database file durable: in the middle of a checkpoint.
STOP = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fdatasync(int file)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        if (strcmp(path, getenv("STOP_AT")) == 0 && unlink(getenv("STOP_ONCE")) == 0)
            raise(SIGSTOP);
    }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file);
}
"""

COMMIT_AND_CHECKPOINT = """
import sys
from tests.unit.ledger.test_ledger import insert
from vpmem_driver import ledger
records = ledger.Ledger(sys.argv[1])
records._db.execute("PRAGMA wal_autocheckpoint = 1")
open(sys.argv[2], "w").close()
insert(records)
"""


def test_nobody_writes_while_another_process_checkpoints(records, tmp_path, monkeypatch):
    """SQLite before 3.51.3 corrupts the ledger when a commit resets the log that a checkpoint has begun with."""
    source, library, once = tmp_path / "stop.c", tmp_path / "stop.so", tmp_path / "once"
    source.write_text(STOP)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    environment = {"LD_PRELOAD": str(library), "STOP_AT": str(records.path), "STOP_ONCE": str(once)}
    with python(COMMIT_AND_CHECKPOINT, str(tmp_path), str(once), **environment) as process:
        wait_until_stopped(process)
        assert len(records.rows()) == 1, "committed, and not yet copied to the database file"
        monkeypatch.setattr(lock, "TIMEOUT_SECONDS", 0.1)
        with pytest.raises(exception.LedgerError, match=f"process {process.pid} has held the lock"):
            insert(records)
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 0
    insert(records)
    assert len(records.rows()) == 2


def test_a_process_that_waits_for_it_is_no_holder(tmp_path, monkeypatch):
    status = tmp_path.stat()
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    lines = [f"1: -> FLOCK  ADVISORY  WRITE 11 {file} 0 EOF", f"2: FLOCK  ADVISORY  READ  12 {file} 0 EOF"]
    lines += [f"3: POSIX  ADVISORY  WRITE 13 {file} 0 119", f"4: FLOCK  ADVISORY  WRITE 14 {file}0 0 EOF"]
    monkeypatch.setattr(pathlib.Path, "read_text", lambda path: "\n".join(lines))
    assert (lock.holder(tmp_path), lock.sqlite_writer(tmp_path)) == (None, None)
    lines.append(f"5: POSIX  ADVISORY  WRITE 15 {file} 120 120")
    lines.append(f"6: FLOCK  ADVISORY  WRITE 16 {file} 0 EOF")
    assert (lock.holder(tmp_path), lock.sqlite_writer(tmp_path)) == (16, 15)


class TestInterrupted:
    """What `./dev torture` found: after a Ctrl-C at such a point, all others waited for the interrupted process."""

    @pytest.fixture(autouse=True)
    def impatient(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lock, "TIMEOUT_SECONDS", 2)
            yield

    @staticmethod
    def interrupt_after(monkeypatch, target, method, wanted):
        original = getattr(target, method)

        def call(*arguments):
            result = original(*arguments)
            if wanted(arguments):
                monkeypatch.undo()
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(target, method, call)

    def check(self, records, tmp_path):
        with pytest.raises(KeyboardInterrupt), records.transaction():
            pass
        self.check_others(records, tmp_path)

    @staticmethod
    def check_others(records, tmp_path):
        """Another ledger, and this one, can write."""
        with contextlib.closing(ledger.Ledger(tmp_path)) as other:
            insert(other)
        insert(records)

    def test_just_after_a_transaction_began(self, records, tmp_path, monkeypatch):
        self.interrupt_after(monkeypatch, records, "_execute", lambda arguments: arguments == ("BEGIN IMMEDIATE",))
        self.check(records, tmp_path)

    def test_just_after_commits_became_not_durable(self, records, tmp_path, monkeypatch):
        self.interrupt_after(
            monkeypatch, records, "_execute", lambda arguments: arguments == ("PRAGMA synchronous = NORMAL",)
        )
        with pytest.raises(KeyboardInterrupt), records.transaction(durable=False):
            pass
        assert records._fetch("PRAGMA synchronous") == [(2,)]  # FULL
        self.check_others(records, tmp_path)

    def test_a_lock_that_the_filesystem_does_not_have(self, records, monkeypatch):
        def fail(file, operation):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(lock.fcntl, "flock", fail)
        with pytest.raises(exception.LedgerError), records.transaction():
            pass

    def test_just_after_the_lock_was_taken(self, records, tmp_path, monkeypatch):
        self.interrupt_after(monkeypatch, records._write_lock, "acquire", lambda arguments: True)
        self.check(records, tmp_path)

    def test_inside_the_lock(self, records, tmp_path, monkeypatch):
        self.interrupt_after(monkeypatch, lock.fcntl, "flock", lambda arguments: arguments[1] & fcntl.LOCK_EX)
        self.check(records, tmp_path)
