"""What befalls a process at a point: it goes on, is killed or stopped there, or falls into the trap of its round.

A *trap* is set where a process knows something that is not so any more when others have done this and that: it stands
still until they have. Kills and stops at random find the rest.
"""

import dataclasses
import math
import random

from tests.torture.checker import Checker
from tests.torture.process import Process, Stall
from tests.torture.world import is_zero

#: What a kill or a stop at one point is as likely as, on average; each round prefers some points to others.
KILL, STOP = 0.006, 0.004
#: How much more often a process that wipes is stopped: others then meet its lock, or do what it was to do.
CHILD_STOPS = 4
#: How much more often a process that wipes is killed, when its parent has yet to hear what it has said, and else.
WORD_KILLS, CHILD_KILLS = 5, 2
#: How much the preference of a round differs from point to point.
SPREAD = 1.2
LINES, INTERRUPT, POWER_LOSS = 0.002, 0.0006, 0.001
#: How much more often power is lost while the disk does not know of a wipe that has begun.
WIPE_POWER_LOSSES = 50
MOST_LINES = 80
#: In one round of so many some are killed by the clock, between two points: such a round is not repeated exactly.
BY_CLOCK, MOST_CLOCK_SECONDS = 10, 0.002
#: How likely a trap catches who comes by.
CATCHES = 0.5
#: Who was caught goes on in any case when others have ended so many tasks, or taken so many steps, or so much time.
TRAP_TASKS, TRAP_STEPS, TRAP_SECONDS = 12, 600, 60.0


@dataclasses.dataclass(frozen=True)
class Trap:
    """One kind of trap.

    :ivar goal: what others do to the namespace meanwhile. "round": it is wiped, handed out and written to, and perhaps
        released; "adopt": its last owner asks for it; "stray": a guest maps it that does not hold it
    :ivar points: where it is set, by how they begin
    :ivar child: they are those of a process that wipes, not of its parent
    :ivar kills: that process is killed, and its parent stands still: it has yet to hear what the dead one has said
    :ivar contained: all are in containers, where who has the device open cannot be seen; None: by chance
    """

    goal: str
    points: tuple[str, ...]
    child: bool = True
    kills: bool = False
    contained: bool | None = None

    def fits(self, process: Process, checker: Checker) -> bool:
        """Whether this process may be caught, where it is now."""
        victim = process.parent if self.kills else process
        if (process.role == "child") != self.child or not process.at[1].startswith(self.points) or victim is None:
            return False
        if victim.role == "guest" or victim.stalls or victim.holds_lock or process.uuid is None:
            return False
        if self.kills and not victim.waits:
            return False
        row, life = checker.rows.get(process.uuid), checker.lives.get(process.uuid)
        if row is None or life is None:
            return False
        if self.goal == "adopt":
            left = life.left
            return row.state == "dirty" and row.owner is None and left is not None and not is_zero(left[1])
        return row.state == "dirty"


TRAPS = (
    Trap("round", ("after read go", "before mmap write", "after mmap write", "before fdatasync"), contained=True),
    Trap("round", ("after write wiped",), kills=True),
    Trap("round", ("after write progress",), kills=True),
    Trap("adopt", ("after fdatasync", "after write progress")),
    Trap("adopt", ("after read ready",), child=False),
    Trap("stray", ("after read ready",), child=False, contained=False),  # guests are not seen from there
)


