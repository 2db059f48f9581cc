"""Copies between namespaces of one host and of two: real ledgers, workers and pipes."""

import contextlib
import functools
import os
import threading

import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from tests.unit.files import MAP, another_process
from vpmem_driver import exception, layout
from vpmem_driver.model import State
from vpmem_driver.sizes import KIB, MIB

COPY = "00c0ffee"


class Moving:
    """An owner with content on one host, and a second host that expects it."""

    def __init__(self, host, other, labels=("SMALL",)):
        self.owner = new_owner()
        self.source, self.destination = host.pool(), other.pool()
        self.grants = self.source.claim(self.owner, labels)
        self.content = [fill(host.path(grant.name)) for grant in self.grants]
        self.host, self.other = host, other

    def begin(self):
        self.source.copies.depart(self.owner, COPY)
        self.rows = self.destination.copies.expect_labels(self.owner, COPY, self.grants)
        return self.rows

    def transfer(self, index=0, on_progress=lambda event: None, fd=None):
        """Send and receive one namespace."""
        grant, row = self.grants[index], self.destination._state.ledger.row(self.rows[index].uuid)
        read, write = os.pipe()
        target = self.destination.grants(self.owner)[index]
        errors = []

        def send():
            try:
                self.source.copies.send(COPY, grant.uuid, write, destination=target, start=row.copied, pack=False)
            except exception.VPMEMError as error:
                errors.append(error)
            finally:
                os.close(write)

        thread = threading.Thread(target=send)
        try:
            self.destination.copies.receive(
                COPY, row.uuid, read, on_ready=lambda start: thread.start(), on_progress=on_progress
            )
        finally:
            os.close(read)
            if thread.ident is not None:
                thread.join()
        assert errors == []

    def begin_here(self):
        """Expect the content in another namespace of the same host, and return that one."""
        self.source.copies.depart(self.owner, COPY)
        target = next(row for row in self.source.rows() if row.owner is None and "small" in row.name)
        return self.source.copies.expect_exact(self.owner, COPY, [target.uuid], self.grants)[0]

    def copy(self, target, on_progress=lambda event: None):
        """Copy to a namespace of the same host."""
        self.source.copies.copy(COPY, self.grants[0].uuid, target.uuid, on_progress=on_progress)

    def at_once(self):
        """From now on, the rate of copies is not limited."""
        for each in (self.host, self.other):
            each.options["copy_rate"] = 0
        self.source, self.destination = self.host.pool(), self.other.pool()

    def at_destination(self, index=0):
        return self.destination._state.ledger.row(self.rows[index].uuid)


@pytest.fixture
def moving(host, other):
    return Moving(host, other)


def test_the_content_arrives_and_both_have_it_until_the_source_is_released(moving):
    (row,) = moving.begin()
    assert row.state is State.RECEIVING
    moving.transfer()
    assert moving.other.path(row.name).read_bytes() == moving.content[0]
    assert moving.at_destination().state is State.CLAIMED
    assert moving.at_destination().owner == moving.owner
    (held,) = moving.source.held(moving.owner)
    assert (held.state, held.departure) == (State.CLAIMED, COPY)
    moving.source.release(moving.owner)
    moving.source.wipe()
    assert is_zero(moving.host.path(moving.grants[0].name))
    assert moving.other.path(row.name).read_bytes() == moving.content[0]


def test_two_namespaces_arrive_in_the_order_of_the_devices(host, other):
    moving = Moving(host, other, ("SMALL", "LARGE"))
    rows = moving.begin()
    for index in range(2):
        moving.transfer(index)
    held = moving.destination.grants(moving.owner)
    assert [grant.uuid for grant in held] == [row.uuid for row in rows]
    assert [other.path(grant.name).read_bytes() for grant in held] == moving.content


def test_a_guest_cannot_start_on_either_side_during_a_copy(moving):
    (row,) = moving.begin()
    with pytest.raises(exception.NamespaceUnavailable, match="its guest must not start meanwhile"):
        moving.source.claim_exact(moving.owner, [moving.grants[0].uuid])
    with pytest.raises(exception.NamespaceUnavailable, match="0 % of its content"):
        moving.destination.claim_exact(moving.owner, [row.uuid])
    assert [grant.ready for pool in (moving.source, moving.destination) for grant in pool.grants(moving.owner)] == [
        False,
        False,
    ]
    moving.transfer()
    assert [grant.ready for grant in moving.destination.grants(moving.owner)] == [True]
    moving.source.copies.stay(moving.owner)
    assert [grant.ready for grant in moving.source.grants(moving.owner)] == [True]


