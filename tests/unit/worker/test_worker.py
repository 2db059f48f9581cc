"""The child as a real process, spoken to by hand, and its parts."""

import errno
import fcntl
import itertools
import json
import mmap
import os
import re
import select
import shutil
import signal
import subprocess
import sys

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
from vpmem_driver import protocol
from vpmem_driver.engine import process
from vpmem_driver.protocol import Outcome
from vpmem_driver.worker import device, session, wipe
from vpmem_driver.worker import passes as common_passes
from vpmem_driver.worker.parent import Parent, Stopped

PAGE = mmap.PAGESIZE
COMMAND = (sys.executable, "-P", "-m", "vpmem_driver.worker")
MAP = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 4096)
print("ready", flush=True)
sys.stdin.read()
"""


class Conversation:
    """What a parent says to a child, and hears from it."""

    def __init__(self, command=COMMAND, **options):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=process._environment(),
            **options,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(DEADLINE)

    def say(self, line):
        self.process.stdin.write(line + b"\n")

    def hear(self):
        """The next event, None at the end."""
        line = self.process.stdout.readline()
        return protocol.decode_event(line) if line else None

    def hear_all(self):
        return list(iter(self.hear, None))

    def close(self):
        """Close stdin and wait. :returns: the exit status."""
        self.process.stdin.close()
        return self.process.wait(DEADLINE)


class Host:
    """A directory with one namespace."""

    def __init__(self, directory, size):
        self.source, found = namespaces(directory, {"ns0": size})
        self.namespace = found["ns0"]
        self.path = directory / "ns0"
        self.size = size

    def task(self, **changes):
        task = {
            "job": "wipe",
            "uuid": self.namespace.uuid,
            "discovery": self.source.name,
            "options": self.source.options(),
            "start": 0,
            "threads": 2,
            "rate": 0,
            "size": self.size,
        }
        return json.dumps(task | changes).encode()


@pytest.fixture
def host(tmp_path):
    (tmp_path / "namespaces").mkdir()
    return Host(tmp_path / "namespaces", 37 * PAGE)


def last(events, phase):
    return [event.bytes for event in events if isinstance(event, protocol.Progress) and event.phase == phase][-1]


def test_it_wipes_once_told_to_and_keeps_the_lock_until_stdin_closes(host):
    with Conversation() as talk:
        talk.say(host.task())
        assert talk.hear() == protocol.Ready()
        assert is_untouched(host.path)
        assert is_locked(host.path)
        talk.say(protocol.GO)
        events = list(iter(talk.hear, protocol.Wiped()))
        assert last(events, "zero") == last(events, "verify") == host.size
        assert is_zero(host.path)
        assert is_locked(host.path)
        assert talk.close() == 0
        assert not is_locked(host.path)
        assert talk.hear() is None


@pytest.mark.parametrize("answer", [None, b"", b"stop", b"go on", b'{"go": true}'])
def test_before_it_is_told_go_not_a_byte_is_changed(host, answer):
    with Conversation() as talk:
        talk.say(host.task())
        assert talk.hear() == protocol.Ready()
        if answer is not None:
            talk.say(answer)
        assert talk.close() == 0
        assert talk.hear() is None
    assert is_untouched(host.path)
    assert not is_locked(host.path)


def test_killed_before_it_is_told_go_not_a_byte_is_changed(host):
    with Conversation() as talk:
        talk.say(host.task())
        assert talk.hear() == protocol.Ready()
        talk.process.kill()
        talk.process.wait(DEADLINE)
    assert is_untouched(host.path)
    assert not is_locked(host.path)


@pytest.mark.parametrize("start", [0, 1, 5000, 36 * PAGE, 37 * PAGE])
def test_it_goes_on_where_an_earlier_wipe_was(host, start):
    with host.path.open("r+b") as file:
        file.write(bytes(start))
    with Conversation() as talk:
        talk.say(host.task(start=start))
        talk.say(protocol.GO)
        assert talk.hear() == protocol.Ready()
        events = list(iter(talk.hear, protocol.Wiped()))
        assert all(event.bytes >= start for event in events if event.phase == "zero")
        assert talk.close() == 0
    assert is_zero(host.path)


def test_what_somebody_wrote_after_an_interrupted_wipe_is_no_fault_of_the_medium(host):
    with host.path.open("r+b") as file:
        file.write(bytes(5 * PAGE))
        file.seek(3 * PAGE + 7)
        file.write(b"\x01")
    with Conversation() as talk:
        talk.say(host.task(start=5 * PAGE))
        talk.say(protocol.GO)
        events = list(iter(talk.hear, protocol.Failure(Outcome.LOST, f"byte {3 * PAGE + 7} is not zero after zeroing")))
        assert last(events, "zero") == host.size
        assert talk.close() == 0
    content = host.path.read_bytes()
    assert content[: 5 * PAGE].count(0) == 5 * PAGE - 1
    assert content[5 * PAGE :] == bytes(host.size - 5 * PAGE)


PRIVILEGED = "import sys; from vpmem_driver.worker import session; sys.exit(session.main(privileged=True))"


def test_a_privileged_process_does_not_tell_what_it_has_not_erased(unshared_path):
    """The first byte that is not zero was told of a namespace of which nothing was to be overwritten: start = size."""
    host = Host(unshared_path, 37 * PAGE)
    with host.path.open("r+b") as file:
        file.write(bytes(3 * PAGE))
    with Conversation([sys.executable, "-c", PRIVILEGED]) as talk:
        talk.say(host.task(start=host.size, rate=SLOW * 10))
        talk.say(protocol.GO)
        assert talk.hear() == protocol.Ready()
        events = list(iter(talk.hear, protocol.Wiped()))
        assert talk.close() == 0
    assert is_zero(host.path)
    assert {event.bytes for event in events if event.phase == "zero"} == {host.size}
    assert last(events, "verify") == host.size


def failure_of(task):
    with Conversation() as talk:
        talk.say(task)
        failure = talk.hear()
        assert isinstance(failure, protocol.Failure)
        assert talk.close() == 0
        return failure.outcome, failure.reason


def test_a_namespace_that_is_not_there_or_not_as_it_was_is_missing(host):
    assert failure_of(host.task(uuid="f00")) == (Outcome.MISSING, "discovery does not find it")
    outcome, reason = failure_of(host.task(size=host.size + PAGE))
    assert (outcome, f"the ledger has {host.size + PAGE}" in reason) == (Outcome.MISSING, True)
    assert is_untouched(host.path)


def test_a_discovery_that_cannot_be_made_or_fails_is_the_hosts_fault(host, tmp_path):
    outcome, reason = failure_of(host.task(discovery="telepathy"))
    assert (outcome, "'telepathy' does not exist" in reason) == (Outcome.HOST, True)
    outcome, reason = failure_of(host.task(options={"directory": str(tmp_path / "none")}))
    assert (outcome, "does not exist" in reason) == (Outcome.HOST, True)
    assert is_untouched(host.path)


def test_a_namespace_that_a_process_has_mapped_is_in_use(host):
    with another_process(MAP, host.path) as user:
        outcome, reason = failure_of(host.task())
    assert outcome is Outcome.IN_USE
    assert reason.startswith(f"process {user.pid} (python")
    assert is_untouched(host.path)


def test_a_process_that_maps_it_between_ready_and_go_is_found(host):
    """Its mapping was overwritten: users were looked for before "ready" only, and the parent asks libvirt after it."""
    with Conversation() as talk:
        talk.say(host.task())
        assert talk.hear() == protocol.Ready()
        with another_process(MAP, host.path) as user:
            talk.say(protocol.GO)
            failure = talk.hear()
            assert isinstance(failure, protocol.Failure)
            assert failure.outcome is Outcome.IN_USE
            assert failure.reason.startswith(f"process {user.pid} (python")
            assert is_untouched(host.path)
            assert talk.close() == 0
    assert is_untouched(host.path)


@pytest.mark.parametrize("writes", [False, True])
def test_a_process_that_maps_it_during_a_wipe_is_found(host, writes):
    """Then the next owner would share it with that process. What it writes is no fault of the medium."""
    program = MAP.replace('print("ready"', 'memory[0] = 1; print("ready"') if writes else MAP
    with Conversation() as talk:
        talk.say(host.task(rate=20 * PAGE))
        assert talk.hear() == protocol.Ready()
        talk.say(protocol.GO)
        assert isinstance(talk.hear(), protocol.Progress)
        with another_process(program, host.path) as user:
            while isinstance(failure := talk.hear(), protocol.Progress):
                pass
            assert isinstance(failure, protocol.Failure)
            assert failure.outcome is Outcome.IN_USE
            assert failure.reason.startswith(f"process {user.pid} (python")
            assert talk.close() == 0


#: It stops before and after each time that it looks up the namespace, and writes where it is to a descriptor.
STOPPING = """
import itertools, os, signal, sys
from vpmem_driver.worker import session
from vpmem_driver.worker import device
find, number = device._find, itertools.count(1)
def stop(where):
    os.write(int(sys.argv[1]), where.encode() + b"\\n")
    os.kill(os.getpid(), signal.SIGSTOP)
