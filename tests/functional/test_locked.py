"""Processes that hold the lock of a namespace, or say nothing, for ever: only that namespace fails."""

import subprocess
import sys
import threading

import pytest

from tests.functional.conftest import new_owner
from tests.functional.test_pool import row
from vpmem_driver import exception
from vpmem_driver.engine import Outcome, engine, process
from vpmem_driver.pool import wipes

_HOLD = (
    "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); time.sleep(600)"
)
DEADLINE_SECONDS = 30.0


@pytest.fixture
def hold(monkeypatch):
    """Hold the lock of a file in another process for the rest of the test."""
    monkeypatch.setattr(wipes, "STUCK_SECONDS", 1.0, raising=False)
    holders = []

    def begin(path):
        holders.append(subprocess.Popen([sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE))
        holders[-1].stdout.readline()

    yield begin
    for holder in holders:
        holder.kill()
        holder.communicate()


def within(call, *args, seconds=DEADLINE_SECONDS, **kwargs):
    """The result of a call, which must end in time."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call(*args, **kwargs)), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, f"it did not end within {seconds} seconds"
    return results[0]


def test_one_that_holds_a_lock_for_ever_does_not_stop_the_claims_of_others(host, hold):
    pool = host.pool()
    hold(host.path("large0"))
    (grant,) = within(pool.claim, new_owner(), ["LARGE"])
    assert grant.name == "large1"


def test_one_that_holds_a_lock_for_ever_does_not_stop_the_wipes_of_others(host, hold):
    pool, owner = host.pool(), new_owner()
    pool.adopt(owner, [pool.find(name) for name in ("large0", "large1", "small0")])
    pool.release(owner)
    hold(host.path("large0"))
    results = {result.name: result for result in within(pool.wipe)}
    assert {name: result.outcome for name, result in results.items()} == {
        "large0": Outcome.BUSY,
        "large1": Outcome.WIPED,
        "small0": Outcome.WIPED,
    }
    assert row(pool, "large0").reason == results["large0"].reason
    with pytest.raises(exception.HostToolError, match="Wiping namespace large0 failed"):
        wipes.raise_for(results.values())


def test_a_child_that_says_nothing_is_given_up(host, monkeypatch):
    monkeypatch.setattr(process, "SILENCE_SECONDS", 1.0, raising=False)
    monkeypatch.setattr(engine, "SILENCE_SECONDS", 1.0, raising=False)
    host.options["wipe_command"] = "sleep 600"
    pool = host.pool()
    (result,) = within(pool.wipe, [pool.find("small0")])
    assert result.outcome is Outcome.HOST
    assert result.reason.endswith("reported nothing for 1 seconds")
    assert row(pool, "small0").state == "unknown"