def test_a_receiving_namespace_is_neither_wiped_nor_given_to_others(moving):
    (row,) = moving.begin()
    assert moving.destination.wipe() == []
    with pytest.raises(exception.NamespaceClaimed):
        moving.destination.wipe([row.uuid])
    with pytest.raises(exception.NamespaceUnavailable):
        moving.destination.claim_exact(new_owner(), [row.uuid])
    with pytest.raises(exception.NamespaceUnavailable):
        moving.destination.copies.expect_exact(new_owner(), "another", [row.uuid], moving.grants)
    taken = {grant.uuid for grant in moving.destination.claim(new_owner(), ["SMALL", "SMALL"])}
    assert row.uuid not in taken
    with pytest.raises(exception.InsufficientNamespaces):
        moving.destination.claim(new_owner(), ["SMALL"])


@pytest.mark.parametrize("first", ["unknown", "clean", "dirty"])
def test_a_copy_that_is_abandoned_before_its_first_byte_changes_nothing(moving, first):
    pool, last = moving.destination, new_owner()
    if first == "clean":
        pool.wipe([row.uuid for row in pool.rows()])
    elif first == "dirty":
        pool.adopt(last, [row.uuid for row in pool.rows()])
        pool.release(last)
    before = {path: path.read_bytes() for path in moving.other.directory.glob("*")}
    (row,) = moving.begin()
    pool.copies.abandon(moving.owner, COPY)
    after = pool._state.ledger.row(row.uuid)
    assert after.owner is None
    assert after.state is (State.UNKNOWN if first == "unknown" else State.DIRTY)
    assert {path: path.read_bytes() for path in moving.other.directory.glob("*")} == before
    if first == "dirty":
        pool.adopt(last, [row.uuid])  # its data is still there


def test_a_copy_that_is_abandoned_later_is_wiped_before_anybody_gets_it(moving):
    (row,) = moving.begin()
    moving.transfer()
    moving.destination.copies.abandon(moving.owner, COPY)
    after = moving.destination._state.ledger.row(row.uuid)
    assert (after.state, after.owner, after.wiped) == (State.DIRTY, None, 0)
    moving.destination.claim_exact(new_owner(), [row.uuid])
    assert is_zero(moving.other.path(row.name))
    moving.source.copies.stay(moving.owner)
    assert moving.host.path(moving.grants[0].name).read_bytes() == moving.content[0]


def test_a_copy_that_was_abandoned_while_it_ran_is_not_recorded(moving):
    moving.begin()

    def abandon(event):
        if event.phase == "verify":
            moving.destination.copies.abandon(moving.owner, COPY)

    with pytest.raises(exception.CopyFailed, match="it was released"):
        moving.transfer(on_progress=abandon)
    assert moving.at_destination().state is State.DIRTY
    assert moving.at_destination().begun


def test_the_same_copy_may_be_expected_again_and_is_received_once(moving):
    (row,) = moving.begin()
    assert moving.begin() == [row]
    moving.transfer()
    (again,) = moving.begin()
    assert again.uuid == row.uuid
    read, write = os.pipe()
    moving.destination.copies.receive(COPY, row.uuid, read, on_ready=None, on_progress=None)  # reads nothing
    os.close(read)
    os.close(write)


def test_an_owner_with_other_namespaces_at_the_destination_is_refused(moving):
    moving.destination.claim(moving.owner, ["SMALL"])
    with pytest.raises(exception.NotOwner, match="vpmem release"):
        moving.begin()


def test_a_namespace_that_is_too_small_is_not_chosen(host, other):
    moving = Moving(host, other, ["LARGE"])
    for name in ("large0", "large1"):
        other.path(name).unlink()
    other.make("large0", size=6 * MIB)
    other.make("large1", size=10 * MIB)
    moving.destination.reconcile()
    (row,) = moving.begin()
    assert row.name == "large1"
    moving.destination.copies.abandon(moving.owner, COPY)
    small = next(row for row in moving.destination.rows() if row.name == "small0")
    with pytest.raises(exception.DoesNotFit, match=r"8388608 bytes.*4194304 bytes"):
        moving.destination.copies.expect_exact(moving.owner, COPY, [small.uuid], moving.grants)


