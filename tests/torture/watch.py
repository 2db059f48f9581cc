"""Has the checker look at what a process has done since its last point."""

import random

from tests.torture.checker import Checker, Step
from tests.torture.process import Process
from tests.torture.processes import Processes
from tests.torture.world import World, is_zero

#: How often the medium loses a zero of what was just zeroed.
LOST_ZERO = 0.12


class Watch:
    """For one round."""

    def __init__(self, world: World, checker: Checker, processes: Processes, rng: random.Random) -> None:
        self._world, self._checker, self._processes, self._rng = world, checker, processes, rng

    def look(self, process: Process, *, calm: bool) -> None:
        """Look after a step of a process that has come to a point. Where nobody could see it, nothing is looked at."""
        committed = process.at[2].get("committed", False) or process.at[0] == "fact"
        writes = process.role in {"child", "guest"} or (process.task is not None and process.task.do == "write")
        if not committed and not writes:
            return
        before = {namespace: namespace.content for namespace in self._world.namespaces}
        changed = self._checker.check(self._step_of(process), ledger=committed)
        if process.at[2].get("durable"):
            self._checker.note_durable()
            self._world.note_durable_ledger()
        if process.role == "child" and not calm and self._rng.random() < LOST_ZERO:
            for namespace in changed:
                if not is_zero(before[namespace]) and is_zero(namespace.content):
                    self._processes.note(process, f"zeroed {namespace.name}, and the medium loses one")
                    self._world.lose_a_zero(namespace)

    def look_at_last(self, process: Process) -> None:
        """Look after the last step of a process, which has ended."""
        self._checker.check(self._step_of(process))

    def _step_of(self, process: Process) -> Step:
        """What a process may do until its next point."""
        writes = None
        if process.task is not None and process.task.do in {"write", "guest"}:
            writes = (process.task.inode, process.task.pattern.encode())
        doing = f" ({process.task})" if process.task is not None else ""
        mapped = process.mapped & self.mapped()
        return Step(f"{process}{doing}", wipes=process.role == "child", mapped=mapped, writes=writes)

    def mapped(self) -> frozenset[int]:
        """What guests have mapped now."""
        tasks = [process.task for process in self._processes]
        return frozenset(task.inode for task in tasks if task is not None and task.mapped)