class Fate:
    """Chooses, for one round."""

    def __init__(self, seed: int, rng: random.Random, checker: Checker) -> None:
        self._seed, self._rng, self._checker = seed, rng, checker
        self._weights: dict[str, tuple[float, float]] = {}
        # Where nobody is killed for long, others get round; where many are, all sorts of remains meet.
        self._kills, self._stops = rng.choice([0.2, 0.5, 1.0, 1.5]), rng.choice([0.5, 1.0, 2.0])
        self._lines, self._power_loss = LINES, POWER_LOSS
        self.trap = TRAPS[seed // 2 % len(TRAPS)] if seed % 2 else None
        if self.trap is not None:
            self._kills = self._stops = 0.1
            self._lines = self._power_loss = 0.0

    def loses_power(self) -> bool:
        """Whether the host loses power now."""
        more = 1 if self._checker.has_lasting_wipes() else WIPE_POWER_LOSSES
        return self._rng.random() < self._power_loss * more

    def decide(self, process: Process, *, quiet: bool) -> tuple[str, int | None]:
        """What is done to a process that is at a point.

        :param quiet: somebody is in the trap: nothing befalls the others
        """
        kind, name, _ = process.at
        if kind not in {"point", "wait", "hello", "spawned"}:
            return "go", None
        if name == "guest runs" and process.stalls < 3 and (quiet or self._rng.random() < 0.7):
            return "stop", None
        if quiet:
            return "go", None
        if self.trap is not None and self.trap.fits(process, self._checker) and self._rng.random() < CATCHES:
            return "trap", None
        chance = self._rng.random()
        for do, likely in self._likely(process):
            if chance < likely:
                return do, self._rng.randint(1, MOST_LINES) if do == "lines" else None
            chance -= likely
        return "go", None

    def holds_back(self, process: Process) -> bool:
        """Whether it waits until its parent has heard what it has said: then what it says next is all that is left."""
        parent = process.parent
        if self.trap is None or not self.trap.kills or process.role != "child" or parent is None:
            return False
        before, _, act = process.at[1].partition(" ")
        says = before == "before" and f"after {act}".startswith(self.trap.points)
        return says and not parent.ended and parent.stalled is None and (not parent.waits or parent.stale)

    def _likely(self, process: Process) -> list[tuple[str, float]]:
        """What may befall it, and how likely."""
        kind, name, _ = process.at
        kill, stop = self._weight(f"{process.role}: {name}")
        if process.role == "child":
            kill *= WORD_KILLS if name.startswith("after write") else CHILD_KILLS
            stop *= CHILD_STOPS * (1 + process.goes)
        if process.holds_lock:
            stop = 0.0  # all that others could do is wait for it
        likely = [("kill", kill), ("stop", stop)]
        if process.role != "guest":
            likely.append(("lines", self._lines))
        if self._seed % BY_CLOCK == 0 and name != "before start of a process":
            likely.append(("clock", self._lines))
        if process.role in {"api", "cli"} and kind == "point":
            likely.append(("interrupt", INTERRUPT))
        return likely

    def _weight(self, point: str) -> tuple[float, float]:
        """How likely a kill and a stop are at a point, in this round."""
        if point not in self._weights:
            rng = random.Random(f"{self._seed} {point}")
            kill, stop = (
                KILL * self._kills * math.exp(rng.gauss(0, SPREAD)),
                STOP * self._stops * math.exp(rng.gauss(0, SPREAD)),
            )
            self._weights[point] = min(kill, 0.5), min(stop, 0.5)
        return self._weights[point]

    def stall(self, ended: int, now: float, process: Process) -> Stall:
        """For how long a process that is stopped stands still."""
        tasks = self._rng.choice([self._rng.randint(1, 4), self._rng.randint(5, 20)])
        state = None if process.uuid is None else self._rng.choice([None, "claimed", "dirty", "dirty"])
        until = now + tasks * self._rng.uniform(0.5, 5)
        return Stall(ended + tasks, until, self._checker.last_line, state)

    def catch(self, ended: int, now: float, steps: int) -> Stall:
        """For how long a process that is in the trap stands still."""
        assert self.trap is not None
        state = self._rng.choice(["claimed", "dirty"]) if self.trap.goal == "round" else None
        if self.trap.kills:
            state = "dirty"  # what it has yet to hear is about a dirty one
        return Stall(
            ended + TRAP_TASKS,
            now + TRAP_SECONDS,
            self._checker.last_line,
            state,
            self.trap.goal,
            steps + TRAP_STEPS,
        )
