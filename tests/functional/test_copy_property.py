"""A copy between two hosts, interrupted in every way: at every moment one of them has everything.

Either the destination has every byte and the source can go, or the source has every byte and the destination is wiped.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.functional.conftest import Host, fill, is_zero, new_owner
from tests.functional.test_transfer import COPY, RELAY
from tests.waiting import wait_until
from vpmem_driver import exception, interpreter
from vpmem_driver.model import State
from vpmem_driver.sizes import MIB
from vpmem_driver.transfer.connection import ConnectionLost, ProcessConnection
from vpmem_driver.transfer.sender import Sender

SIZES = {"small0": 4 * MIB, "small1": 4 * MIB}

#: The source as a process of its own, which reports its progress.
SOURCE = """
import sys
from vpmem_driver import conf
from vpmem_driver.pool import Pool
from vpmem_driver.transfer.connection import ProcessConnection
from vpmem_driver.transfer.sender import Sender
config, owner, copy, pack, *command = sys.argv[1:]
pool = Pool.from_conf(conf.read([config]))
pool.copies.depart(owner, copy)
uuids = [row.uuid for row in pool.held(owner)]
sender = Sender(pool, lambda: ProcessConnection("other", command), owner=owner, copy=copy, pack=bool(pack),
                on_progress=lambda event: print(event.phase, flush=True), retries=())
