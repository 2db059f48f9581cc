"""The speed of wipes, from what the ledger says at a few moments."""

import types

import pytest

from vpmem_driver.cli import wipe_speed
from vpmem_driver.model import State

SIZE = 1000


def row(name, wiped, verified, *, begun=True):
    values = {"state": State.DIRTY, "begun": begun, "wiped": wiped, "verified": verified, "departure": None}
    return types.SimpleNamespace(uuid=name, size=SIZE, **values)


class Host:
    """A clock, and wipes that advance with it."""

    def __init__(self, **speeds):
        self.time = 0.0
        self.reads = 0
        self.speeds = speeds

    def sleep(self, seconds):
        self.time += seconds

    def rows(self):
        self.reads += 1
        return [self.row(name, speed) for name, speed in self.speeds.items()]

    def row(self, name, speed):
        """A worker reports five times a second."""
        done = int(100 + speed * (int(self.time * 5) / 5)) if speed is not None else 0
        return row(name, min(done, SIZE), max(0, done - SIZE), begun=speed is not None)

    def measure(self):
        return wipe_speed.measure(self.rows, now=lambda: self.time, sleep=self.sleep)


def test_without_a_wipe_it_is_read_once():
    host = Host(a=None, b=None)
    rows, running = host.measure()
    assert (len(rows), running, host.reads, host.time) == (2, {}, 1, 0.0)


def test_a_wipe_that_makes_progress():
    host = Host(a=100, b=None)
    _, running = host.measure()
    assert list(running) == ["a"]
    assert running["a"].bytes_per_second == pytest.approx(100, rel=0.1)
    assert running["a"].seconds_left == pytest.approx((2 * SIZE - 180) / 100, rel=0.1)
    assert host.time < wipe_speed.PATIENCE_SECONDS


def test_a_wipe_whose_process_has_died_has_no_speed():
    host = Host(a=0)
    assert host.measure()[1] == {}
    assert host.time == pytest.approx(wipe_speed.PATIENCE_SECONDS, abs=0.1)


def test_a_wipe_that_began_again_has_no_negative_speed():
    host = Host(a=100)
    host.row = lambda name, speed: row(name, 500 if host.time < 0.3 else 10, 0)
    assert host.measure()[1] == {}


def test_a_wipe_that_ends_meanwhile_has_no_speed():
    host = Host(a=100)
    before = host.row
    host.row = lambda name, speed: before(name, speed if host.time < 0.3 else None)
    assert host.measure()[1] == {}