def stop_find_stop(source, uuid):
    time = next(number)
    stop(f"before look-up {time}")
    found = find(source, uuid)
    stop(f"after look-up {time}")
    return found
device._find = stop_find_stop
sys.exit(session.main())
"""


def hear_while_stopping(task, act):
    """The first event of a STOPPING child, which is then told to go on until its end.

    `act` is called with the place, each time that it has stopped.
    """
    reader, writer = os.pipe()
    command = [sys.executable, "-c", STOPPING, str(writer)]
    with open(reader, "rb", buffering=0) as places, Conversation(command, pass_fds=[writer]) as talk:
        os.close(writer)
        talk.say(task)
        while talk.process.stdout not in (
            readable := select.select([places, talk.process.stdout], [], [], DEADLINE)[0]
        ):
            assert readable, "it says nothing"
            place = places.readline().decode().strip()
            wait_until(lambda: state_of(talk.process.pid) == "T", "its stop")
            act(place)
            os.kill(talk.process.pid, signal.SIGCONT)
        event = talk.hear()
        talk.say(protocol.GO)
        while event == protocol.Ready() and talk.hear() not in {protocol.Wiped(), None}:
            pass
        talk.close()
        return event


@pytest.mark.parametrize("link", [True, False], ids=["link", "directory"])
def test_a_directory_swapped_between_look_and_use_does_not_lead_it_to_another_file(tmp_path, link):
    """It overwrote the other file: what was open was compared with the path, which was swapped once more."""
    node, elsewhere, aside = (tmp_path / "namespaces" / name for name in ("node0", "other", "aside"))
    node.mkdir(parents=True)
    host = Host(node, 4 * PAGE)
    victim = tmp_path / "victims" / "ns0" if link else elsewhere / "ns0"
    victim.parent.mkdir()
    shutil.copy(host.path, victim)
    if link:
        elsewhere.symlink_to(victim.parent)
    places = []

    def swap(place):
        """Have the path lead to the namespace while it is looked up, and elsewhere while it is used."""
        places.append(place)
        leads_to_namespace = place.startswith("before")
        if leads_to_namespace and aside.exists():
            node.rename(elsewhere)
            aside.rename(node)
        elif not leads_to_namespace:
            node.rename(aside)
            elsewhere.rename(node)

    event = hear_while_stopping(host.task(options={"directory": str(node.parent)}), swap)
    assert places[:2] == ["before look-up 1", "after look-up 1"]
    assert is_untouched(aside / "ns0")
    assert is_untouched(node / "ns0")
    assert isinstance(event, protocol.Failure)
    assert ("symbolic link" if link else "was replaced") in event.reason


@pytest.mark.parametrize(
    "change",
    [
        *({"start": -1}, {"size": "1G"}, {"size": 1 << 63}, {"device": "/dev/dax0.0"}, {"options": None}),
        *({"threads": 257}, {"rate": 1 << 63}, {"rate": 10**400}),
    ],
)
def test_a_task_that_is_not_understood_is_not_begun(host, change):
    check_not_understood(host, host.task(**change))


@pytest.mark.parametrize("task", [b"", b"go", b"\xff", b"[]", b"{}", b"[" * 30_000, b'{"x":' * 10_000])
def test_what_is_no_task_is_not_begun(host, task):
    check_not_understood(host, task)


def check_not_understood(host, task):
    """One line that says so, an exit status, and no traceback."""
    with Conversation(stderr=subprocess.PIPE) as talk:
        talk.say(task)
        talk.say(protocol.GO)
        assert talk.close() == session.USAGE_ERROR
        assert talk.hear() is None
        said = talk.process.stderr.read().decode()
        talk.process.stderr.close()
    assert re.fullmatch(r"vpmem: invalid task on standard input: [^\n]+\n", said)
    assert is_untouched(host.path)


def test_a_start_after_the_end_is_the_hosts_fault(host):
    assert failure_of(host.task(start=host.size + 1)) == (
        Outcome.HOST,
        f"the work cannot start at byte {host.size + 1} of {host.size}",
    )


@pytest.mark.parametrize("name", ["name", "_name", "root"])
def test_an_option_of_any_name_is_not_taken_for_an_argument(host, name):
    outcome, reason = failure_of(host.task(options={name: "x"}))
    assert (outcome, "has no such option" in reason) == (Outcome.HOST, True)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EPERM])
def test_an_error_of_the_host_before_the_first_byte_has_a_type(host, pipes, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(session.device_users, "mapped_by", fail)
    task = protocol.decode_task(host.task())
    event = session._outcome(task, pipes.parent, lambda *_, **__: host.source, privileged=False)
    assert event == protocol.Failure(Outcome.HOST, os.strerror(number))


def test_it_is_nice(host):
    with Conversation() as talk:
        talk.say(host.task())
        assert talk.hear() == protocol.Ready()
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, talk.process.pid) == min(19, own + session.NICENESS)


def test_one_that_waited_for_a_cpu_before_it_closed_a_locked_device_was_taken_for_a_user(host):
    """A claim was refused then. It was nice before it tried the lock; ./dev concurrency found it once in 470,000."""
    with Conversation() as first:
        first.say(host.task())
        assert first.hear() == protocol.Ready()
        with Conversation() as second:
            second.say(host.task())
            failure = second.hear()
            assert isinstance(failure, protocol.Failure)
            assert failure.outcome is Outcome.BUSY
            own = os.getpriority(os.PRIO_PROCESS, 0)
            assert os.getpriority(os.PRIO_PROCESS, second.process.pid) == own


#: A rate at which the host's 37 pages take many steps, each after a wait of STEP_SECONDS.
SLOW = 10 * PAGE


def test_closing_stdin_stops_it_and_what_it_reported_is_durable(host):
    with Conversation() as talk:
        talk.say(host.task(rate=SLOW))
        assert talk.hear() == protocol.Ready()
        talk.say(protocol.GO)
        first = talk.hear()
        assert talk.close() == 0
        done = last([first, *talk.hear_all()], "zero")
    content = host.path.read_bytes()
    assert 0 < done < host.size
    assert content[:done] == bytes(done)
    assert content[done:] == bytes([PATTERN]) * (host.size - done)


def test_it_stops_when_nobody_listens_any_more(host):
    with Conversation() as talk:
        talk.say(host.task(rate=SLOW))
        assert talk.hear() == protocol.Ready()
        talk.process.stdout.close()
        talk.say(protocol.GO)
        assert talk.process.wait(DEADLINE) == 0
    assert not is_zero(host.path)
    assert not is_locked(host.path)


def test_it_does_not_outlive_its_parent(host):
    """Even where somebody else holds the other end of its stdin, so that it is not closed."""
    parent = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-P", "-m", "vpmem_driver.worker"], stdin=int(sys.argv[1]))
print(child.pid, flush=True)
sys.stdin.read()
"""
    reader, writer = os.pipe()
    command = [sys.executable, "-c", parent, str(reader)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=process._environment(), pass_fds=[reader]
    ) as talk:
        os.write(writer, host.task(rate=SLOW) + b"\n" + protocol.GO + b"\n")
        pid = int(talk.stdout.readline())
        while b"progress" not in talk.stdout.readline():
            pass
        talk.kill()
        talk.wait(DEADLINE)
    wait_until(lambda: state_of(pid) in {"", "Z"}, "the end of the child")
    wait_until(lambda: not is_locked(host.path), "the end of the lock")
    os.close(reader)
    os.close(writer)
    assert not is_zero(host.path)


