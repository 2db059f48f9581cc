"""The engine with its real children, and with made-up ones that misbehave."""

import json
import mmap
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from tests.unit.files import (
    DEADLINE,
    PATTERN,
    another_process,
    is_locked,
    is_untouched,
    is_zero,
    namespaces,
    state_of,
)
from tests.waiting import wait_until
from vpmem_driver.engine import Engine, Job, Outcome, process

PAGE = mmap.PAGESIZE
SIZE = 37 * PAGE
#: A rate at which SIZE takes many steps, each after a wait of a tenth of a second.
SLOW = 40 * PAGE


class Recorder:
    """Allows every start and keeps all calls. Tests replace methods by hooks."""

    def __init__(self, **hooks):
        self.calls = []
        self.hooks = hooks
        self.thread = threading.get_ident()
        self.inside = False

    def _record(self, name, uuid, told, *values):
        assert threading.get_ident() == self.thread
        assert not self.inside, "two calls at a time"
        self.inside = True
        try:
            self.calls.append((name, uuid, *told))
            return self.hooks[name](*values) if name in self.hooks else True
        finally:
            self.inside = False

    def may_start(self, job):
        return self._record("may_start", job.uuid, (), job)

    def progress(self, job, phase, done):
        self._record("progress", job.uuid, (phase, done), job, phase, done)

    def finished(self, result):
        self._record("finished", result.uuid, (result.outcome, result.reason), result)

    def of(self, job, name):
        return [call[2:] for call in self.calls if call[:2] == (name, job.uuid)]


class Ending(Engine):
    """An engine that returns outcome and reason by uuid."""

    def run(self, *arguments):
        return {uuid: (result.outcome, result.reason) for uuid, result in super().run(*arguments).items()}


class Host:
    """A directory with namespaces, and jobs for them."""

    def __init__(self, directory, sizes):
        directory.mkdir()
        self.directory = directory
        self.source, self.found = namespaces(directory, sizes)
        self.jobs = {
            name: Job(uuid=namespace.uuid, name=name, size=namespace.size) for name, namespace in self.found.items()
        }

    def path(self, name):
        return self.directory / name

    def engine(self, *, parallel=2, threads=2, rate=0, command=None):
        return Ending(self.source, parallel=parallel, threads=threads, rate=rate, command=command)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path / "namespaces", {"ns0": SIZE, "ns1": SIZE, "ns2": SIZE})


def children():
    """The living children of this process."""
    with open(f"/proc/self/task/{threading.get_native_id()}/children", encoding="ascii") as pids:
        return [int(pid) for pid in pids.read().split()]


@pytest.fixture(autouse=True)
def no_child_is_left():
    before = children()
    yield
    assert children() == before


def test_all_are_wiped_and_the_watcher_hears_of_each(host):
    watcher = Recorder()
    results = host.engine().run(host.jobs.values(), watcher)
    assert results == {job.uuid: (Outcome.WIPED, "") for job in host.jobs.values()}
    for name, job in host.jobs.items():
        assert is_zero(host.path(name))
        assert not is_locked(host.path(name))
        assert watcher.of(job, "may_start") == [()]
        assert watcher.of(job, "finished") == [(Outcome.WIPED, "")]
        progress = watcher.of(job, "progress")
        assert progress == sorted(progress, key=lambda told: (["zero", "verify"].index(told[0]), told[1]))
        assert ("zero", SIZE) in progress
        assert progress[-1] == ("verify", SIZE)


def test_no_jobs_no_work(host):
    assert host.engine().run([], Recorder()) == {}


def test_two_jobs_for_one_namespace_are_a_mistake(host):
    with pytest.raises(ValueError, match="two jobs for one namespace"):
        host.engine().run([host.jobs["ns0"], host.jobs["ns0"]], Recorder())
    assert is_untouched(host.path("ns0"))


