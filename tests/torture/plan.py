"""Chooses what processes do next: what owners, operators and guests of a real host do, and what they should not do."""

import dataclasses
import random

from tests.torture.checker import Checker, Row, Tenure
from tests.torture.world import World, is_zero, pattern

#: How often something is done to the hot namespace.
HOT = 0.8


@dataclasses.dataclass(eq=False)
class Task:
    """What one process was asked to do.

    :ivar mapped: a guest that has its namespace mapped by now
    :ivar strange: when it mapped the namespace, nobody had that, nor was it reserved, and no wipe had begun: the
        package looks for users of a clean one when it is claimed, and of another one before and after its wipe
    :ivar stopped: its process is stopped
    :ivar mark: the last line of the history at that time
    :ivar tenures: what the owner had at that time, as far as this is about it
    :ivar since: the controller's time then
    """

    do: str
    owner: str = ""
    uuids: list[str] | None = None
    labels: list[str] = dataclasses.field(default_factory=list)
    path: str = ""
    inode: int = 0
    pattern: str = ""
    mapped: bool = False
    strange: bool = False
    stopped: bool = False
    mark: int = 0
    tenures: list[Tenure] = dataclasses.field(default_factory=list)
    since: float = 0.0

    def covers(self, uuid: str) -> bool:
        return self.uuids is None or uuid in self.uuids

    def __str__(self) -> str:
        words = [self.do, self.owner[:8], ",".join(self.labels), ",".join(uuid[:8] for uuid in self.uuids or ())]
        return " ".join(word for word in words if word)