def test_bad_media_kill_it_alone(host):
    """A store past the end of a file raises the signal that a store to bad media does."""
    with Conversation() as talk:
        talk.say(host.task(rate=SLOW))
        assert talk.hear() == protocol.Ready()
        talk.say(protocol.GO)
        assert isinstance(talk.hear(), protocol.Progress)
        os.truncate(host.path, 0)
        assert talk.process.wait(DEADLINE) == -signal.SIGBUS
        assert protocol.Wiped() not in talk.hear_all()


NOISY = """
import sys
from vpmem_driver import discovery
from vpmem_driver.worker import session
def make(name, **options):
    print("noise")
    print("more of it", file=sys.stderr)
    assert not sys.stdin.read(), "what is meant for the child"
    return discovery.make(name, **options)
sys.exit(session.main(make))
"""


def test_what_others_print_is_no_part_of_the_protocol(host):
    with Conversation([sys.executable, "-c", NOISY]) as talk:
        talk.say(host.task())
        talk.say(protocol.GO)
        assert talk.hear() == protocol.Ready()
        assert protocol.Wiped() in iter(talk.hear, None)


def test_a_hole_on_a_full_filesystem_is_the_hosts_fault(tmp_path):
    """Without a thought for it, the store to the hole would be SIGBUS, and the namespace quarantined for nothing."""
    if os.geteuid() != 0:
        pytest.skip("mounting a filesystem takes root")
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1M", "none", tmp_path], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        host = Host(tmp_path, 128 * PAGE)
        with Conversation() as talk:
            talk.say(host.task())
            assert talk.hear() == protocol.Ready()
            hole = ["fallocate", "--punch-hole", "--offset", str(64 * PAGE), "--length", str(64 * PAGE), host.path]
            subprocess.run(hole, check=True)
            with (tmp_path / "other").open("wb") as other, pytest.raises(OSError, match="No space"):
                while True:
                    os.write(other.fileno(), bytes(PAGE))
            talk.say(protocol.GO)
            assert talk.hear() == protocol.Failure(Outcome.HOST, "access to the device failed: No space left on device")
            assert talk.close() == 0
    finally:
        subprocess.run(["umount", tmp_path], check=True)