def test_not_a_byte_is_changed_when_the_watcher_says_no(host):
    before = {}

    def may_start(job):
        assert is_locked(host.path(job.name))
        before[job.name] = is_untouched(host.path(job.name))
        return job.name == "ns1"

    watcher = Recorder(may_start=may_start)
    results = host.engine().run(host.jobs.values(), watcher)
    assert all(before.values())
    assert {job.name: results[job.uuid] for job in host.jobs.values()} == {
        "ns0": (Outcome.STOPPED, ""),
        "ns1": (Outcome.WIPED, ""),
        "ns2": (Outcome.STOPPED, ""),
    }
    assert is_untouched(host.path("ns0"))
    assert is_untouched(host.path("ns2"))


def test_the_lock_is_held_until_the_outcome_is_written_down(host):
    locked = {}

    def finished(result):
        locked[result.name] = is_locked(host.path(result.name))

    host.engine().run(host.jobs.values(), Recorder(finished=finished))
    assert locked == {"ns0": True, "ns1": True, "ns2": True}
    assert not any(is_locked(host.path(name)) for name in locked)


def test_it_goes_on_where_an_earlier_wipe_was(host):
    job = Job(uuid=host.jobs["ns0"].uuid, name="ns0", size=SIZE, start=30 * PAGE)
    with host.path("ns0").open("r+b") as file:
        file.write(bytes(30 * PAGE))
    watcher = Recorder()
    assert host.engine().run([job], watcher) == {job.uuid: (Outcome.WIPED, "")}
    assert all(done >= 30 * PAGE for phase, done in watcher.of(job, "progress") if phase == "zero")
    assert is_zero(host.path("ns0"))


def test_what_an_earlier_wipe_left_nonzero_is_not_the_mediums_fault(host):
    job = Job(uuid=host.jobs["ns0"].uuid, name="ns0", size=SIZE, start=PAGE)
    assert host.engine().run([job], Recorder()) == {job.uuid: (Outcome.LOST, "byte 0 is not zero after zeroing")}


def test_somebody_writing_to_it_meanwhile_is_found(host):
    """A write behind the place where zeroing is, which never comes back there: only the check can find it."""
    job = host.jobs["ns0"]

    def progress(_job, phase, done):
        if phase == "zero":
            with host.path("ns0").open("r+b") as file:
                file.seek(5)
                file.write(b"\x01")

    results = host.engine(rate=SLOW).run([job], Recorder(progress=progress))
    assert results == {job.uuid: (Outcome.MEDIA, "byte 5 is not zero after zeroing")}


