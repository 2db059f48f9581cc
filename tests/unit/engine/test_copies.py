"""Jobs that send, receive and copy, with real workers on real files."""

import itertools
import os
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.files import fill, is_locked, is_untouched, namespaces
from vpmem_driver import layout, stream
from vpmem_driver.engine import CopyJob, Engine, Outcome, ReceiveJob, SendJob
from vpmem_driver.model import DeviceModel, Hardware
from vpmem_driver.sizes import KIB, LABEL_SIZE, MIB

CELL = stream.CELL


class Recorder:
    """Allows everything, and keeps the progress of each phase."""

    def __init__(self, may_start=True, progress=lambda phase, done: True):
        self.answer = may_start
        self.on_progress = progress
        self.told = []

    def may_start(self, job):
        return self.answer

    def progress(self, job, phase, done):
        self.told.append((phase, done))
        return self.on_progress(phase, done)

    def finished(self, result):
        pass


def content(size, seed=1):
    """Every other cell is random, and some begin or end with zeros."""
    made = bytearray(size)
    chance = random.Random(seed)
    for at in range(0, size, 2 * CELL):
        length = min(CELL, size - at)
        made[at : at + length] = chance.randbytes(length)
        made[at : at + 5] = bytes(min(5, length))
    return bytes(made)


class Host:
    def __init__(self, directory, sizes):
        directory.mkdir()
        self.directory = directory
        self.source, self.found = namespaces(directory, sizes)

    def engine(self, **settings):
        return Engine(self.source, parallel=2, threads=2, rate=0, **settings)

    def path(self, name):
        return self.directory / name

    def send(self, name, fd, to_size=None, start=0, pack=False):
        size = self.found[name].size
        length = to_size or size
        return SendJob(
            uuid=self.found[name].uuid,
            name=name,
            size=size,
            start=start,
            fd=fd,
            parts=layout.parts(size, 4096, length, 4096),
            destination_size=length,
            pack=pack,
        )

    def receive(self, name, fd, start=0):
        return ReceiveJob(uuid=self.found[name].uuid, name=name, size=self.found[name].size, start=start, fd=fd)

    def copy(self, name, to, start=0):
        source, destination = self.found[name], self.found[to]
        return CopyJob(
            uuid=destination.uuid,
            name=to,
            size=destination.size,
            start=start,
            source=source.uuid,
            source_size=source.size,
            parts=layout.parts(source.size, 4096, destination.size, 4096),
        )


SIZE = 8 * MIB


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path / "namespaces", {"a": SIZE, "b": SIZE, "large": SIZE + 5 * MIB, "c": SIZE})
    made.path("a").write_bytes(content(SIZE))
    return made


def run(host, job, recorder=None, **settings):
    (result,) = host.engine(**settings).run([job], recorder or Recorder()).values()
    return result


def transfer(host, name, to, *, start=0, pack=False, between=None, recorders=(None, None)):
    """Send one namespace to another one through `between`, a function of two descriptors (default: a pipe)."""
    out, into = os.pipe()
    ends = [into, out]
    results = {}
    if between is not None:
        second_out, second_into = os.pipe()
        relay = threading.Thread(target=between, args=(out, second_into))
        relay.start()
        ends = [into, second_out]

    def send():
        job = host.send(name, ends[0], host.found[to].size, start, pack)
        results["send"] = run(host, job, recorders[0])
        os.close(ends[0])

    thread = threading.Thread(target=send)
    thread.start()
    results["receive"] = run(host, host.receive(to, ends[1], start), recorders[1])
    os.close(ends[1])
    thread.join()
    if between is not None:
        relay.join()
    else:
        pass
    return results["send"], results["receive"]


def is_copied(host, name, to):
    return host.path(to).read_bytes() == expected(host.path(name).read_bytes(), host.found[to].size)


def expected(source, size):
    """Data at the start, the label at the end, zeros between, written from QEMU's layout and not from the package."""
    if len(source) == size:
        return source
    unit = 2 * MIB
    before, after = len(source) // unit * unit, size // unit * unit
    made = bytearray(size)
    made[: before - LABEL_SIZE] = source[: before - LABEL_SIZE]
    made[after - LABEL_SIZE : after] = source[before - LABEL_SIZE : before]
    return bytes(made)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("to", ["b", "large"])
def test_a_namespace_is_sent_and_received(host, to, pack):
    source = host.path("a").read_bytes()
    sent, received = transfer(host, "a", to, pack=pack)
    assert (sent.outcome, sent.reason) == (Outcome.SENT, "")
    assert (received.outcome, received.reason) == (Outcome.COPIED, "")
    assert host.path("a").read_bytes() == source
    assert is_copied(host, "a", to)
    assert not is_locked(host.path("a"))
    assert not is_locked(host.path(to))


@pytest.mark.parametrize("to", ["b", "large"])
def test_a_namespace_is_copied_to_another_one_of_the_host(host, to):
    recorder = Recorder()
    assert run(host, host.copy("a", to), recorder).outcome is Outcome.COPIED
    assert is_copied(host, "a", to)
    assert recorder.told[-1] == ("verify", host.found[to].size)


def test_zeros_are_not_sent(host):
    fill(host.path("a"), SIZE, 0)
    counted = []

    def count(out, into):
        while piece := os.read(out, 1 << 16):
            counted.append(len(piece))
            os.write(into, piece)
        os.close(into)

    sent, received = transfer(host, "a", "b", between=count)
    assert (sent.outcome, received.outcome) == (Outcome.SENT, Outcome.COPIED)
    assert sum(counted) <= 3 * stream.HEADER_BYTES
    assert is_copied(host, "a", "b")