class Pipes:
    """A Parent in this process, for the parts of the child, with what it was told."""

    def __init__(self):
        self.requests, self.our_requests = os.pipe()
        self.our_reports, self.reports = os.pipe()
        self.parent = Parent(self.requests, self.reports)

    def told(self):
        os.close(self.reports)
        with open(self.our_reports, "rb") as reports:
            return [protocol.decode_event(line) for line in reports]


@pytest.fixture
def pipes():
    made = Pipes()
    yield made
    for fd in (made.requests, made.our_requests, made.our_reports, made.reports):
        try:
            os.close(fd)
        except OSError as error:
            assert error.errno == errno.EBADF


@pytest.mark.parametrize(
    "number,outcome",
    [(errno.EIO, Outcome.MEDIA), (133, Outcome.MEDIA), (errno.ENOSPC, Outcome.HOST), (errno.ENOMEM, Outcome.HOST)],
)
def test_an_error_of_the_device_is_told_from_one_of_the_host(host, pipes, monkeypatch, number, outcome):
    def settle(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(device.Device, "make_durable", settle)
    monkeypatch.setattr(session.os, "nice", lambda _increment: 0)  # this is the process of the tests
    os.write(pipes.our_requests, protocol.GO + b"\n")
    with pytest.raises(device.Failed, match=f"access to the device failed: {os.strerror(number)}") as failure:
        session.wipe(protocol.decode_task(host.task()), pipes.parent, host.source)
    assert failure.value.outcome is outcome
    # Nothing was durable yet.
    assert pipes.told() == [protocol.Ready(), protocol.Progress("zero", 0)]


@pytest.mark.parametrize("threads", [0, 1, 2, 3, 64])
@pytest.mark.parametrize("region,step,start", [(1 << 30, 1 << 28, 0), (8, 3, 0), (8, 8, 13), (1, 1, 36), (16, 4, 37)])
def test_every_page_is_zeroed_and_read(host, pipes, monkeypatch, threads, region, step, start):
    """Whatever the regions, steps and threads."""
    monkeypatch.setattr(device, "CACHED_REGION", region * PAGE)
    monkeypatch.setattr(common_passes, "STEP", step * PAGE)
    with host.path.open("r+b") as file:
        file.write(bytes(start * PAGE))
    opened = device.Device.open(host.source, host.namespace.uuid, host.size)
    passes = wipe.Wipe(opened, pipes.parent, threads=threads, rate=0)
    passes.zero(start * PAGE)
    assert is_zero(host.path)
    passes.verify(start * PAGE)
    for page in (0, 12, 36):
        at = page * PAGE + 100
        os.pwrite(opened.fd, b"\x01", at)
        with pytest.raises(device.Failed, match=f"byte {at} is not zero"):
            passes.verify(0)
        with pytest.raises(device.Failed) as failure:
            passes.verify(at + 1)
        assert failure.value.outcome is Outcome.LOST
        os.pwrite(opened.fd, b"\x00", at)
    os.close(opened.fd)
    events = pipes.told()
    assert [event.bytes for event in events if event.phase == "zero"][-1] == host.size


def test_reports_come_at_intervals_and_always_at_the_end(host, pipes, monkeypatch):
    monkeypatch.setattr(device, "CACHED_REGION", PAGE)
    monkeypatch.setattr(common_passes, "PROGRESS_SECONDS", 4)
    now = itertools.count(4)
    monkeypatch.setattr(common_passes.time, "monotonic", lambda: next(now))
    opened = device.Device.open(host.source, host.namespace.uuid, host.size)
    wipe.Wipe(opened, pipes.parent, threads=1, rate=0).zero(0)
    os.close(opened.fd)
    reported = [event.bytes // PAGE for event in pipes.told()]
    assert reported == [1, 5, 9, 13, 17, 21, 25, 29, 33, 37, 37]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_pace_spreads_work_over_time():
    clock = Clock()
    pace = common_passes.Pace(1 << 20, clock)
    step = pace.step(1 << 28)
    assert step % PAGE == 0
    assert step == pytest.approx(common_passes.STEP_SECONDS * (1 << 20), abs=PAGE)
    done = 0
    while done < 10 << 20:
        clock.now += 0.01  # the work itself
        clock.now += pace.delay(step)
        done += step
    assert clock.now - 1000.0 == pytest.approx(done / (1 << 20))


def test_pace_saves_nothing_up():
    clock = Clock()
    pace = common_passes.Pace(1 << 20, clock)
    clock.now += 100.0
    assert pace.delay(1 << 20) == 0.0
    assert pace.delay(1 << 20) == 1.0


@pytest.mark.parametrize("rate,most,step", [(0, 12345, 12345), (1, 1 << 20, PAGE), (1 << 40, 12345, 12345)])
def test_pace_does_as_much_at_once_as_it_may(rate, most, step):
    assert common_passes.Pace(rate, Clock()).step(most) == step


def test_without_a_rate_there_is_no_delay():
    assert common_passes.Pace(0, Clock()).delay(1 << 40) == 0.0


def test_a_line_without_end_is_no_line(pipes):
    fcntl.fcntl(pipes.our_requests, fcntl.F_SETPIPE_SZ, 4 * protocol.LINE_BYTES)
    os.write(pipes.our_requests, b"x" * 3 * protocol.LINE_BYTES)
    with pytest.raises(Stopped):
        pipes.parent.line()


def test_a_file_too_big_for_one_region_is_wiped_whole(tmp_path):
    host = Host(tmp_path, device.CACHED_REGION + PAGE)
    with Conversation() as talk:
        talk.say(host.task())
        talk.say(protocol.GO)
        assert protocol.Wiped() in iter(talk.hear, None)
    assert is_zero(host.path)
