"""Nova's own resource tracker with our sets: what it has picked is offered again when it was given back, not before."""

import collections
import gc
import os
import pathlib
import random
import uuid
from unittest import mock

import fixtures
import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import exception as nova_exception
from nova import objects, test
from nova.compute import provider_tree, resource_tracker
from oslo_config import cfg

from vpmem_driver import conf, exception, model
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.nova import eventlet_poll, host, resources
from vpmem_driver.pool import Pool

CLASSES = ("CUSTOM_PMEM_NAMESPACE_BIG", "CUSTOM_PMEM_NAMESPACE_ALL")
EACH = 3


class Operation:
    """A guest on its way to this host, from the tracker's claim on.

    :ivar recorded: Nova's database has what was claimed
    :ivar tracked: the tracker finds that again; it overlooks an instance that is evacuated while it is in ERROR
    """

    def __init__(self, *, builds):
        self.uuid = str(uuid.uuid4())
        self.builds = builds
        self.recorded = False
        self.tracked = True
        self.in_ledger = False
        self.resources = []

    @property
    def names(self):
        return {resource.identifier for resource in self.resources}


class Records:
    """What nova.instances.HostInstances would read."""

    def __init__(self, operations):
        self._operations = operations

    def starting(self):
        return [operation.uuid for operation in self._operations if operation.builds]

    def arriving(self):
        return frozenset(name for operation in self._operations if not operation.builds for name in operation.names)


class FakePool:
    """A pool of which only what is free is asked for.

    :ivar free_of: returns Nova's objects for what is free, by resource class
    """

    def __init__(self, free_of):
        self._free_of = free_of

    def free(self, resource_class, without):
        return len(self._left(resource_class, without))

    def next_free(self, resource_class, without, numa_node=None):
        return next(iter(self._left(resource_class, without)), None)

    def _left(self, resource_class, without):
        free = self._free_of().get(resource_class, ())
        return [namespace(one) for one in free if uuid_of(one.identifier) not in without]


def uuid_of(identifier):
    return str(uuid.uuid5(uuid.NAMESPACE_OID, identifier))


def namespace(resource):
    device = resource.metadata
    return model.Namespace(
        uuid=uuid_of(resource.identifier),
        name=device.name,
        size=device.size,
        align=device.align,
        numa_node=None,
        mode="devdax",
        device=device.devpath,
        pmem=True,
    )


class TrackerTestCase(test.NoDBTestCase):
    def setUp(self):
        super().setUp()
        self.node = str(uuid.uuid4())
        self.made = [self.resource(name, number) for name in CLASSES for number in range(EACH)]
        self.operations = []
        self.host = host.HostPool(mock.Mock(held=self.held), 1)
        self.readings = 0
        called = {uuid_of(one.identifier): (one.identifier, one.metadata.label) for one in self.made}
        self.offers = resources.Offers(FakePool(self.free), called, self.made_for)
        request = resources.Request()
        tree = provider_tree.ProviderTree()
        tree.new_root("host", self.node)
        tree.update_resources(
            self.node,
            {
                name: resources.HandOut(
                    name,
                    [resource for resource in self.made if resource.resource_class == name],
                    self.offers,
                    self.host._picks,
                    request,
                )
                for name in CLASSES
            },
        )
        self.tracker = resource_tracker.ResourceTracker.__new__(resource_tracker.ResourceTracker)
        self.tracker.assigned_resources = collections.defaultdict(lambda: collections.defaultdict(set))
        self.tracker.provider_tree = tree

    def resource(self, name, number):
        identifier = f"{name[-3:].lower()}{number}"
        device = objects.LibvirtVPMEMDevice(label=name, name=identifier, devpath="/dev/dax", size=1 << 30, align=4096)
        return objects.Resource(provider_uuid=self.node, resource_class=name, identifier=identifier, metadata=device)

    def made_for(self, identifier, *_label_and_path, **_sizes):
        return next(resource for resource in self.made if resource.identifier == identifier)

    # the ledger

    def held(self, owner):
        return [operation for operation in self.operations if operation.uuid == owner and operation.in_ledger]

    def free(self):
        taken = {name for operation in self.operations if operation.in_ledger for name in operation.names}
        found = collections.defaultdict(list)
        for resource in self.made:
            if resource.identifier not in taken and resource.identifier not in self.without:
                found[resource.resource_class].append(resource)
        return found

    #: what the ledger has for somebody else
    without = frozenset()

    def move_in_ledger(self, operation, *, held):
        operation.in_ledger = held

    # what Nova does

    def claim(self, operation, **amounts):
        """The tracker's part of instance_claim() and its like; whether it succeeded."""
        asked = {name: amounts[name[-3:].lower()] for name in CLASSES if name[-3:].lower() in amounts}
        if operation.builds:
            self.operations.append(operation)  # its host is in the database before anything is picked
        try:
            found = self.tracker._claim_resources({self.node: {"resources": asked}})
        except nova_exception.ComputeResourcesUnavailable:
            if operation.builds:
                self.operations.remove(operation)
            return False
        operation.resources = list(found or ())
        if not operation.builds:
            operation.recorded = True
            self.operations.append(operation)
        self.update()
        return True

    def update(self):
        """The end of each claim, of what gives one back, and of each periodic task."""
        self.host.settle_picks(self.read)

    def read(self):
        self.readings += 1
        return Records(self.operations)

    def periodic(self):
        self.tracker.assigned_resources.clear()
        for operation in self.operations:
            if operation.recorded and operation.tracked:
                self.tracker._add_assigned_resources([resource.obj_clone() for resource in operation.resources])
        self.update()

    def claim_in_ledger(self, operation):
        for name in operation.names:
            self.assertIn(name, {one.identifier for found in self.free().values() for one in found})
        self.move_in_ledger(operation, held=True)
        self.host._picks.forget(operation.names)

    def end(self, operation, *, told):
        """It has failed, or was deleted. Of a resize that failed at the source the tracker is not told."""
        self.operations.remove(operation)
        if operation.in_ledger:
            self.move_in_ledger(operation, held=False)
        if told:
            self.tracker._release_assigned_resources(operation.resources)
            self.update()

    def assert_apart(self):
        names = [name for operation in self.operations for name in operation.names]
        self.assertEqual(len(set(names)), len(names), "one namespace was handed out twice")

    def assert_all_on_offer(self):
        for name in CLASSES:
            assigned = self.tracker.assigned_resources[self.node][name]
            free = self.tracker.provider_tree.data(self.node).resources[name] - assigned
            self.assertEqual(EACH - len(assigned), len(free))


