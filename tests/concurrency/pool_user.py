"""A process whose threads share one pool: claim, write, release, adopt, wipe, list."""

import random
import uuid as uuids
from collections.abc import Callable

from vpmem_driver import conf, exception
from vpmem_driver.engine import Outcome
from vpmem_driver.pool import Pool

from . import host
from .account import Account, Guest, Operation

#: How many steps an owner takes between its claim and its release: as few claims as that, as each costs a wipe.
STEPS = (150, 450)


#: How often it wipes after a release, rather than to leave that to the next claim or to a driver.
WIPE_CHANCE = 0.2


def open_pool(where: host.Host) -> Pool:
    return Pool.from_conf(conf.read([str(where.config_file)]))


class PoolUser:
    """One thread."""

    def __init__(self, pool: Pool, account: Account, rng: random.Random, stopped: Callable[[], bool]) -> None:
        self._pool = pool
        self._account = account
        self._rng = rng
        self._stopped = stopped
        self._uuids = [record.uuid for record in pool.records()]
        #: how often each step is taken: often what is short, seldom what leads to a wipe
        self._steps: dict[Callable[[Guest], None], float] = {
            self._release_and_adopt: 20,
            self._claim_held: 20,
            self._records: 10,
            self._inventory: 10,
            self._release_of_another: 6,
            self._write: 6,
            self._grants: 3,
            self._reconcile: 1,
            self._claim_more: 0.3,
        }

    def run(self) -> None:
        self._wipe()  # a short run may end before the first cycle does
        while not self._stopped():
            self._cycle()

    def _cycle(self) -> None:
        guest = Guest(self._account, str(uuids.UUID(int=self._rng.getrandbits(128), version=4)))
        wanted = self._rng.choices(host.LABELS, k=self._rng.choice((1, 1, 1, 2)))
        refusals = (exception.InsufficientNamespaces, exception.NamespaceInUse)
        with self._account.operation("claim", guest.owner, refusals=refusals) as done:
            self._begin(guest, done, self._pool.claim(guest.owner, wanted))
        if guest.held:
            for _ in range(self._rng.randint(*STEPS)):
                if not guest.held or self._stopped():
                    break
                (step,) = self._rng.choices(list(self._steps), list(self._steps.values()))
                step(guest)
        if guest.held:
            self._release(guest, guest.held)
        if self._rng.random() < WIPE_CHANCE:
            self._wipe()

    @staticmethod
    def _begin(guest: Guest, done: Operation, grants) -> None:
        done.got = [grant.uuid for grant in grants]
        wrong = [guest.starts(grant.uuid, grant.device) for grant in grants]
        done.failed = "; ".join(filter(None, wrong))

    def _release(self, guest: Guest, given: list[str]) -> None:
        wrong = [guest.leaves(uuid) for uuid in given]
        with self._account.operation("release", guest.owner) as done:
            done.failed = "; ".join(filter(None, wrong))
            self._pool.release(guest.owner, given)
            done.gave = given
            for uuid in given:
                guest.left(uuid)

    def _release_and_adopt(self, guest: Guest) -> None:
        given = self._rng.choice(guest.held)
        self._release(guest, [given])
        refusals = (exception.NotOwner, exception.NamespaceUnavailable)
        with self._account.operation("adopt", guest.owner, refusals=refusals) as done:
            self._pool.adopt(guest.owner, [given])
            done.got = [given]
            done.failed = guest.comes_back(given)

    def _claim_held(self, guest: Guest) -> None:
        with self._account.operation("claim_exact, held", guest.owner) as done:
            self._pool.claim_exact(guest.owner, guest.held)
            done.kept = guest.held
            done.failed = "; ".join(filter(None, map(guest.looks, guest.held)))

    def _claim_more(self, guest: Guest) -> None:
        """Claim a namespace that is probably another's; a free one in some cases."""
        chosen = self._rng.choice(self._uuids)
        if chosen in guest.held:
            return
        refusals = (exception.NamespaceUnavailable, exception.NamespaceInUse)
        with self._account.operation("claim_exact", guest.owner, refusals=refusals) as done:
            self._begin(guest, done, self._pool.claim_exact(guest.owner, [chosen]))

    def _write(self, guest: Guest) -> None:
        guest.writes(self._rng.choice(guest.held))

    def _grants(self, guest: Guest) -> None:
        with self._account.operation("grants", guest.owner) as done:
            done.kept = [grant.uuid for grant in self._pool.grants(guest.owner)]
            if done.kept != guest.held:
                done.failed = f"{guest.owner} has {guest.held} and is told {done.kept}"

    def _records(self, _guest: Guest) -> None:
        with self._account.operation("records") as done:
            record = self._rng.choice(self._pool.records())
            done.seen = [record.uuid, record.state, record.owner]

    def _inventory(self, _guest: Guest) -> None:
        with self._account.operation("inventory") as done:
            totals = {inventory.label: inventory.total for inventory in self._pool.inventory()}
            if len(set(totals.values())) != 1:
                done.failed = f"the labels have the same number of namespaces, and the inventory has {totals}"

    def _release_of_another(self, guest: Guest) -> None:
        """It is refused, unless it is by chance this owner's own."""
        chosen = self._rng.choice(self._uuids)
        if chosen in guest.held:
            return
        with self._account.operation("release, refused", guest.owner, refusals=(exception.NotOwner,)) as done:
            self._pool.release(guest.owner, [chosen])
            done.failed = f"{chosen} was released for {guest.owner}, which did not hold it"

    def _reconcile(self, _guest: Guest) -> None:
        with self._account.operation("reconcile"):
            self._pool.reconcile()

    def _wipe(self) -> None:
        """Wipe one that is dirty, or try to wipe one that is held."""
        dirty = self._pool.maintenance.dirty()
        chosen = self._rng.choice(dirty or [record.uuid for record in self._pool.records()])
        with self._account.operation("wipe", refusals=(exception.NamespaceClaimed,)) as done:
            results = self._pool.wipe([chosen])
            done.wiped = [result.uuid for result in results if result.outcome is Outcome.WIPED]
            done.refused = ", ".join(
                result.outcome.name for result in results if result.outcome in {Outcome.IN_USE, Outcome.STOPPED}
            )
            done.failed = ", ".join(
                result.reason
                for result in results
                if result.outcome not in {Outcome.WIPED, Outcome.IN_USE, Outcome.STOPPED}
            )
