"""Wipes of what another process is wiping already: an engine that says so, on a real ledger."""

import threading
import uuid

import pytest

from vpmem_driver import exception, ledger, model
from vpmem_driver.engine import Outcome
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import State
from vpmem_driver.pool import wipes

SIZE = 1 << 20


class Locked:
    """Another process holds the lock on the device until `free`; counts how often somebody tried."""

    resumes = True

    def __init__(self):
        self.tries = 0
        self.free = False
        self.tried = threading.Event()

    def run(self, jobs, watcher, stop=None):
        self.tries += len(jobs)
        self.tried.set()
        if not self.free:
            return {job.uuid: job.ended(Outcome.BUSY, "another process is wiping it") for job in jobs}
        for job in jobs:
            assert watcher.may_start(job)
            watcher.finished(job.ended(Outcome.WIPED))
        return {job.uuid: job.ended(Outcome.WIPED) for job in jobs}


@pytest.fixture
def records(tmp_path):
    opened = ledger.Ledger(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def row(records):
    """A namespace that is to be wiped."""
    namespace = model.Namespace(
        uuid=str(uuid.uuid4()),
        name="ns0",
        size=SIZE,
        align=4096,
        numa_node=0,
        mode="file",
        device="/dev/null",
        pmem=False,
    )
    with records.transaction():
        records.insert(namespace)
        records.move(records.row(namespace.uuid), State.DIRTY, "to be wiped")
    return records.row(namespace.uuid)


class NoDomains(Domains):
    def user_of(self, device, *, defined=False):
        return None


def wiper(records, engine):
    return wipes.Wiper(records, engine, records.row, NoDomains(None))


def test_it_waits_while_the_other_gets_further(records, row):
    engine, results = Locked(), []
    thread = threading.Thread(target=lambda: results.extend(wiper(records, engine).wipe([row.uuid])))
    thread.start()
    engine.tried.wait()
    run = records.begin_wipe(row.uuid, 0)
    for done in range(0, SIZE, SIZE // 8):
        records.progress(row.uuid, run, wiped=done)
        thread.join(wipes._POLL_SECONDS)
        assert thread.is_alive()
    with records.transaction():
        records.move(records.row(row.uuid), State.CLEAN, "wiped")
    thread.join()
    assert [result.outcome for result in results] == [Outcome.WIPED]
    assert engine.tries == 1, "each starts a process"


def test_it_tries_again_when_the_other_is_quiet(records, row, monkeypatch):
    monkeypatch.setattr(wipes, "_QUIET_SECONDS", 0.5)
    engine, results = Locked(), []
    thread = threading.Thread(target=lambda: results.extend(wiper(records, engine).wipe([row.uuid])))
    thread.start()
    engine.tried.wait()
    engine.free = True
    thread.join()
    assert [result.outcome for result in results] == [Outcome.WIPED]
    assert engine.tries == 2
    assert records.row(row.uuid).state is State.CLEAN


def test_a_lock_that_is_held_without_progress_is_a_failure_of_that_namespace(records, row, monkeypatch):
    monkeypatch.setattr(wipes, "_QUIET_SECONDS", 0.2)
    monkeypatch.setattr(wipes, "STUCK_SECONDS", 0.6)
    engine = Locked()
    (result,) = wiper(records, engine).wipe([row.uuid])
    assert (result.outcome, result.reason) == (Outcome.BUSY, "another process is wiping it")
    assert records.row(row.uuid).reason == "another process is wiping it"
    with pytest.raises(exception.HostToolError, match="Wiping namespace ns0 failed: another process"):
        wipes.raise_for([result])


def test_verification_by_another_process_is_progress(records, row, monkeypatch):
    monkeypatch.setattr(wipes, "_QUIET_SECONDS", 0.2)
    monkeypatch.setattr(wipes, "STUCK_SECONDS", 0.6)
    engine, results = Locked(), []
    thread = threading.Thread(target=lambda: results.extend(wiper(records, engine).wipe([row.uuid])))
    thread.start()
    engine.tried.wait()
    run = records.begin_wipe(row.uuid, 0)
    records.progress(row.uuid, run, wiped=SIZE)
    for done in range(0, SIZE, SIZE // 8):
        records.progress(row.uuid, run, verified=done)
        thread.join(wipes._POLL_SECONDS)
        assert thread.is_alive()
    with records.transaction():
        records.move(records.row(row.uuid), State.CLEAN, "wiped")
    thread.join()
    assert [result.outcome for result in results] == [Outcome.WIPED]


def test_what_another_process_has_wiped_is_not_stuck(records, row):
    others = wipes._OtherWipes(records)
    with records.transaction():
        records.move(row, State.CLEAN, "wiped")
    others.wait([row.uuid], threading.Event())
    assert others.stuck == set()