class PickTest(TrackerTestCase):
    def test_a_claim_of_two_classes_that_fails_half_way_gives_back_the_first(self):
        for asked in ({"big": 1, "all": EACH + 1}, {"big": EACH + 1, "all": 1}):
            self.assertFalse(self.claim(Operation(builds=True), **asked))
            self.assert_all_on_offer()
        self.assertEqual(0, self.readings, "Nova's database is not needed for that")

    def test_the_same_when_a_periodic_update_comes_in_between(self):
        self.assertFalse(self.claim(Operation(builds=True), big=1, all=EACH + 1))
        self.periodic()
        self.assert_all_on_offer()

    def test_a_claim_that_is_given_back_is_on_offer_at_once(self):
        operation = Operation(builds=True)
        self.assertTrue(self.claim(operation, big=EACH))
        self.end(operation, told=True)
        self.assert_all_on_offer()
        self.assertEqual(0, self.readings)

    def test_a_failed_resize_that_the_tracker_is_not_told_of_is_on_offer_after_a_periodic_update(self):
        operation = Operation(builds=False)
        self.assertTrue(self.claim(operation, big=EACH))
        self.periodic()
        self.end(operation, told=False)
        self.assertFalse(self.claim(Operation(builds=True), big=1))
        self.periodic()
        self.assert_all_on_offer()

    def test_what_the_tracker_forgets_is_kept_while_its_operation_is_under_way(self):
        for builds, recorded in ((True, False), (True, True), (False, True)):
            operation = Operation(builds=builds)
            self.assertTrue(self.claim(operation, all=EACH))
            operation.recorded, operation.tracked = recorded, False
            for _ in range(3):
                self.periodic()
                self.assertFalse(self.claim(Operation(builds=True), all=1))
            self.claim_in_ledger(operation)
            self.end(operation, told=True)
            self.assert_all_on_offer()

    def test_in_doubt_it_is_not_offered(self):
        operation = Operation(builds=False)
        self.assertTrue(self.claim(operation, all=EACH))
        operation.tracked = False
        with mock.patch.object(self, "read", side_effect=nova_exception.NovaException("no database")):
            self.periodic()
        self.assertFalse(self.claim(Operation(builds=True), all=1))

    def test_a_set_that_somebody_still_has_does_not_block_for_ever(self):
        operation = Operation(builds=False)
        self.assertTrue(self.claim(operation, all=EACH))
        kept = self.tracker.assigned_resources[self.node][CLASSES[1]]
        self.end(operation, told=False)
        self.periodic()
        self.assertEqual(EACH, len(kept))
        self.assertFalse(self.claim(Operation(builds=True), all=1))
        self.periodic()
        self.assert_all_on_offer()

    def test_what_the_ledger_has_since_the_last_update_is_not_offered(self):
        self.without = frozenset({"all0", "all1"})
        self.assertTrue(self.claim(Operation(builds=True), all=1))
        self.assertFalse(self.claim(Operation(builds=True), all=1))

    def test_nothing_is_offered_while_the_ledger_cannot_be_read(self):
        error = exception.LedgerError(path="ledger", reason="no disk", remedy="Try again.")
        with mock.patch.object(self.offers, "_pool", FakePool(mock.Mock(side_effect=error))):
            self.assertFalse(self.claim(Operation(builds=True), all=1))
        self.assertTrue(self.claim(Operation(builds=True), all=1))

    def test_what_is_claimed_by_another_between_count_and_pick_fails_the_claim(self):
        for count in (mock.patch.object(FakePool, "free", return_value=2 * EACH), _unreadable_after_the_count()):
            with count:
                self.assertFalse(self.claim(Operation(builds=True), all=EACH + 1))
            self.assert_all_on_offer()

    def test_what_was_found_after_the_last_update_is_not_picked(self):
        del self.offers._named[uuid_of("all0")]
        operation = Operation(builds=True)
        self.assertTrue(self.claim(operation, all=EACH - 1))
        self.assertNotIn("all0", operation.names)


