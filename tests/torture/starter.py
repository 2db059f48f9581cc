"""Starts processes, and tells them what to do."""

import dataclasses
import pathlib
import random

from tests.torture import actors
from tests.torture.facts import Facts
from tests.torture.plan import Plan, Task
from tests.torture.process import Process
from tests.torture.processes import Processes
from tests.torture.world import World


class Starter:
    """For one round.

    :ivar calm: what is started is asked for by the round itself: by the Python interface, and in no container
    :ivar contained: how likely a process is in a container
    """

    def __init__(
        self,
        directory: pathlib.Path,
        world: World,
        plan: Plan,
        facts: Facts,
        processes: Processes,
        rng: random.Random,
        *,
        contained: float,
    ) -> None:
        self._directory, self._world, self._plan, self._facts = directory, world, plan, facts
        self._processes, self._rng = processes, rng
        self.calm = True
        self.contained = contained

    def start_any(self) -> None:
        """Start what comes next, or nothing."""
        if self._plan.goal is not None:
            task = self._plan.towards_goal()
            if task is not None and task.do == "stray":
                self._start_guest(task)
            elif task is not None:
                self.start(task)
            return
        chance = 1.0 if self.contained else self._rng.random()  # guests are not seen from a container
        if chance < 0.15:
            tenures = self._plan.writable()
            self._start_guest(self._plan.write("guest", self._rng.choice(tenures)) if tenures else None)
        elif chance < (0.17 if self._plan.hot is None else 0.22) and not self._plan.has_stray():
            self._start_guest(self._plan.stray())
        else:
            self.start(self._plan.choose() if self._rng.random() < 0.2 else None)

    def start(self, task: Task | None, *, labels: bool = True) -> None:
        """Start a process: the command line if it can do `task`, else one that asks what to do."""
        contained = not self.calm and self._rng.random() < self.contained
        words = None if task is None or self.calm else self._plan.words(task)
        if words is None:
            pmem_namespaces = self._world.pmem_namespaces if labels else []
            process = self._processes.start(actors.api, pmem_namespaces, self._world.options, contained=contained)
            process.answer = task
        else:
            output = str(self._directory / f"output{self._processes.count}")
            process = self._processes.start(actors.cli, words, output, contained=contained)
            process.output = output
            self._ask(process, task)

    def _start_guest(self, task: Task | None) -> None:
        if task is not None:
            process = self._processes.start(actors.guest, task.path, task.inode, task.pattern, contained=False)
            self._ask(process, task)

    def answer(self, process: Process) -> object:
        """What a process that asks what to do is told; None for others, and when there is nothing more to do."""
        if process.at[:2] != ("fact", "next"):
            return None
        task, process.answer = process.answer, None
        if task is None and self._plan.goal is None and not self.calm and self._rng.random() < 0.7:
            task = self._facts.follow_up(self._rng) or self._plan.choose()
        if task is None:
            return None
        self._ask(process, task)
        return dataclasses.asdict(dataclasses.replace(task, tenures=[]))

    def _ask(self, process: Process, task: Task | None) -> None:
        """Have a process do something from now on."""
        process.task = task
        if task is not None:
            self._facts.ask(task, self._processes.now)
            self._processes.note(process, f"is to {task}")
