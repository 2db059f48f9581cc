"""What actors do in each scenario: two or three processes on two or three namespaces."""

import uuid

from tests.explore import world as worlds
from vpmem_driver import ledger
from vpmem_driver.engine import Engine
from vpmem_driver.model import State
from vpmem_driver.pool import Pool, labels, wipes

A, B, C = (str(uuid.UUID(int=number)) for number in (0xA, 0xB, 0xC))
NS = tuple(str(uuid.UUID(int=0x100 + number)) for number in range(3))


def open_pool(world, directory, names):
    """A pool as a process opens it, with the world's processes and no guests."""
    source = worlds.Source(tuple(worlds.namespace(NS[number], f"ns{number}") for number in range(names)))
    records = ledger.Ledger(directory)
    engine = Engine(source, parallel=1, threads=1, rate=0, wait=world.wait if world else None)
    wiper = wipes.Wiper(records, engine, source.find, worlds.NoDomains())
    config = labels.parse([f"L{number}:ns{number}" for number in range(names)])
    return Pool(config, source, records, wiper)


class Scenario:
    """Namespaces ns0, ns1, … under labels L0, L1, …, in the states that `before` says, and some actors."""

    #: state of each namespace at the start
    before: tuple[State, ...]
    #: namespaces that cannot be wiped
    bad: tuple[str, ...] = ()

    def actors(self):
        """Functions of a pool and the world, one for each process."""
        raise NotImplementedError

    @property
    def name(self):
        return type(self).__name__

    def prepare(self, directory):
        worlds.current = None
        pool = open_pool(None, directory, len(self.before))
        with pool._state.ledger.transaction():
            for number, state in enumerate(self.before):
                row = pool._state.ledger.row(NS[number])
                if state is not State.UNKNOWN:
                    pool._state.ledger.move(row, State.DIRTY, "prepared")
                if state is State.CLEAN:
                    pool._state.ledger.move(pool._state.ledger.row(NS[number]), State.CLEAN, "prepared")
        pool.close()

    def world(self, directory):
        made = worlds.World(directory, NS[: len(self.before)], bad=self.bad)
        for number, state in enumerate(self.before):
            if state is State.CLEAN:
                made.disk[NS[number]] = [worlds.ZERO] * worlds.BLOCKS
        return made

    def start(self, world):
        for act in self.actors():
            self._start(world, act.__name__, act)

    def finish(self, world):
        """At the end all that is unowned is wiped and claimed by a newcomer, who must find zeros."""
        self._start(world, "newcomer", newcomer)

    def _start(self, world, name, act):
        pool = open_pool(world, world.directory, len(self.before))

        def run():
            try:
                act(pool, world)
            except worlds.errors():
                pass
            except worlds.Broken as broken:
                world.main.throw(broken)

        world.ledgers[world.start(name, run)] = pool._state.ledger


def newcomer(pool, world):
    owner = str(uuid.UUID(int=0xF))
    pool.wipe(stop=worlds.Stop(world))
    for row in pool._state.ledger.rows():
        if row.owner is None and row.state is not State.QUARANTINED:
            try:
                claim_exact(pool, world, owner, [row.uuid])
            except worlds.errors():
                assert row.uuid in world.bad, "what nobody holds can be claimed in the end"


def claim(pool, world, owner, wanted):
    grants = pool.claim(owner, wanted, stop=worlds.Stop(world))
    for grant in grants:
        world.told(owner, grant.uuid, zeros=True)
    return grants


def claim_exact(pool, world, owner, uuids):
    grants = pool.claim_exact(owner, uuids, stop=worlds.Stop(world))
    for grant in grants:
        world.told(owner, grant.uuid, zeros=True)
    return grants


def use(world, owner, grants):
    for grant in grants:
        world.write(owner, grant.uuid)


def release(pool, world, owner, uuids):
    for uuid_ in uuids:
        world.released(uuid_)
    pool.release(owner, uuids)


class Wipes(Scenario):
    """One wipes; another wipes as well, hands out, is written to and released."""

    before = (State.DIRTY,)

    def actors(self):
        def wiper(pool, world):
            pool.wipe(stop=worlds.Stop(world))

        def tenant(pool, world):
            grants = claim(pool, world, A, ["L0"])
            use(world, A, grants)
            release(pool, world, A, [grant.uuid for grant in grants])

        return wiper, tenant


class CalledOff(Scenario):
    """A claim of a clean namespace and one that cannot be wiped; a second user of the owner writes to what is ready."""

    before = (State.CLEAN, State.DIRTY)
    bad = (NS[1],)

    def actors(self):
        return self.claimant, self.second_user

    @staticmethod
    def claimant(pool, world):
        use(world, A, claim(pool, world, A, ["L0", "L1"]))

    @staticmethod
    def second_user(pool, world):
        ready = [grant for grant in pool.grants(A) if grant.ready]
        for grant in ready:
            world.told(A, grant.uuid, zeros=False)
        use(world, A, ready)


class Joined(CalledOff):
    """The same on sound media: both may use it in the end."""

    bad = ()