def _unreadable_after_the_count():
    error = exception.LedgerError(path="ledger", reason="no disk", remedy="Try again.")
    return mock.patch.multiple(FakePool, free=mock.Mock(return_value=2 * EACH), next_free=mock.Mock(side_effect=error))


class ChoiceTest(test.NoDBTestCase):
    """The tracker picks what the pool would give to a claim."""

    #: name, NUMA node, and MiB
    NAMESPACES = (
        *(("small0", 0, 8), ("small1", 1, 4), ("small2", 1, 8)),
        *(("big0", 1, 16), ("big1", 0, 16), ("big2", 0, 12)),
    )

    def setUp(self):
        super().setUp()
        root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        for name, node, size in self.NAMESPACES:
            path = root / "pmem" / f"node{node}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, size << 20)
        options = cfg.ConfigOpts()
        conf.register_opts(options)
        options([], default_config_files=[])
        options.set_override("pmem_namespaces", ["ALL:small0|small1|small2", "BIG:big0|big1|big2"], group="libvirt")
        for name, value in {"discovery": "directory", "directory": str(root / "pmem")}.items():
            options.set_override(name, value, group="vpmem")
        options.set_override("state_path", str(root / "state"), group="vpmem")
        self.pool = Pool.from_conf(options, domains=Domains(None), wait=eventlet_poll.wait_here())
        self.addCleanup(self.pool.close)
        self.node = str(uuid.uuid4())
        tree = provider_tree.ProviderTree()
        tree.new_root("host", self.node)
        tree.update_resources(self.node, host.HostPool(self.pool, 1).resources(self.node))
        self.tracker = resource_tracker.ResourceTracker.__new__(resource_tracker.ResourceTracker)
        self.tracker.assigned_resources = collections.defaultdict(lambda: collections.defaultdict(set))
        self.tracker.provider_tree = tree

    def pick(self, **amounts):
        asked = {f"CUSTOM_PMEM_NAMESPACE_{label}": amount for label, amount in amounts.items()}
        picked = self.tracker._claim_resources({self.node: {"resources": asked}})
        return [resource.identifier for resource in picked]

    def test_one_is_what_a_claim_of_the_pool_gets(self):
        with self.pool._state.ledger.transaction():
            for row in self.pool._state.ledger.rows():
                self.pool._state.ledger.move(row, model.State.CLEAN, "made so")
        for name in ("small1", "small0", "small2"):
            (picked,) = self.pick(ALL=1)
            (grant,) = self.pool.claim(str(uuid.uuid4()), ["ALL"])
            self.assertEqual((name, name), (grant.name, picked))

    def test_all_of_one_claim_are_on_one_node_where_they_can_be(self):
        self.assertEqual(["small1", "big0"], self.pick(ALL=1, BIG=1))
        self.assertEqual(["small0", "big2", "big1"], self.pick(ALL=1, BIG=2))

    def test_the_next_claim_starts_anew(self):
        self.assertEqual(["small1"], self.pick(ALL=1))
        self.assertEqual(["big2"], self.pick(BIG=1))


class WalkTest(TrackerTestCase):
    """Any order of these events: nothing is handed out twice, and all is on offer in the end."""

    STEPS = 80

    def step(self, chance):
        operations = self.operations
        early = [operation for operation in operations if not operation.in_ledger]
        kind = chance.choice(("claim", "claim", "record", "ledger", "overlook", "periodic", "end", "end untold"))
        if kind == "claim":
            amounts = {name: chance.randint(0, EACH) for name in ("big", "all")}
            self.claim(
                Operation(builds=chance.random() < 0.5), **{name: amount for name, amount in amounts.items() if amount}
            )
        elif kind == "periodic":
            self.periodic()
        elif kind == "record" and operations:
            chance.choice(operations).recorded = True
        elif kind == "ledger" and early:
            self.claim_in_ledger(chance.choice(early))
        elif kind == "overlook" and early:
            chance.choice(early).tracked = False
        elif kind.startswith("end") and operations:
            self.end(chance.choice(operations), told=kind == "end")

    def test_walks(self):
        for seed in range(20):
            chance = random.Random(seed)
            for _ in range(self.STEPS):
                self.step(chance)
                self.assert_apart()
            for operation in list(self.operations):
                self.end(operation, told=chance.random() < 0.5)
            gc.collect()
            self.periodic()
            self.assert_all_on_offer()
