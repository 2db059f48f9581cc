"""Depth-first search over all choices of who runs next, within a bound of preemptions and of crashes.

The search keeps nothing but the choices of one execution: each execution starts anew and follows them. To let the
running actor continue costs nothing, nor does a switch when it waits; to take the turn away from it is a preemption.
The bound is that of CHESS (Musuvathi and Qadeer, PLDI 2007): few defects need more than two preemptions.
"""

import dataclasses
import pathlib
import shutil
import tempfile
import time

from tests.explore import world as worlds

MOST_STEPS = 3000


@dataclasses.dataclass
class Report:
    """What a search has done. `complete` says whether it has tried all within the bound."""

    executions: int = 0
    steps: int = 0
    complete: bool = False
    failure: str | None = None
    trace: tuple[str, ...] = ()
    seconds: float = 0.0


def explore(scenario, *, preemptions, crashes, deadline):
    """Try all executions of `scenario` within the bounds, until one breaks an invariant or the deadline is over."""
    report, begun = Report(), time.monotonic()
    root = pathlib.Path(tempfile.mkdtemp(prefix="vpmem-explore-", dir="/dev/shm"))
    try:
        template = root / "template"
        scenario.prepare(template)
        path: list[list[int]] = []  # number of options and which was taken, for each choice
        while time.monotonic() < deadline:
            run = _Execution(scenario, template, root / "run", path, preemptions, crashes)
            run.go()
            report.executions += 1
            report.steps += run.steps
            if run.failure is not None:
                report.failure, report.trace = run.failure, tuple(run.trace)
                break
            path = run.path
            while path and path[-1][1] + 1 == path[-1][0]:
                path.pop()
            if not path:
                report.complete = True
                break
            path[-1][1] += 1
    finally:
        worlds.current = None
        shutil.rmtree(root)
        report.seconds = time.monotonic() - begun
    return report


class _Execution:
    """One execution: follows `path` as far as it goes, and takes the first option after that."""

    def __init__(self, scenario, template, directory, path, preemptions, crashes):
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(template, directory)
        self.path = [list(choice) for choice in path]
        self.steps = 0
        self.trace = []
        self.failure = None
        self._position = 0
        self._preemptions, self._crashes = preemptions, crashes
        self._scenario = scenario
        self._world = worlds.current = scenario.world(directory)

    def go(self):
        world = self._world
        try:
            self._scenario.start(world)
            self._run(choosing=True)
            self._scenario.finish(world)
            self._run(choosing=False)
        except worlds.Broken as broken:
            self.failure = str(broken)
        finally:
            world.current = None
            world.close()

    def _run(self, *, choosing):
        world, last = self._world, None
        while True:
            unfinished = [actor for actor in world.actors if not actor.done and not actor.killed]
            main = [actor for actor in unfinished if not actor.is_child]
            runnable = [actor for actor in unfinished if actor.runnable]
            if not main and not runnable:
                return
            if not runnable:
                raise worlds.Broken(f"nobody can go on: {', '.join(f'{a.name} at {a.at}' for a in unfinished)}")
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise worlds.Broken(f"it does not end: {', '.join(f'{a.name} at {a.at}' for a in unfinished)}")
            kill, actor = self._choose(last, runnable, choosing=choosing)
            self.trace.append(f"{'kill ' if kill else ''}{actor.name}: {actor.at}")
            if kill:
                world.kill(actor)
                last = None if actor is last else last
            else:
                world.current, last = actor, actor
                actor.resume()
                world.current = None
            world.check()

    def _choose(self, last, runnable, *, choosing):
        """Who runs next, or is killed: (kill, actor)."""
        eager = [actor for actor in runnable if not actor.idle] or runnable
        # A process and its child are at one thing: when one waits for the other, that is no new choice.
        family = [actor for actor in eager if last is not None and actor.family is last.family]
        natural = [last] if last in eager else family[:1]
        options = [(False, actor) for actor in natural]
        if not choosing:
            return (options or [(False, actor) for actor in eager])[0]
        if not natural or self._preemptions:
            options += [(False, actor) for actor in eager if actor not in natural]
        if self._crashes:
            children = [actor for actor in self._world.actors if actor.is_child]
            options += [(True, actor) for actor in dict.fromkeys([last, *children]) if _alive(actor)]
        kill, actor = options[self._take(len(options))]
        if kill:
            self._crashes -= 1
        elif natural and actor not in natural:
            self._preemptions -= 1
        return kill, actor

    def _take(self, count):
        if count == 1:
            return 0
        if self._position == len(self.path):
            self.path.append([count, 0])
        expected, chosen = self.path[self._position]
        assert expected == count, "an execution is not repeatable"
        self._position += 1
        return chosen


def _alive(actor):
    return actor is not None and not actor.done and not actor.killed
