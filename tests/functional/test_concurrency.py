"""Many processes and threads on one ledger: never two owners.

In the first test the wipes are left out (the engine says at once that all is zero): what is tried is who gets what. The
second one is a short ``./dev concurrency``, without the drivers, which need Nova.
"""

import contextlib
import itertools
import os
import random
import subprocess
import sys
import threading
import uuid

from oslo_config import cfg

from tests.concurrency.run import Crew, run
from vpmem_driver import exception
from vpmem_driver.engine import Outcome
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import Pool, wipes

PROCESSES, THREADS, ROUNDS = 8, 8, 157  # a claim and a release each: more than 20,000 in all


class NoEngine:
    """An engine whose wipes take no time."""

    resumes = True

    def run(self, jobs, watcher, stop=None):
        results = {}
        for job in jobs:
            results[job.uuid] = job.ended(Outcome.WIPED if watcher.may_start(job) else Outcome.STOPPED)
            watcher.finished(results[job.uuid])
        return results


@contextlib.contextmanager
def alone(directory, namespace):
    """Fail if anybody else is in here with the same namespace now."""
    path = directory / namespace
    path.touch(exist_ok=False)
    try:
        yield
    finally:
        path.unlink()


def work(pool, directory, seed):
    rng = random.Random(seed)
    done = 0
    while done < ROUNDS:
        owner = str(uuid.uuid4())
        wanted = rng.choice([["SMALL"], ["LARGE"], ["LARGE", "SMALL"], ["SMALL", "SMALL"]])
        try:
            grants = pool.claim(owner, wanted)
        except exception.InsufficientNamespaces:
            continue  # the others hold them all: again
        with contextlib.ExitStack() as stack:
            for grant in grants:
                stack.enter_context(alone(directory, grant.uuid))
        pool.release(owner)
        done += 1


def process(config_file, directory, seed):
    """What each process runs: threads that share one pool."""
    from vpmem_driver import conf, discovery, ledger
    from vpmem_driver.pool import labels

    options = cfg.ConfigOpts()
    conf.register_opts(options)
    options(["--config-file", config_file])
    source, records = discovery.from_conf(options), ledger.Ledger(options.vpmem.state_path)
    wiper = wipes.Wiper(records, NoEngine(), source.find, Domains("test:///default"))
    wiper.domains.user_of = lambda device, defined=False: None
    pool = Pool(labels.parse(options.libvirt.pmem_namespaces), source, records, wiper)
    failures = []

    def guarded(number):
        try:
            work(pool, directory, f"{seed}-{number}")
        except BaseException as error:  # noqa: BLE001  a thread's failure is the process's
            failures.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(*failures)
    return 1 if failures else 0


def test_invariant_1_eight_processes_of_eight_threads(host, tmp_path):
    names = {label: [f"{label}-{number}" for number in range(32)] for label in ("LARGE", "SMALL")}
    for label, number in itertools.product(names, range(32)):
        host.make(names[label][number], node=number % 2, full=False)
    host.pmem_namespaces = [f"{label}:{'|'.join(names[label])}" for label in names]
    held = tmp_path / "held"
    held.mkdir()
    program = "import sys, pathlib; from tests.functional import test_concurrency as t; "
    program += "sys.exit(t.process(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]))"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(host.config_file()), str(held), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        for seed in range(PROCESSES)
    ]
    said = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0] * PROCESSES, said
    moves = list(host.pool()._state.ledger.history())
    claimed = [move for move in moves if move.to_state == "claimed"]
    released = [move for move in moves if move.from_state == "claimed"]
    assert len(claimed) == len(released) >= PROCESSES * THREADS * ROUNDS
    assert {record.owner for record in host.pool().records()} == {None}
    owners = dict.fromkeys(move.uuid for move in moves)
    for move in moves:  # in the order in which they were committed
        assert move.to_state != "claimed" or owners[move.uuid] is None, "claimed while another held it"
        owners[move.uuid] = move.owner if move.to_state == "claimed" else None


def test_threads_processes_and_the_command_line_on_one_ledger():
    crew = Crew(pools=3, commands=1, drivers=(), threads=2, namespaces=6)
    report = run(crew, operations=2000, seconds=30, seed=0)
    assert report.violations == [], report.table()
    assert {"claim", "release", "adopt", "wipe", "records", "reconcile"} <= set(report.checker.waits)