class Retried(Scenario):
    """A claim, a retry of it by the same owner, and a wipe of all that is dirty by a third process."""

    before = (State.CLEAN, State.DIRTY)

    def actors(self):
        def claimant(pool, world):
            claim(pool, world, A, ["L0", "L1"])

        def retry(pool, world):
            claim_exact(pool, world, A, [NS[0], NS[1]])

        def wiper(pool, world):
            pool.wipe(stop=worlds.Stop(world))

        return claimant, retry, wiper


class Rivals(Scenario):
    """Two claims of the same namespaces in the opposite order."""

    before = (State.DIRTY, State.UNKNOWN)

    def actors(self):
        def one(pool, world):
            use(world, A, claim(pool, world, A, ["L0", "L1"]))

        def other(pool, world):
            use(world, B, claim(pool, world, B, ["L1", "L0"]))

        return one, other


class Restarted(Scenario):
    """An owner releases and adopts again, while another wipes and a third claims."""

    before = (State.UNKNOWN,)

    def actors(self):
        def owner(pool, world):
            pool.adopt(A, [NS[0]])
            world.told(A, NS[0], zeros=False)
            world.write(A, NS[0])
            release(pool, world, A, [NS[0]])
            kept = list(world.disk[NS[0]])
            pool.adopt(A, [NS[0]])
            world.told(A, NS[0], zeros=False)
            if world.disk[NS[0]] != kept:
                raise worlds.Broken(f"{A} adopted {kept}, and finds {world.disk[NS[0]]}")
            world.write(A, NS[0])

        def wiper(pool, world):
            pool.wipe(stop=worlds.Stop(world))

        def tenant(pool, world):
            use(world, B, claim(pool, world, B, ["L0"]))

        return owner, wiper, tenant


class Renewed(Scenario):
    """An owner starts anew on what it holds, while another process wipes."""

    before = (State.CLEAN, State.CLEAN)

    def actors(self):
        def owner(pool, world):
            uuids = [grant.uuid for grant in claim(pool, world, A, ["L0", "L1"])]
            for uuid_ in uuids:
                world.write(A, uuid_)
            for uuid_ in uuids:
                world.released(uuid_)
            pool.renew(A)
            claim_exact(pool, world, A, uuids)

        def wiper(pool, world):
            pool.wipe(stop=worlds.Stop(world))

        return owner, wiper


class Cancelled(Scenario):
    """A claim that its owner's deletion releases in the middle, and a rival that waits for the namespaces."""

    before = (State.UNKNOWN, State.CLEAN)

    def actors(self):
        def claimant(pool, world):
            claim(pool, world, A, ["L0", "L1"])

        def deletion(pool, world):
            world.deleted.add(A)
            world.released(NS[0])
            world.released(NS[1])
            pool.release(A)

        def rival(pool, world):
            use(world, B, claim(pool, world, B, ["L1"]))

        return claimant, deletion, rival


class Moved(Scenario):
    """An owner's content goes to another namespace, is begun again by a second process, and others want that one."""

    before = (State.UNKNOWN, State.DIRTY)
    copy = "00c0ffee"

    def prepare(self, directory):
        super().prepare(directory)
        pool = open_pool(None, directory, len(self.before))
        pool.adopt(A, [NS[0]])
        pool.close()

    def world(self, directory):
        made = super().world(directory)
        made.told(A, NS[0], zeros=False)
        made.write(A, NS[0])
        return made

    def actors(self):
        return self.mover, self.mover_again, self.tenant

    def move(self, pool, world):
        """Copy, tell the owner, and release what it had, unless another process was first."""
        (row,) = pool.copies.depart(A, self.copy, [NS[0]])
        source = pool._state.view.grant(row)
        pool.copies.expect_exact(A, self.copy, [NS[1]], [source])
        pool.copies.copy(self.copy, NS[0], NS[1], on_progress=lambda event: None, stop=worlds.Stop(world))
        content = [f"secret of {A}"] * worlds.BLOCKS
        if world.disk[NS[1]] != content:
            raise worlds.Broken(f"{A} is told that its content has arrived, and finds {world.disk[NS[1]]}")
        world.told(A, NS[1], zeros=False)
        world.written[NS[1]] = content
        release(pool, world, A, [NS[0]])

    def mover(self, pool, world):
        self.move(pool, world)

    def mover_again(self, pool, world):
        self.move(pool, world)

    @staticmethod
    def tenant(pool, world):
        use(world, B, claim(pool, world, B, ["L1"]))


class Abandoned(Moved):
    """The move is given up by another process at some moment, and what has arrived is wiped and handed out."""

    def actors(self):
        return self.mover, self.quitter

    def mover(self, pool, world):
        (row,) = pool.copies.depart(A, self.copy, [NS[0]])
        source = pool._state.view.grant(row)
        pool.copies.expect_exact(A, self.copy, [NS[1]], [source])
        pool.copies.copy(self.copy, NS[0], NS[1], on_progress=lambda event: None, stop=worlds.Stop(world))

    def quitter(self, pool, world):
        """Nobody was told of the destination, so it may go whatever its state."""
        pool.copies.abandon(A, self.copy)
        pool.copies.stay(A)
        use(world, B, claim(pool, world, B, ["L1"]))


SCENARIOS = (Moved, Abandoned, Wipes, CalledOff, Joined, Retried, Rivals, Restarted, Renewed, Cancelled)
