"""The compiled table that a pool keeps, after any history, against one that is made anew from the ledger."""

import contextlib
import pathlib
import tempfile
import uuid
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vpmem_driver import exception, model
from vpmem_driver.discovery import interface
from vpmem_driver.engine import Outcome
from vpmem_driver.ledger import Ledger
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import Pool, labels, wipes
from vpmem_driver.pool.table import Table

MIB = 1 << 20
OWNERS = [str(uuid.UUID(int=number)) for number in range(1, 5)]
UUIDS = [str(uuid.UUID(int=number)) for number in range(100, 109)]
LABELS = ["A", "B"]
PMEM_NAMESPACES = ["A:" + "|".join(UUIDS[:4]), "B:" + "|".join(UUIDS[4:8])]

uuids = st.lists(st.sampled_from(UUIDS), min_size=1, max_size=3, unique=True)
owners = st.sampled_from(OWNERS)
pools = st.integers(0, 1)
nodes = st.none() | st.integers(0, 2)


class Source(interface.Discovery):
    """A host of which the test says what it has."""

    name = "made"

    def __init__(self) -> None:
        self.found = {each: namespace(each, size=2, node=0) for each in UUIDS[:6]}

    def namespaces(self) -> tuple[model.Namespace, ...]:
        return interface.check(self.name, self.found.values())

    def options(self) -> dict[str, str]:
        return {}

    def identity_of(self, fd: int) -> str | None:
        return None


class Engine:
    """Wipes at once, with the outcome that the test has set."""

    resumes = True
    outcome = Outcome.WIPED

    def run(self, jobs, watcher, stop=None):
        return {job.uuid: self._wipe(job, watcher) for job in jobs}

    def _wipe(self, job, watcher):
        outcome = Outcome.STOPPED
        if watcher.may_start(job):
            watcher.progress(job, "zero", job.size // 2)
            outcome = self.outcome
        result = job.ended(outcome, "" if outcome is Outcome.WIPED else "as the test has it")
        watcher.finished(result)
        return result


def namespace(identity: str, *, size: int, node: int | None, name: str = "ns", unusable=None) -> model.Namespace:
    return model.Namespace(
        uuid=identity,
        name=name,
        size=size * MIB,
        align=4096,
        numa_node=node,
        mode="file",
        device=f"/nowhere/{identity}",
        pmem=False,
        unusable=unusable,
    )


def content(table: Table) -> object:
    """All that a table has, and all that it would choose."""
    labels_of = range(len(table.inventory()))
    free = [table.free(label) for label in labels_of]
    requests = [[label] * count for label, count in enumerate(free) if count] + [[0, 1], [1, 0, 1]]
    choices = [table.choose(request, node) for request in requests for node in (None, 0, 1)]
    without = [table.choose([label], None, set(UUIDS[::2])) for label in labels_of]
    return table.inventory(), free, choices, without, table.seen


class History(RuleBasedStateMachine):
    """Two pools, as two processes have them, on one ledger. Whatever they do may fail; each table stays right."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        root = self.stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
        self.source = Source()
        self.engine = Engine()
        self.pools = [self.pool(pathlib.Path(root, "state")) for _ in range(2)]

    def pool(self, state_path: pathlib.Path) -> Pool:
        records = Ledger(state_path)
        self.stack.callback(records.close)
        wiper = wipes.Wiper(records, self.engine, self.source.find, Domains(None))
        return Pool(labels.parse(PMEM_NAMESPACES), self.source, records, wiper, leave_out_absent=True)

    def teardown(self) -> None:
        self.stack.close()

    @rule(pool=pools, owner=owners, wanted=st.lists(st.sampled_from(LABELS), min_size=1, max_size=3), node=nodes)
    def claim(self, pool, owner, wanted, node):
        with contextlib.suppress(exception.VPMEMError):
            self.pools[pool].claim(owner, wanted, numa_node=node)

    @rule(pool=pools, owner=owners, wanted=uuids)
    def claim_exact(self, pool, owner, wanted):
        with contextlib.suppress(exception.VPMEMError):
            self.pools[pool].claim_exact(owner, wanted)

    @rule(pool=pools, owner=owners, wanted=uuids, label=st.sampled_from([*LABELS, "C"]))
    def adopt(self, pool, owner, wanted, label):
        with contextlib.suppress(exception.VPMEMError):
            self.pools[pool].adopt(owner, wanted, label_of=dict.fromkeys(wanted, label))

    @rule(pool=pools, owner=owners, some=st.none() | uuids)
    def release(self, pool, owner, some):
        with contextlib.suppress(exception.VPMEMError):
            self.pools[pool].release(owner, some)

    @rule(pool=pools, owner=owners)
    def renew(self, pool, owner):
        with contextlib.suppress(exception.VPMEMError):
            self.pools[pool].renew(owner)

    @rule(pool=pools, some=st.none() | uuids)
    def wipe(self, pool, some):
        with contextlib.suppress(exception.VPMEMError):
            self.pools[pool].wipe(some)

    @rule(outcome=st.sampled_from([Outcome.WIPED, Outcome.WIPED, Outcome.MEDIA, Outcome.HOST]))
    def wipes_end_so(self, outcome):
        self.engine.outcome = outcome

    @rule(pool=pools, owner=owners, act=st.sampled_from(["claim", "release", "adopt"]), before=st.integers(0, 2))
    def a_commit_fails(self, pool, owner, act, before):
        records, left = self.pools[pool]._state.ledger, iter(range(before))
        execute = records._execute

        def failing(statement, values=()):
            if statement == "COMMIT" and next(left, None) is None:
                raise exception.LedgerError(path=records.path, reason="no disk", remedy="Try again.")
            return execute(statement, values)

        arguments = {"claim": (["A", "B"],), "release": (), "adopt": (UUIDS[:2],)}
        with mock.patch.object(records, "_execute", failing), contextlib.suppress(exception.VPMEMError):
            getattr(self.pools[pool], act)(owner, *arguments[act])

    @rule(
        identity=st.sampled_from(UUIDS),
        size=st.integers(1, 3),
        node=nodes,
        name=st.sampled_from(["ns", "ns0", "ns1"]),
        unusable=st.none() | st.none() | st.just("its mode is fsdax"),
        first=pools,
    )
    def the_host_has_another_one(self, identity, size, node, name, unusable, first):
        self.source.found[identity] = namespace(identity, size=size, node=node, name=name, unusable=unusable)
        self.look(first)

    @rule(identity=st.sampled_from(UUIDS), first=pools)
    def the_host_has_lost_one(self, identity, first):
        self.source.found.pop(identity, None)
        self.look(first)

    def look(self, first):
        for pool in (self.pools[first], self.pools[1 - first]):
            with contextlib.suppress(exception.DiscoveryFailed):
                pool.reconcile()

    @rule(pool=pools, owner=owners)
    def nothing_has_changed(self, pool, owner):
        state = self.pools[pool]._state
        self.look(pool)
        with state.read() as before:
            pass
        with contextlib.suppress(exception.DiscoveryFailed):
            self.pools[pool].grants(owner)
            with state.read() as after:
                assert after is before, "the table stays"

    @invariant()
    def as_made_anew(self):
        for pool in self.pools:
            with pool._state.read() as table:
                assert content(table) == content(
                    Table(pool._state.view, pool._state.ledger.rows(), pool._state.ledger.last_move())
                )


History.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=30)
test_the_table_is_always_as_if_made_anew = History.TestCase