@pytest.mark.parametrize("at", [0, stream.HEADER_BYTES + 77, 3 * CELL + 100])
def test_a_byte_that_changes_on_the_way_is_noticed(host, at):
    def flip(out, into):
        done = 0
        while piece := bytearray(os.read(out, 1 << 16)):
            if done <= at < done + len(piece):
                piece[at - done] ^= 1
            done += len(piece)
            try:
                os.write(into, piece)
            except BrokenPipeError:
                break
        os.close(into)
        os.close(out)

    _, received = transfer(host, "a", "b", between=flip)
    assert received.outcome is Outcome.LOST


@pytest.mark.parametrize("pack", [False, True])
def test_a_broken_connection_is_resumed(host, pack):
    """Cut in the middle; the second run sends only the digests of what is there, and the copy is complete."""
    limit = 2 * CELL + 5000
    sizes = []

    def cut(out, into):
        left = limit
        while left and (piece := os.read(out, min(left, 1 << 16))):
            os.write(into, piece)
            left -= len(piece)
        os.close(into)
        os.close(out)

    def count(out, into):
        sizes.append(0)
        while piece := os.read(out, 1 << 16):
            sizes[-1] += len(piece)
            os.write(into, piece)
        os.close(into)

    recorder = Recorder()
    sent, received = transfer(host, "a", "b", pack=pack, between=cut, recorders=(None, recorder))
    assert received.outcome is Outcome.LOST
    assert sent.outcome is Outcome.LOST
    start = recorder.told[-1][1]
    assert 0 < start < SIZE
    assert start % CELL == 0
    sent, received = transfer(host, "a", "b", start=start, pack=pack, between=count)
    assert (sent.outcome, received.outcome, received.reason) == (Outcome.SENT, Outcome.COPIED, "")
    assert is_copied(host, "a", "b")
    assert sizes[0] < SIZE // 2 - CELL


def test_bytes_that_were_received_earlier_and_are_others_now_are_noticed(host):
    """A source that changed between two attempts, or a ledger that promises too much."""
    _, received = transfer(host, "a", "b", start=4 * CELL)
    assert received.outcome is Outcome.LOST
    assert "not what was sent" in received.reason


def test_nothing_is_written_if_the_recorder_forbids_it(host):
    read, write = os.pipe()
    recorder = Recorder(may_start=False)
    assert run(host, host.receive("b", read), recorder).outcome is Outcome.STOPPED
    assert run(host, host.copy("a", "b"), recorder).outcome is Outcome.STOPPED
    assert run(host, host.send("a", write), recorder).outcome is Outcome.STOPPED
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
    assert is_untouched(host.path("b"))


@pytest.mark.parametrize("kind", ["send", "receive", "copy"])
def test_a_stop_ends_a_worker_that_waits_for_its_stream(host, kind):
    read, write = os.pipe()
    stop = threading.Event()
    jobs = {
        "send": lambda: host.send("a", write),  # the pipe is full soon
        "receive": lambda: host.receive("b", read),  # nothing comes
        "copy": lambda: host.copy("a", "b"),
    }
    settings = {"copy_rate": CELL // 4} if kind == "copy" else {}
    threading.Timer(0.7, stop.set).start()
    (result,) = host.engine(**settings).run([jobs[kind]()], Recorder(), stop).values()
    assert result.outcome is Outcome.STOPPED
    os.close(read)
    os.close(write)


def test_both_namespaces_of_a_copy_are_locked(host):
    seen = []

    def look(phase, done):
        seen.append((is_locked(host.path("a")), is_locked(host.path("b"))))
        return True

    run(host, host.copy("a", "b"), Recorder(progress=look))
    assert set(seen) == {(True, True)}


@settings(max_examples=30, deadline=None)
@given(
    source_units=st.integers(2, 6),
    rest=st.integers(0, 511),
    more=st.integers(0, 3000),
    aligns=st.tuples(*[st.sampled_from([4096, 2 * MIB, 4 * MIB])] * 2),
    label=st.sampled_from([0, 128 * KIB, LABEL_SIZE]),
)
def test_parts_keep_what_the_guest_sees(source_units, rest, more, aligns, label):
    """The guest's bytes keep their offsets, the label stays at the end of the device, and no part overlaps another."""
    source = source_units * 2 * MIB + rest * 4096
    size = source + more * 4096
    parts = layout.parts(source, aligns[0], size, aligns[1], Hardware(DeviceModel.NVDIMM, label))
    before = layout.device_size(source, aligns[0])
    seen = layout.guest_size(before, aligns[0], label)
    after = layout.device_size(size, aligns[1])
    if parts is None:
        assert seen == 0 or layout.guest_size(after, aligns[1], label) < seen
        return
    moved = {part.source: part for part in parts}
    assert moved[0].destination == 0
    assert moved[0].length >= seen
    if len(parts) == 2:
        assert parts[1] == (before - label, after - label, label)
    elif source != size or aligns[0] != aligns[1]:
        assert label == 0
    for part, following in itertools.pairwise(parts):
        assert part.destination + part.length <= following.destination
        assert part.source + part.length <= following.source
    assert parts[-1].destination + parts[-1].length <= size