class Plan:
    """One round's owners, and what they do."""

    def __init__(self, world: World, checker: Checker, rng: random.Random) -> None:
        self._world, self._checker, self._rng = world, checker, rng
        self.owners = [f"{number:08d}-{rng.getrandbits(16):04x}-4000-8000-000000000000" for number in range(1, 4)]
        self.devices: dict[tuple[str, str], str] = {}
        self._patterns = 0
        self.running: list[Task] = []
        #: what a stopped process is about: what others do to it meanwhile shows whether the stopped one still may
        self.hot: str | None = None
        #: what others are to do to that one, when the stopped one is in a trap
        self.goal: str | None = None

    # What goes on

    def _pending(self, owner: str, *kinds: str) -> list[Task]:
        return [task for task in self.running if task.owner == owner and task.do in kinds]

    def may_end(self, tenure: Tenure) -> bool:
        """Whether a process was asked to give up this tenure, or may call off a claim of which nobody was told."""
        if any(task.covers(tenure.uuid) for task in self._pending(tenure.owner, "release", "renew")):
            return True
        return not tenure.told and bool(self._pending(tenure.owner, "claim", "claim_exact"))

    def may_begin(self, owner: str, _uuid: str) -> bool:
        return owner in self.owners

    def may_adopt(self, owner: str, uuid: str) -> bool:
        return any(task.covers(uuid) for task in self._pending(owner, "adopt"))

    def _is_used(self, owner: str, uuid: str | None = None) -> bool:
        """Whether something writes for this owner now."""
        return any(uuid is None or task.uuids == [uuid] for task in self._pending(owner, "write", "guest"))

    def stranger_in(self, uuid: str, task: Task) -> Task | None:
        """A guest that has had this namespace mapped since before it was reserved for `task`, without holding it."""
        tenure = self._checker.tenure(uuid)
        if tenure is None or tenure.adopted or tenure in task.tenures:
            return None
        return next((other for other in self.running if other.strange and other.uuids == [uuid]), None)

    def note_mapped(self, task: Task) -> None:
        """A guest has its namespace mapped now."""
        task.mapped = True
        row = self._checker.rows.get((task.uuids or [""])[0])
        task.strange = task.do == "stray" and row is not None and row.owner is None and not row.begun

    # What next

    def favourite(self) -> str | None:
        """One that is there: in a round with a trap most is done to the same, so that somebody comes by."""
        return next((row.uuid for row in self._checker.present()), None)

    def has_stray(self) -> bool:
        return any(task.do == "stray" for task in self.running)

    def stray_has_mapped(self, uuid: str | None) -> bool:
        return any(task.do == "stray" and task.mapped and task.uuids == [uuid] for task in self.running)

    def stray(self) -> Task | None:
        """A guest of nobody, started from an old definition; it writes nothing."""
        free = [row for row in self._checker.rows.values() if row.state != "claimed"]
        if not free:
            return None
        hot = [row for row in free if row.uuid == self.hot]
        if self.goal != "stray" and self._rng.random() < 0.5:
            # Those that nobody is about to get, best the clean ones: the wipe of others is refused first.
            unowned = [row for row in free if row.owner is None]
            hot = [row for row in unowned if row.state == "clean"] or unowned
        row = self._rng.choice(sorted(hot or free, key=lambda row: row.name))
        namespace = self._checker.namespace(row.uuid)
        if namespace is None:
            return None
        return Task("stray", "", [row.uuid], path=str(namespace.path), inode=namespace.inode)

    def writable(self) -> list[Tenure]:
        """What owners were told that they have, of which nobody was asked to take it, and to which nothing writes."""
        return [
            tenure
            for tenure in self._checker.tenures()
            if tenure.told
            and (tenure.owner, tenure.uuid) in self.devices
            and not self._is_used(tenure.owner, tenure.uuid)
            and not any(task.covers(tenure.uuid) for task in self._pending(tenure.owner, "release", "renew"))
        ]

    def write(self, do: str, tenure: Tenure) -> Task | None:
        """An owner's write to what it has."""
        namespace = self._checker.namespace(tenure.uuid)
        if namespace is None:
            return None
        self._patterns += 1
        name = pattern(f"o{self.owners.index(tenure.owner) + 1}:{namespace.name}:{self._patterns}", 16).decode()
        path = self.devices[tenure.owner, tenure.uuid]
        return Task(do, tenure.owner, [tenure.uuid], path=path, inode=namespace.inode, pattern=name)

    def towards_goal(self) -> Task | None:
        """What others are to do to the namespace of the one in the trap; None while somebody is at it."""
        at_it = [task.do for task in self.running if task.uuids == [self.hot] and not task.stopped]
        if self.hot is None or (at_it if self.goal == "round" else self.goal in at_it):
            return None
        return self.stray() if self.goal == "stray" else self._next(self.hot)

    def choose(self) -> Task:
        """Something to do, now."""
        used = next((task.uuids[0] for task in self.running if task.strange and task.uuids), None)
        if used is not None and self._rng.random() < 0.1:
            return Task("claim_exact", self._owner(), [used])
        if self.hot is not None and self._rng.random() < HOT:
            task = self._next(self.hot)
            if task is not None:
                return task
        rows = self._checker.rows.values()
        held = self._checker.tenures()
        free = [row for row in rows if row.owner is None and row.state != "quarantined"]
        dirty = [row for row in rows if row.state == "dirty"]
        unknown = [row for row in rows if row.state == "unknown"]
        weights = {
            "claim": 6 if free else 1,
            "release": 5 if self._holding() else 0,
            "wipe": 4 if dirty or unknown else 1,
            "write": 4 if self.writable() else 0,
            "grants": 2 if held else 0,
            "claim_exact": 1,
            "adopt": 2,
            "renew": 1 if held else 0,
            "stranger": 1 if held else 0,
            "look": 0.5,
        }
        while True:
            do = self._rng.choices(list(weights), list(weights.values()))[0]
            task = getattr(self, f"_{do}")()
            if task is not None:
                return task

    def _next(self, uuid: str) -> Task | None:
        """What takes this namespace one step further around its life."""
        row = self._checker.rows.get(uuid)
        tenure = self._checker.tenure(uuid)
        if row is None or row.state == "quarantined":
            return None
        return self._next_of_free(row) if tenure is None else self._next_of_held(tenure)

    def _next_of_free(self, row: Row) -> Task:
        if row.state != "dirty":
            return Task("claim_exact", self._owner(), [row.uuid])
        left = self._checker.lives[row.uuid].left
        likely = {"adopt": 1.0, "round": 0.0}.get(self.goal or "", 0.25)
        if left is not None and self._rng.random() < likely:
            return Task("adopt", left[0], [row.uuid])
        return Task("wipe", "", [row.uuid])

    def _next_of_held(self, tenure: Tenure) -> Task | None:
        if self._is_used(tenure.owner):
            return None
        if not tenure.told:
            return Task("grants", tenure.owner)
        namespace = self._checker.namespace(tenure.uuid)
        if tenure in self.writable() and namespace is not None and is_zero(namespace.content):
            return self.write("write", tenure)
        return Task("release", tenure.owner, [tenure.uuid])

    def _owner(self, *, holding: bool = False) -> str:
        return self._rng.choice((self._holding() if holding else []) or self.owners)

    def _holding(self) -> list[str]:
        """The owners of what is claimed or reserved."""
        rows = sorted(self._checker.rows.values(), key=lambda row: row.name)
        return [row.owner for row in rows if row.owner is not None]

    def _claim(self) -> Task:
        labels = [self._rng.choice(self._world.labels) for _ in range(self._rng.choice([1, 1, 1, 2, 2, 3]))]
        return Task("claim", self._owner(), labels=labels)

    def _some(self, uuids: list[str]) -> list[str]:
        return self._rng.sample(uuids, self._rng.choice([1, 1, min(2, len(uuids))]))

    def _uuids(self) -> list[str]:
        return sorted(self._checker.rows, key=self._checker.name)

    def _claim_exact(self) -> Task:
        return Task("claim_exact", self._owner(), self._some(self._uuids()))

    def _adopt(self) -> Task:
        """Mostly by the owner that had it last, of what is not wiped yet."""
        lives = self._checker.lives
        left = [uuid for uuid in self._uuids() if lives[uuid].left is not None and lives[uuid].state == "dirty"]
        uuid = self._rng.choice(left if left and self._rng.random() < 0.7 else self._uuids())
        its = lives[uuid].left
        return Task("adopt", its[0] if its is not None and self._rng.random() < 0.7 else self._owner(), [uuid])

    def _release(self) -> Task | None:
        owner = self._owner(holding=True)
        using = self._pending(owner, "write", "guest")
        if not all(task.mapped for task in using) or (using and self._rng.random() < 0.8):
            return None  # what has yet to begin would write to what was released
        mine = [uuid for uuid in self._uuids() if (t := self._checker.tenure(uuid)) is not None and t.owner == owner]
        return Task("release", owner, None if not mine or self._rng.random() < 0.6 else self._some(mine))

    def _renew(self) -> Task | None:
        owner = self._owner(holding=True)
        return None if self._is_used(owner) else Task("renew", owner)

    def _stranger(self) -> Task | None:
        """Somebody asks to take or wipe what another holds: to be refused."""
        tenure = self._rng.choice(self._checker.tenures())
        others = [owner for owner in self.owners if owner != tenure.owner]
        do = self._rng.choice(["release", "adopt", "claim_exact", "wipe"])
        return Task(do, "" if do == "wipe" else self._rng.choice(others), [tenure.uuid])

    def _grants(self) -> Task:
        return Task("grants", self._owner(holding=True))

    def _write(self) -> Task | None:
        tenures = self.writable()
        return self.write("write", self._rng.choice(tenures)) if tenures else None

    def _wipe(self) -> Task:
        if self._rng.random() < 0.5:
            return Task("wipe", "", None)
        asked = [row.uuid for row in self._checker.rows.values() if row.state in {"unknown", "quarantined"}]
        return Task("wipe", "", self._some(asked if asked and self._rng.random() < 0.5 else self._uuids()))

    def _look(self) -> Task:
        return Task("look")

    def words(self, task: Task) -> list[str] | None:
        """The same by the command line; None where that has no such command."""
        before = ["-m", "vpmem_driver.cli.main", "--debug", "--config-file", str(self._world.config_path)]
        named = [word for uuid in task.uuids or () for word in ("--namespace", uuid)]
        match task.do:
            case "claim":
                words = ["claim", task.owner, ",".join(task.labels)]
            case "adopt":
                words = ["adopt", task.owner, *(task.uuids or ())]
            case "release":
                words = ["release", task.owner, *named, *self._rng.choice([[], ["--wait"]])]
            case "wipe":
                words = ["wipe", *named]
            case "look":
                words = ["namespace", "list"]
            case _:
                return None
        return [*before, *words, "-f", "json"]