print("begun", flush=True)
sender.send(uuids, [None] * len(uuids))
"""


class Copying(RuleBasedStateMachine):
    @initialize(clean=st.booleans(), pack=st.booleans(), stays=st.booleans())
    def begin(self, clean, pack, stays):
        self.pack, self.stays = pack, stays
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="vpmem-copy-"))
        self.hosts = []
        for name in ("source", "destination"):
            (self.root / name).mkdir()
            host = Host(self.root / name)
            host.pmem_namespaces = ["SMALL:small0|small1"]
            for namespace, size in SIZES.items():
                host.make(namespace, size=size)
            self.hosts.append(host)
        self.source, self.destination = self.hosts
        self.config = [str(host.config_file()) for host in self.hosts]
        self.owner = new_owner()
        pool = self.source.pool()
        grants = pool.claim(self.owner, ["SMALL", "SMALL"])
        self.content = [fill(self.source.path(grant.name)) for grant in grants]
        # Every other MiB of the first one is empty.
        path = self.source.path(grants[0].name)
        self.content[0] = b"".join(
            self.content[0][at : at + MIB] if at % (2 * MIB) else bytes(MIB) for at in range(0, 4 * MIB, MIB)
        )
        path.write_bytes(self.content[0])
        if clean:
            self.destination.pool().wipe([row.uuid for row in self.destination.pool().rows()])
        self.complete = False

    def teardown(self):
        if not hasattr(self, "hosts"):
            return
        try:
            self.give_up() if self.stays else self.finish()
        finally:
            for host in self.hosts:
                host.close()
            shutil.rmtree(self.root)

    def finish(self):
        """The last attempt has no accident; then the source is released, and the owner has everything there."""
        pool = self.source.pool()
        pool.copies.depart(self.owner, COPY)
        self.send(pool)
        arrived = self.destination.pool().grants(self.owner)
        assert all(grant.ready for grant in arrived)
        assert [self.destination.path(grant.name).read_bytes() for grant in arrived] == self.content
        names = [row.name for row in pool.held(self.owner)]
        pool.release(self.owner)
        pool.wipe()
        assert all(is_zero(self.source.path(name)) for name in names)

    def give_up(self):
        """The destination releases what has arrived, and others get it. The guest may start on the source."""
        self.sender().abandon()
        self.assert_stays()
        pool, other = self.destination.pool(), new_owner()
        grants = pool.claim(other, ["SMALL", "SMALL"])
        assert all(is_zero(self.destination.path(grant.name)) for grant in grants)

    def assert_stays(self):
        """The destination is wiped, and the guest may start on the source again."""
        pool = self.destination.pool()
        pool.wipe()
        assert pool.held(self.owner) == []
        assert not [row.name for row in pool.rows() if row.state in {State.DIRTY, State.RECEIVING}]
        assert all(is_zero(self.destination.path(row.name)) for row in pool.rows() if row.state is State.CLEAN)
        source = self.source.pool()
        source.copies.stay(self.owner)
        assert all(grant.ready for grant in source.grants(self.owner))
        self.complete = False

    # accidents

    def command(self, *, relay=(), limit=None):
        receive = interpreter.command("vpmem_driver.cli.main", "--config-file", self.config[1], "receive")
        if limit is not None:
            receive = ["prlimit", f"--fsize={limit}", *receive]
        command = [sys.executable, "-c", RELAY, *map(str, relay), *receive] if relay else receive
        return ["env", f"PYTHONPATH={interpreter.search_path()}", *command]

    def sender(self, on_progress=lambda event: None, **accident):
        return Sender(
            self.source.pool(),
            lambda: ProcessConnection("other", self.command(**accident)),
            owner=self.owner,
            copy=COPY,
            pack=self.pack,
            on_progress=on_progress,
            retries=(),
        )

    def send(self, pool, on_progress=lambda event: None, **accident):
        uuids = [row.uuid for row in pool.held(self.owner)]
        self.sender(on_progress, **accident).send(uuids, [None] * len(uuids))

    def attempt(self, on_progress=lambda event: None, **accident):
        pool = self.source.pool()
        pool.copies.depart(self.owner, COPY)
        try:
            self.send(pool, on_progress, **accident)
        except (exception.CopyFailed, exception.TransferRefused, ConnectionLost):
            pass
        else:
            self.complete = True

    @rule(after=st.integers(1, 9 * MIB), mode=st.sampled_from(["cut", "flip"]))
    def connection_fails(self, after, mode):
        self.attempt(relay=(mode, after))

    @rule(phase=st.sampled_from(["copy", "verify"]), whom=st.sampled_from(["receiver", "its worker", "worker"]))
    def somebody_is_killed(self, phase, whom):
        """The receiver, its worker, or the worker of the source."""

        def kill(event):
            if event.phase == phase:
                for pid in self.processes(whom):
                    os.kill(pid, signal.SIGKILL)

        self.attempt(kill)

    def source_process(self, *prefix):
        """The source as a process of its own."""
        command = [*prefix, sys.executable, "-c", SOURCE, self.config[0], self.owner, COPY]
        environment = os.environ | {"PYTHONPATH": interpreter.search_path()}
        return subprocess.Popen(
            # A limit of the source is not one of the destination.
            [*command, "yes" if self.pack else "", "prlimit", "--fsize=unlimited:", *self.command()],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def wait_for_the_receiver(self):
        """It notices by itself that its source has died."""
        wait_until(lambda: not self.processes("receiver"), "the receiver's end")

    @rule(lines=st.integers(1, 8))
    def source_is_killed(self, lines):
        with self.source_process() as process:
            for _ in range(lines):
                process.stdout.readline()
            process.kill()
        self.wait_for_the_receiver()

    @rule(limit=st.integers(0, 200_000))
    def the_disk_of_the_sources_ledger_is_full(self, limit):
        with self.source_process("prlimit", f"--fsize={limit}:") as process:
            process.communicate()
        self.wait_for_the_receiver()

    @rule(limit=st.integers(0, 200_000))
    def the_disk_of_the_destinations_ledger_is_full(self, limit):
        self.attempt(limit=limit)

    @rule()
    def others_take_what_is_free(self):
        pool, other = self.destination.pool(), new_owner()
        try:
            grants = pool.claim(other, ["SMALL"])
        except exception.InsufficientNamespaces:
            return
        assert all(is_zero(self.destination.path(grant.name)) for grant in grants)
        pool.release(other)
        pool.wipe()

    @rule()
    def abandoned(self):
        self.destination.pool().copies.abandon(self.owner, COPY)
        self.assert_stays()

    def processes(self, whom):
        """The pids of the destination's receiver, of its worker, or of the worker of this process."""
        found = _processes()
        receivers = {pid for pid, (words, _) in found.items() if "receive" in words and self.config[1] in words}
        if whom == "receiver":
            return receivers
        parents = receivers if whom == "its worker" else {os.getpid()}
        return {pid for pid, (words, parent) in found.items() if "vpmem_driver.worker" in words and parent in parents}

    # what holds at every moment

    @invariant()
    def source_has_everything(self):
        if hasattr(self, "hosts"):
            held = self.source.pool().held(self.owner)
            assert [row.state for row in held] == [State.CLAIMED] * 2
            assert [self.source.path(row.name).read_bytes() for row in held] == self.content

    @invariant()
    def what_the_destination_gives_to_the_owner_is_complete(self):
        if hasattr(self, "hosts"):
            pool = self.destination.pool()
            for row in pool.held(self.owner):
                if row.state is State.CLAIMED:
                    assert self.destination.path(row.name).read_bytes() == self.content[row.position]
                else:
                    assert row.state is State.RECEIVING
            assert not self.complete or all(row.state is State.CLAIMED for row in pool.held(self.owner))


def _processes():
    """The command line and the parent of each process of this machine, by pid."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = pathlib.Path("/proc", pid, "cmdline").read_bytes().decode().split("\0")
            parent = int(pathlib.Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        found[int(pid)] = words, parent
    return found


TestCopying = Copying.TestCase
TestCopying.settings = settings(
    max_examples=int(os.environ.get("VPMEM_COPY_EXAMPLES", "3")),
    stateful_step_count=4,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