def test_bad_media_quarantine_one_and_the_others_are_wiped(host):
    """A store past the end of a file raises the signal that a store to bad media does."""
    bad = host.jobs["ns1"]

    def progress(job, phase, done):
        if job == bad:
            os.truncate(host.path("ns1"), 0)

    watcher = Recorder(progress=progress)
    results = host.engine(parallel=3, rate=SLOW).run(host.jobs.values(), watcher)
    outcome, reason = results.pop(bad.uuid)
    assert outcome is Outcome.MEDIA
    told = watcher.of(bad, "progress")[-1][1]
    assert reason == f"memory error (SIGBUS) while zeroing, after byte {told}"
    assert watcher.of(bad, "finished") == [(outcome, reason)]
    assert set(results.values()) == {(Outcome.WIPED, "")}
    assert is_zero(host.path("ns0"))
    assert is_zero(host.path("ns2"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_is_killed_is_no_fault_of_the_medium(host, number):
    victim = host.jobs["ns0"]

    def progress(job, phase, done):
        if job == victim:
            wait_until(children)
            os.kill(min(children()), number)

    results = host.engine(parallel=1, rate=SLOW).run([victim], Recorder(progress=progress))
    assert results == {victim.uuid: (Outcome.STOPPED, f"its process was killed by {number.name}")}
    assert not is_zero(host.path("ns0"))
    assert not is_locked(host.path("ns0"))
    assert host.engine().run([victim], Recorder()) == {victim.uuid: (Outcome.WIPED, "")}


def test_of_two_engines_on_one_namespace_one_is_busy(host):
    job = host.jobs["ns0"]
    others = []

    def progress(*_):
        if not others:
            others.append(host.engine().run([job], Recorder()))

    assert host.engine(rate=SLOW).run([job], Recorder(progress=progress)) == {job.uuid: (Outcome.WIPED, "")}
    ((outcome, reason),) = others[0].values()
    assert outcome is Outcome.BUSY
    assert re.fullmatch(r"process \d+ \(python.*\) holds the lock on it", reason)


def test_engines_that_start_at_the_same_time_do_not_take_each_other_for_users(host):
    job = host.jobs["ns0"]
    outcomes = []
    barrier = threading.Barrier(4)

    def run():
        barrier.wait(DEADLINE)
        outcomes.append(host.engine().run([job], Recorder())[job.uuid][0])

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert Outcome.WIPED in outcomes
    assert set(outcomes) <= {Outcome.WIPED, Outcome.BUSY}
    assert is_zero(host.path("ns0"))


MAP = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 4096)
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_a_process_has_mapped_is_left_alone(host):
    with another_process(MAP, host.path("ns0")) as user:
        results = host.engine().run(host.jobs.values(), Recorder())
    outcome, reason = results[host.jobs["ns0"].uuid]
    assert outcome is Outcome.IN_USE
    assert reason.startswith(f"process {user.pid} (")
    assert is_untouched(host.path("ns0"))
    assert is_zero(host.path("ns1"))


def test_what_is_gone_is_the_hosts_fault(host):
    host.path("ns0").unlink()
    results = host.engine().run(host.jobs.values(), Recorder())
    assert results[host.jobs["ns0"].uuid] == (Outcome.MISSING, "discovery does not find it")
    assert is_zero(host.path("ns1"))


def test_set_the_event_and_it_stops_soon_with_its_progress_told(host):
    stop = threading.Event()
    watcher = Recorder(progress=lambda *_: stop.set())
    results = host.engine(parallel=1, rate=SLOW).run(host.jobs.values(), watcher, stop)
    assert results == {job.uuid: (Outcome.STOPPED, "") for job in host.jobs.values()}
    (begun,) = [job for job in host.jobs.values() if watcher.of(job, "may_start")]
    done = watcher.of(begun, "progress")[-1][1]
    content = host.path(begun.name).read_bytes()
    assert content == bytes(done) + bytes([PATTERN]) * (SIZE - done)
    assert 0 < done < SIZE
    for job in host.jobs.values():
        assert watcher.of(job, "finished") == [(Outcome.STOPPED, "")]
        assert job == begun or is_untouched(host.path(job.name))


def test_stopped_before_it_is_asked_whether_it_may_start_it_does_not(host):
    stop = threading.Event()
    stop.set()
    watcher = Recorder()
    host.engine().run(host.jobs.values(), watcher, stop)
    assert {call[0] for call in watcher.calls} == {"finished"}
    assert all(is_untouched(host.path(name)) for name in host.jobs)


class Mistake(Exception):
    pass


def fail(*_):
    raise Mistake


@pytest.mark.parametrize("call", ["may_start", "progress", "finished"])
def test_what_the_watcher_raises_ends_that_job_and_is_raised_when_the_others_are_over(host, call):
    bad = host.jobs["ns0"]

    def hook(told, *values):
        if told.uuid == bad.uuid:
            # It is not called again for this namespace.
            assert [called for called in watcher.calls if called[1] == bad.uuid][-1][0] == call
            raise Mistake(call)
        return True

    watcher = Recorder(**{call: hook})
    with pytest.raises(Mistake, match=call):
        host.engine(rate=SLOW if call == "progress" else 0).run(host.jobs.values(), watcher)
    assert is_zero(host.path("ns1"))
    assert is_zero(host.path("ns2"))
    if call == "may_start":
        assert is_untouched(host.path("ns0"))
    if call == "progress":
        assert not is_zero(host.path("ns0"))
    assert not is_locked(host.path("ns0"))


def test_every_mistake_of_the_watcher_is_told(host):
    with pytest.raises(Mistake) as error:
        host.engine().run(host.jobs.values(), Recorder(may_start=fail))
    assert error.value.__notes__ == ["and then: Mistake()"] * 2


def test_ctrl_c_stops_the_children_and_goes_through(host):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        host.engine(parallel=3, rate=SLOW).run(host.jobs.values(), Recorder(progress=interrupt))
    assert not any(is_locked(host.path(name)) for name in host.jobs)
    assert not any(is_zero(host.path(name)) for name in host.jobs)


PARENT = """
import sys
from vpmem_driver import discovery
from vpmem_driver.engine import Engine, Job
class Watcher:
    def may_start(self, job):
        if sys.argv[4] == "ready":
            print("reached", flush=True)
            sys.stdin.read()
        return True
    def progress(self, job, phase, done):
        print("reached", flush=True)
    def finished(self, result):
        pass
source = discovery.make("directory", directory=sys.argv[1])
Engine(source, parallel=1, threads=1, rate=int(sys.argv[5])).run(
    [Job(uuid=sys.argv[2], name="ns0", size=int(sys.argv[3]))], Watcher()
)
"""


@pytest.mark.parametrize("point", ["ready", "zero"])
def test_when_its_parent_is_killed_a_child_lets_go(host, point):
    job = host.jobs["ns0"]
    command = [sys.executable, "-c", PARENT, host.directory, job.uuid, str(SIZE), point, str(SLOW)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=process._environment()) as parent:
        assert parent.stdout.readline() == b"reached\n"
        with open(f"/proc/{parent.pid}/task/{parent.pid}/children", encoding="ascii") as pids:
            (child,) = map(int, pids.read().split())
        parent.kill()
        parent.wait(DEADLINE)
    wait_until(lambda: state_of(child) in {"", "Z"}, "the end of the child")
    wait_until(lambda: not is_locked(host.path("ns0")), "the end of the lock")
    assert is_untouched(host.path("ns0")) == (point == "ready")
    assert not is_zero(host.path("ns0"))


def test_a_child_has_our_modules_and_none_of_our_secrets(host, monkeypatch):
    monkeypatch.setenv("OS_PASSWORD", "secret")
    monkeypatch.setenv("PMEM_NO_FLUSH", "1")
    monkeypatch.syspath_prepend("/of/ours")
    seen = {}

    def look(_job):
        (pid,) = children()
        with open(f"/proc/{pid}/environ", "rb") as environ:
            seen.update(line.split(b"=", 1) for line in environ.read().split(b"\0") if line)
        seen["fds"] = len(os.listdir(f"/proc/{pid}/fd"))
        return False

    inheritable = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    host.engine().run([host.jobs["ns0"]], Recorder(may_start=look))
    os.close(inheritable)
    assert set(seen) <= {b"HOME", b"LD_LIBRARY_PATH", b"PATH", b"PYTHONPATH", b"LC_CTYPE", "fds"}
    assert seen[b"PYTHONPATH"].startswith(b"/of/ours:")
    # Standard streams, those that it keeps for the protocol, and the device.
    assert seen["fds"] == 6


def test_its_modules_do_not_come_from_the_working_directory(host, tmp_path, monkeypatch):
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "ctypes.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(sys, "path", [path or os.getcwd() for path in sys.path])
    monkeypatch.chdir(tmp_path / "trap")
    assert host.engine().run([host.jobs["ns0"]], Recorder())[host.jobs["ns0"].uuid] == (Outcome.WIPED, "")


def misbehave(host, script, size=SIZE):
    """Run a made-up child. It has read the task; ``say`` is how it speaks, ``hear`` how it waits for a line."""
    prelude = """
import json, os, signal, sys, time
say = lambda **event: print(json.dumps(event), flush=True)
hear = sys.stdin.readline
task = json.loads(hear())
"""
    job = host.jobs["ns0"]
    watcher = Recorder()
    results = host.engine(command=[sys.executable, "-c", prelude + script]).run([job], watcher)
    assert watcher.of(job, "finished") == [results[job.uuid]]
    return results[job.uuid], watcher


ZEROED = "say(event='progress', phase='zero', bytes=task['size'])\n"
VERIFIED = "say(event='progress', phase='verify', bytes=task['size'])\n"


def test_a_child_that_keeps_to_the_protocol_is_believed(host):
    script = "say(event='ready'); assert hear() == 'go\\n'\n" + ZEROED + VERIFIED + "say(event='wiped'); hear()"
    assert misbehave(host, script)[0] == (Outcome.WIPED, "")


@pytest.mark.parametrize(
    "script",
    [
        "print('?', flush=True); hear()",
        "sys.stdout.buffer.write(b'\\xff\\xfe\\n'); sys.stdout.flush(); hear()",
        "print('[]', flush=True); hear()",
        "print('x' * 100000, flush=True); hear()",
        "print('x' * 100000, end='', flush=True); hear()",
        "print('[' * 60000, flush=True); hear()",
        """print('{"event": "ready", "nested": ' + '[' * 60000, flush=True); hear()""",
        "say(event='done'); hear()",
        "say(event='failed', outcome='magic', reason='?'); hear()",
        "say(event='wiped'); hear()",
        "say(event='progress', phase='zero', bytes=0); hear()",
        "say(event='failed', outcome='media', reason='before it began'); hear()",
        "say(event='ready'); say(event='ready'); hear()",
        "say(event='ready'); hear(); say(event='wiped'); hear()",
        "say(event='ready'); hear()\n" + ZEROED + "say(event='wiped'); hear()",
        "say(event='ready'); hear()\n" + VERIFIED + "say(event='wiped'); hear()",
        "say(event='ready'); hear(); say(event='progress', phase='zero', bytes=task['size'] + 1); hear()",
        "say(event='ready'); hear(); say(event='progress', phase='zero', bytes=-1); hear()",
        "say(event='ready'); hear(); say(event='progress', phase='zero', bytes='9'); hear()",
        "say(event='ready'); hear(); say(event='progress', phase='dry', bytes=9); hear()",
        "say(event='ready'); hear()\n" + ZEROED + "say(event='progress', phase='zero', bytes=1); hear()",
    ],
)
def test_a_child_that_does_not_keep_to_the_protocol_is_not_believed(host, script):
    assert misbehave(host, script)[0] == (Outcome.HOST, "its process broke the protocol")


@pytest.mark.parametrize(
    "script,reason",
    [
        ("", "ended with status 0"),
        ("sys.exit(7)", "ended with status 7"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", f"was killed by signal {signal.SIGSEGV:d}"),
        ("os.kill(os.getpid(), signal.SIGBUS)", f"was killed by signal {signal.SIGBUS:d}"),
    ],
)
def test_a_child_that_ends_without_a_word_is_the_hosts_fault(host, script, reason):
    outcome = misbehave(host, script)[0]
    assert outcome == (Outcome.HOST, f"its process {reason}; its output is in the log at level debug")


def test_a_memory_error_while_reading_back_says_so(host):
    script = "say(event='ready'); hear()\n" + ZEROED + "say(event='progress', phase='verify', bytes=4096)\n"
    outcome = misbehave(host, script + "os.kill(os.getpid(), signal.SIGBUS)")[0]
    assert outcome == (Outcome.MEDIA, "memory error (SIGBUS) while reading back, after byte 4096")


def test_what_a_child_says_on_stderr_is_for_the_debug_log_alone(host, caplog):
    caplog.set_level("DEBUG")
    script = "sys.stderr.write('x' * 1000000 + 'the end'); sys.exit(1)"
    outcome, _ = misbehave(host, script)
    assert "the end" not in outcome[1]
    (record,) = [record for record in caplog.records if record.name.startswith("vpmem_driver.engine")]
    assert record.levelname == "DEBUG"
    assert record.message.endswith("the end")
    assert len(record.message) < 100000


def test_what_an_ended_child_has_left_in_the_pipe_is_logged_whole(host, caplog):
    caplog.set_level("DEBUG")
    script = "import os; os.write(2, b'x' * 60000 + b'the end')"
    worker = process.Worker(host.jobs["ns0"], [sys.executable, "-c", script], b"")
    worker.reap()  # nothing has read a piece before
    assert caplog.messages[-1].endswith("xthe end")


def test_a_child_that_says_more_than_it_should_after_the_end_changes_nothing(host):
    script = "say(event='failed', outcome='busy', reason='b'); say(event='wiped'); print('?', flush=True); hear()"
    assert misbehave(host, script)[0] == (Outcome.BUSY, "b")


@pytest.mark.parametrize("deaf_to", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"])
def test_a_child_that_does_not_end_is_made_to(host, monkeypatch, deaf_to):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.2)
    script = deaf_to + "say(event='failed', outcome='busy', reason='b')\nwhile True: signal.pause()"
    assert misbehave(host, script)[0] == (Outcome.BUSY, "b")


def test_a_child_that_closes_its_stdout_and_stays_is_made_to_end(host, monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.2)
    script = "os.close(1)\nwhile True: signal.pause()"
    assert misbehave(host, script)[0] == (Outcome.STOPPED, "its process was killed by SIGKILL")


def test_a_child_that_cannot_be_started_is_the_hosts_fault(host):
    watcher = Recorder()
    job = host.jobs["ns0"]
    outcome, reason = host.engine(command=["/nonexistent/python"]).run([job], watcher)[job.uuid]
    assert outcome is Outcome.HOST
    assert "cannot be started" in reason
    assert watcher.of(job, "finished") == [(outcome, reason)]


def test_wiped_after_it_was_asked_to_stop_is_not_believed_without_the_lock(host):
    """The lock goes with stdin: by then another process may be at it."""
    script = """
say(event='ready'); hear()
say(event='progress', phase='zero', bytes=task['size'])
say(event='progress', phase='verify', bytes=task['size'])
assert hear() == ''
say(event='wiped')
"""
    prelude = (
        "import json, sys\nsay = lambda **event: print(json.dumps(event), flush=True)\nhear = sys.stdin.readline\n"
    )
    stop = threading.Event()
    job = host.jobs["ns0"]
    watcher = Recorder(progress=lambda *_: stop.set())
    engine = host.engine(command=[sys.executable, "-c", prelude + "task = json.loads(hear())\n" + script])
    assert engine.run([job], watcher, stop) == {job.uuid: (Outcome.STOPPED, "")}


def test_a_task_names_no_path_and_no_more_than_it_must(host, tmp_path):
    script = "open(sys.argv[1], 'w').write(json.dumps(task))"
    prelude = "import json, sys\ntask = json.loads(sys.stdin.readline())\n"
    host.engine(command=[sys.executable, "-c", prelude + script, str(tmp_path / "task")], threads=3, rate=5).run(
        [host.jobs["ns0"]], Recorder()
    )
    assert json.loads((tmp_path / "task").read_text()) == {
        "job": "wipe",
        "uuid": host.jobs["ns0"].uuid,
        "discovery": "directory",
        "options": {"directory": str(host.directory)},
        "start": 0,
        "threads": 3,
        "rate": 5,
        "size": SIZE,
    }