def test_a_copy_on_one_host(moving):
    pool, source = moving.source, moving.grants[0]
    target = moving.begin_here()
    moving.copy(target)
    assert moving.host.path(target.name).read_bytes() == moving.content[0]
    held = pool.held(moving.owner)
    assert [row.state for row in held] == [State.CLAIMED, State.CLAIMED]
    assert pool._state.ledger.row(source.uuid).copied == source.size
    pool.release(moving.owner, [source.uuid])
    pool.wipe()
    assert is_zero(moving.host.path(source.name))
    assert moving.host.path(target.name).read_bytes() == moving.content[0]


def test_a_source_that_does_not_depart_is_neither_sent_nor_copied(moving):
    pool = moving.source
    target = next(row for row in pool.rows() if row.owner is None and "small" in row.name)
    before = moving.host.path(target.name).read_bytes()
    pool.copies.expect_exact(moving.owner, COPY, [target.uuid], moving.grants)
    with pytest.raises(exception.CopyFailed, match="no longer to be copied"):
        pool.copies.copy(COPY, moving.grants[0].uuid, target.uuid, on_progress=lambda event: None)
    assert moving.host.path(target.name).read_bytes() == before


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_namespace_that_a_process_has_mapped_is_not_copied(moving, side):
    (row,) = moving.begin()
    path = moving.host.path(moving.grants[0].name) if side == "source" else moving.other.path(row.name)
    before = path.read_bytes()
    with another_process(MAP, path), pytest.raises((exception.VPMEMError, AssertionError)):
        moving.transfer()
    assert path.read_bytes() == before
    assert moving.at_destination().state is State.RECEIVING


#: Maps a file, writes its last byte, and keeps it mapped.
WRITE = MAP.replace('print("ready"', 'held[-1] ^= 1; print("ready"')


@pytest.fixture
def stranger():
    """A function that has a process map and write a file, once; it keeps it mapped until it is told to leave."""
    with contextlib.ExitStack() as processes:
        come = functools.cache(lambda path: processes.enter_context(another_process(WRITE, path)))
        come.leave = processes.close
        yield come


@pytest.fixture
def slow(host, other):
    for each in (host, other):
        each.options["copy_rate"] = 2  # two seconds for each pass over 4 MiB
    return Moving(host, other)


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_copy_was_complete_although_somebody_wrote_meanwhile(slow, stranger, side):
    """It was of neither before nor after, or somebody shared it with the owner. Now the next copy begins again."""
    (row,) = slow.begin()
    source, destination = slow.host.path(slow.grants[0].name), slow.other.path(row.name)
    with pytest.raises((exception.CopyFailed, exception.NamespaceInUse)):
        slow.transfer(on_progress=lambda _event: stranger(source if side == "source" else destination))
    assert slow.at_destination().state is State.RECEIVING
    stranger.leave()
    slow.at_once()
    slow.transfer()
    assert slow.at_destination().state is State.CLAIMED
    assert destination.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_copy_on_one_host_was_complete_although_somebody_wrote_meanwhile(slow, stranger, side):
    target = slow.begin_here()
    source, destination = slow.host.path(slow.grants[0].name), slow.host.path(target.name)
    with pytest.raises(exception.NamespaceInUse, match="in use by process"):
        slow.copy(target, lambda _event: stranger(source if side == "source" else destination))
    (now,) = (row for row in slow.source.rows() if row.uuid == target.uuid)
    assert (now.state, now.copied) == (State.RECEIVING, 0)
    stranger.leave()
    slow.at_once()
    slow.copy(target)
    assert destination.read_bytes() == source.read_bytes()


def test_progress_is_in_the_ledger_and_in_the_listing(moving):
    (row,) = moving.begin()
    seen = []

    def look(event):
        seen.append(moving.destination.record(row.uuid).reason)

    moving.transfer(on_progress=look)
    assert any("% received" in reason for reason in seen)
    assert any("% verified" in reason for reason in seen)
    moving.source.copies.departed(COPY, moving.grants[0].uuid, 2 * MIB)
    assert "50 % copied to another namespace" in moving.source.record(moving.grants[0].uuid).reason


def test_a_small_label_area_is_at_the_end_of_a_larger_namespace(host, other):
    host.options["label_size"] = ["128KiB"]
    for name in ("small0", "small1", "small2"):
        other.make(name, size=8 * MIB)
    moving = Moving(host, other)
    (row,) = moving.begin()
    moving.transfer()
    (content,), found = moving.content, other.path(row.name).read_bytes()
    seen = layout.guest_size(len(content), moving.grants[0].align, 128 * KIB)
    assert found[:seen] == content[:seen]
    assert found[-128 * KIB :] == content[-128 * KIB :]
    assert not any(found[seen : -128 * KIB])
