"""A running driver: the HostPool of nova-compute, with threads that handle instances and a periodic task.

Nova is needed for this one. The threads are eventlet's when the process was started so (:mod:`.process`).
"""

import random
import threading
import uuid as uuids
from collections.abc import Callable

from nova import exception as nova_exception
from nova import objects
from oslo_config import cfg

from vpmem_driver import conf
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import resource_class
from vpmem_driver.nova.decisions import Action
from vpmem_driver.nova.host import HostPool

from . import host
from .account import Account, Guest

PROVIDER = str(uuids.UUID(int=1))
#: How many times an instance is rebooted, listed and looked at before it is deleted.
STEPS = (20, 80)


def open_host_pool(where: host.Host) -> HostPool:
    options = cfg.ConfigOpts()
    conf.register_opts(options)
    options(["--config-file", str(where.config_file)], default_config_files=[])
    opened = HostPool.open(options, Domains(options.vpmem.connection_uri))
    assert opened is not None
    return opened


class Tracker:
    """What Nova's resource tracker does: picks under one lock, and remembers what is assigned."""

    def __init__(self, host_pool: HostPool) -> None:
        self._host_pool = host_pool
        self._lock = threading.Lock()
        self._assigned: dict[str, set[objects.Resource]] = {}

    def pick(self, label: str) -> objects.Resource | None:
        with self._lock:
            wanted = resource_class(label)
            assigned = self._assigned.setdefault(wanted, set())
            free = self._host_pool.resources(PROVIDER)[wanted] - assigned
            if not free:
                return None
            picked = free.pop()
            assigned.add(picked)
            return picked

    def give_back(self, resource: objects.Resource) -> None:
        with self._lock:
            self._assigned[resource.resource_class].discard(resource)


class DriverUser:
    """One of nova-compute's threads."""

    def __init__(
        self,
        host_pool: HostPool,
        tracker: Tracker,
        account: Account,
        rng: random.Random,
        stopped: Callable[[], bool],
    ) -> None:
        self._host_pool = host_pool
        self._tracker = tracker
        self._account = account
        self._rng = rng
        self._stopped = stopped

    def run(self) -> None:
        while not self._stopped():
            self._cycle()

    def _cycle(self) -> None:
        instance = objects.Instance(uuid=str(uuids.UUID(int=self._rng.getrandbits(128), version=4)))
        guest = Guest(self._account, instance.uuid)
        picked = None
        with self._account.operation("driver pick") as done:
            picked = self._tracker.pick(self._rng.choice(host.LABELS))
            done.refused = "" if picked else "none is free"
        if picked is None:
            return
        self._spawn(guest, instance, picked.identifier)
        if guest.held:
            for _ in range(self._rng.randint(*STEPS)):
                if self._stopped():
                    break
                self._rng.choice([self._reboot, self._reboot, self._list, self._update])(
                    guest, instance, picked.identifier
                )
            self._delete(guest, instance, picked.identifier)
        self._tracker.give_back(picked)

    def _spawn(self, guest: Guest, instance: objects.Instance, name: str) -> None:
        refusals = (nova_exception.ComputeResourcesUnavailable,)
        with self._account.operation("driver claim", guest.owner, refusals=refusals) as done:
            with self._host_pool.starts.start(guest.owner):
                grants = self._host_pool.claim(instance, [name], rebuilding=False)
            done.got = [grant.uuid for grant in grants]
            done.failed = "; ".join(filter(None, [guest.starts(grant.uuid, grant.device) for grant in grants]))

    def _reboot(self, guest: Guest, instance: objects.Instance, name: str) -> None:
        with self._account.operation("driver claim, held", guest.owner) as done:
            grants = self._host_pool.claim(instance, [name], rebuilding=False)
            done.kept = [grant.uuid for grant in grants]
            wrong = self._host_pool.not_held(instance, [grant.device for grant in grants if grant.device])
            done.failed = "; ".join(filter(None, [*map(guest.looks, guest.held), *wrong]))

    def _list(self, guest: Guest, instance: objects.Instance, _name: str) -> None:
        with self._account.operation("driver held", guest.owner) as done:
            done.kept = list(self._host_pool.held(instance))
            if done.kept != guest.held:
                done.failed = f"{guest.owner} has {guest.held} and is told {done.kept}"

    def _update(self, _guest: Guest, _instance: objects.Instance, _name: str) -> None:
        with self._account.operation("driver inventories"):
            self._host_pool.inventories()
            self._host_pool.not_free()

    def _delete(self, guest: Guest, instance: objects.Instance, name: str) -> None:
        given = guest.held
        wrong = [guest.leaves(uuid) for uuid in given]
        with self._account.operation("driver release", guest.owner) as done:
            self._host_pool.carry_out(Action.RELEASE, instance, [name])
            done.gave = given
            left = self._host_pool.held(instance)
            done.failed = "; ".join(filter(None, [*wrong, *(f"{uuid} is still held" for uuid in left)]))
            for uuid in given:
                guest.left(uuid)
