"""One round: starts processes, has one at a time take a step, kills and stops them, and has the checker look."""

import collections
import dataclasses
import pathlib
import random
import signal
import sys
import time

from tests.torture import container, fate, spawn
from tests.torture.accidents import Accidents
from tests.torture.checker import Checker, Violation
from tests.torture.facts import EXIT_CODES, Facts
from tests.torture.plan import Plan, Task
from tests.torture.process import PATIENCE_SECONDS, Hangs, Process, Stall
from tests.torture.processes import Processes
from tests.torture.starter import Starter
from tests.torture.watch import Watch
from tests.torture.world import World

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: How likely the process that has just run is to run on.
RUN_ON = 0.8
#: A round with a trap ends when so many were caught.
MOST_CAUGHT, MOST_TRAP_STEPS = 3, 2400
MOST_STEPS, MOST_PROCESSES = 6000, 12
#: How likely a stopped process is continued when all others wait.
CONTINUE = 0.1
#: A task that takes longer, in the controller's time, hangs.
TASK_SECONDS = 1000.0


@dataclasses.dataclass
class Report:
    """What happened in a round.

    :ivar points: how often each point was reached, and how often processes were killed and stopped there
    """

    seed: int
    kills: int = 0
    stops: int = 0
    steps: int = 0
    tasks: int = 0
    points: dict[str, list[int]] = dataclasses.field(default_factory=lambda: collections.defaultdict(lambda: [0, 0, 0]))
    violation: Violation | None = None
    trace: list[str] = dataclasses.field(default_factory=list)


class Round:
    """One round. `kills`: when so many processes were killed, the others may end."""

    def __init__(self, seed: int, directory: pathlib.Path, package: str, *, kills: int) -> None:
        random.seed(seed)  # what the package leaves to chance
        self._rng = random.Random(seed)
        self._directory = directory
        self._wanted = kills
        self.report = Report(seed)
        self._world = World(directory, self._rng)
        self._checker = Checker(self._world)
        self._plan = self._checker.rules = Plan(self._world, self._checker, self._rng)
        self._facts = Facts(self._world, self._checker, self._plan)
        self._accidents = Accidents(self._world, self._checker, self._plan, self._rng, self.report.trace.append)
        self._fate = fate.Fate(seed, self._rng, self._checker)
        self._processes = Processes(directory, self.report.trace.append)
        self._watch = Watch(self._world, self._checker, self._processes, self._rng)
        self._ended = self._caught = 0
        self._last: Process | None = None
        self._most, self._most_steps = self._rng.choice([2, 3, 3, 4]), MOST_STEPS
        contained = self._rng.choice([0.0, 0.5])
        if self._fate.trap is not None:
            self._most, self._most_steps = 2, MOST_TRAP_STEPS
            contained = contained if self._fate.trap.contained is None else float(self._fate.trap.contained)
        self._starter = Starter(
            directory,
            self._world,
            self._plan,
            self._facts,
            self._processes,
            self._rng,
            contained=contained if container.possible() else 0.0,
        )
        spawn.real = self._rng.random() < 0.03
        spawn.program = ["-P", str(ROOT / "tests/torture/program.py"), str(ROOT), package, self._processes.address]
        if spawn.real:
            words = [sys.executable, *spawn.program, "child", "-m", "vpmem_driver.worker"]
            self._world.options["wipe_command"] = " ".join(words)
            self._wanted = min(kills, 6)  # they take long

    def run(self) -> Report:
        """Do it. What is wrong is in the report."""
        try:
            self._introduce()
            self._world.write_config()
            self._starter.calm = False
            while self._goes_on():
                self._run_one()
            self._starter.calm = True
            self._finish()
        except Violation as violation:
            self.report.violation = violation
        except Hangs as error:
            self.report.violation = Violation("hangs", str(error))
        finally:
            self._end_all()
            self._processes.close()
        return self.report

    # The course of a round

    def _goes_on(self) -> bool:
        return self.report.kills < self._wanted and self.report.steps < self._most_steps and self._caught < MOST_CAUGHT

    def _introduce(self) -> None:
        """Have the ledger know new files before they have labels: small ones are accepted then."""
        calm, self._starter.calm = self._starter.calm, True
        self._starter.start(Task("look"), labels=False)
        self._run_all()
        self._starter.calm = calm

    def _run_all(self) -> None:
        """Let everybody end."""
        for process in list(self._processes):
            self._continue(process)
        most = self.report.steps + MOST_STEPS
        while self._processes:
            self._run_one()
            if self.report.steps > most:
                raise Violation("hangs", f"nobody is stopped or killed any more, and these do not end: {self._where()}")

    def _where(self) -> str:
        return "; ".join(f"{process} at {process.at[1]}" for process in self._processes)

    def _finish(self) -> None:
        """All that is left must end well: everything is released, wiped, clean, and can be claimed."""
        self._run_all()
        self._alone(Task("wipe"))
        for owner in self._plan.owners:
            self._alone(Task("grants", owner))
            if any(row.owner == owner for row in self._checker.rows.values()):
                self._alone(Task("release", owner))
        self._alone(Task("wipe", uuids=[row.uuid for row in self._checker.present()]))
        for row in self._checker.present():
            if row.state != "clean" or row.owner is not None:
                raise Violation("left over", f"at the end {row.name} is {row.state}, owner {row.owner}")
        self._facts.check_file()

    def _alone(self, task: Task) -> None:
        self._starter.start(task)
        self._run_all()

    def _run_one(self) -> None:
        """One step of one process."""
        self._wake()
        if not self._starter.calm:
            self._start_some()
        process = self._pick()
        if process is None:
            self._pass_time()
            return
        self._last = process
        self._perform(process)
        if not self._starter.calm and not self._is_quiet() and self._fate.loses_power():
            self._lose_power()

    def _is_quiet(self) -> bool:
        """Whether somebody is in the trap: nothing befalls the others."""
        return any(process.stalled is not None and process.stalled.goal for process in self._processes)

    def _start_some(self) -> None:
        running = [process for process in self._processes if process.stalled is None and not process.waits]
        # In a round with a trap there are fewer, so that somebody comes by; then whoever is needed may start.
        most = MOST_PROCESSES if self._fate.trap is None or self._plan.goal is not None else MOST_PROCESSES // 2
        if len(running) < self._most and len(self._processes) < most:
            self._starter.start_any()

    # Choosing

    def _pick(self) -> Process | None:
        ready = [process for process in self._processes if self._may_run(process)]
        if self._last in ready and self._rng.random() < RUN_ON:
            return self._last
        return self._rng.choice(ready) if ready else None

    def _may_run(self, process: Process) -> bool:
        if process.stalled is not None or process.stopped or self._fate.holds_back(process):
            return False
        if process.waits:
            return process.stale or (process.until is not None and self._processes.now >= process.until)
        if process.at[2].get("takes_lock"):
            return not any(other.holds_lock for other in self._processes if other is not process)
        return True

    def _wake(self) -> None:
        """Continue those that were stopped long enough."""
        for process in list(self._processes):
            if process.stalled is not None and self._is_over(process):
                self._continue(process)
        if not any(process.stalled for process in self._processes):
            self._plan.hot = self._plan.favourite() if self._fate.trap is not None else None
        self._plan.goal = next(
            (process.stalled.goal for process in self._processes if process.stalled and process.stalled.goal), None
        )

    def _is_over(self, process: Process) -> bool:
        stall = process.stalled
        assert stall is not None
        if (
            stall.reached
            or stall.tasks <= self._ended
            or stall.until <= self._processes.now
            or stall.steps <= self.report.steps
        ):
            return True
        if stall.goal == "stray":
            return self._plan.stray_has_mapped(process.uuid)
        return stall.state is not None and self._checker.has_come_round(process.uuid or "", stall.line, stall.state)

    def _pass_time(self) -> None:
        """Everybody waits: until the first has waited long enough."""
        stalled = [process for process in self._processes if process.stalled is not None]
        times = [process.stalled.until for process in stalled if process.stalled is not None]
        times += [process.until for process in self._processes if process.until is not None and not process.stalled]
        if not times:
            if self._processes:
                raise Violation("hangs", f"all wait for each other: {self._where()}")
            return
        loose = [process for process in stalled if process.stalled is not None and process.stalled.goal is None]
        if loose and self._rng.random() < CONTINUE:
            self._continue(self._rng.choice(loose))
            return
        self._processes.now = max(self._processes.now, min(times))
        for process in self._processes:
            if (
                process.task is not None
                and not process.stalled
                and self._processes.now - process.task.since > TASK_SECONDS
            ):
                raise Violation("hangs", f"{process} has not ended {process.task} after {TASK_SECONDS} s")

    # Acting

    def _perform(self, process: Process) -> None:
        """Decide what is done to a process, and do it."""
        counts = self.report.points[f"{process.role}: {process.at[1]}"]
        counts[0] += 1
        self.report.steps += 1
        do, value = ("go", None) if self._starter.calm else self._fate.decide(process, quiet=self._is_quiet())
        self._processes.note(
            process, f"{'.' if process.waits else ''}{process.at[1]} -> {do}{'' if value is None else value}"
        )
        match do:
            case "kill":
                counts[1] += 1
                parent = self._kill(process)
                if parent is not None and self._rng.random() < 0.7:
                    self._stall(parent, self._fate.stall(self._ended, self._processes.now, parent))
            case "stop":
                counts[2] += 1
                self._stall(process, self._fate.stall(self._ended, self._processes.now, process))
            case "trap":
                assert self._fate.trap is not None
                counts[1 if self._fate.trap.kills else 2] += 1
                victim = self._kill(process) if self._fate.trap.kills else process
                if victim is not None:
                    victim.uuid = process.uuid
                    self._caught += 1
                    self._stall(victim, self._fate.catch(self._ended, self._processes.now, self.report.steps))
            case _:
                self._step(process, do, self._starter.answer(process) if do == "go" else value)

    def _step(self, process: Process, do: str, value: object) -> None:
        """Have it run until its next point, or to its end."""
        before = process.at[:2]
        process.send("go" if do == "clock" else do, self._processes.now, value)
        if do == "clock":
            time.sleep(self._rng.uniform(0, fate.MOST_CLOCK_SECONDS))
            process.signal(signal.SIGKILL)
            process.wait_end(PATIENCE_SECONDS)
        lives = process.receive()
        self._watch.look(process, calm=self._starter.calm)
        if lives:
            self._hear(process)
            if process.at[:2] != before or not process.waits:
                self._have_others_look(process)
            lives = do != "clock"
        if not lives:
            self.report.kills += do in {"clock", "lines"} and self._processes.status(process) in {None, -signal.SIGKILL}
            self._died(process)

    def _hear(self, process: Process) -> None:
        """What a process has just announced."""
        kind, name, info = process.at
        match kind:
            case "spawned":
                self._processes.greet(process)
            case "signalled":
                for child in self._processes.children_of(process):
                    if child.inner_pid == info["pid"]:
                        self._signalled(child, info["signal"])
            case "fact":
                self._fact(process, name, info)
        if info.get("uuid"):
            process.uuid = info["uuid"]
            if process.parent is not None:
                process.parent.uuid = process.uuid
        if process.role == "child" and not process.goes:
            process.mapped, process.goes = self._watch.mapped(), name == "after read go"
        if name == "after fdatasync" or "synced" in info:
            namespace = self._world.by_inode(info.get("synced", info.get("inode")))
            if namespace is not None:
                namespace.durable = namespace.content

    def _have_others_look(self, process: Process) -> None:
        """A process has got further: who waits for it may have something to see."""
        for other in self._processes:
            if other is not process and other.waits:
                if other.at[1] == "flock":
                    other.stale = True
                elif other.at[1] == "pipe" and process.at[1].startswith(("after write", "after close")):
                    other.stale |= process.parent is other or other.parent is process

    def _fact(self, process: Process, name: str, info: dict[str, object]) -> None:
        task = process.task
        if name == "mapped" and task is not None:
            self._plan.note_mapped(task)
        elif name in {"done", "refused", "broke"} and task is not None:
            self._processes.note(process, f"{name} {task}: {str(info)[:300]}")
            self._end_task(process)
            self._facts.hear(task, name, info)

    def _end_task(self, process: Process) -> None:
        task, process.task = process.task, None
        if task is None:
            return
        self._plan.running.remove(task)
        self._ended += 1
        self.report.tasks += 1
        for other in self._processes:
            if other.stalled is not None and other.stalled.goal == task.do and task.covers(other.uuid or ""):
                other.stalled.reached = True

    # Ends

    def _stall(self, process: Process, stall: Stall) -> None:
        """Stop a process until others have done something."""
        self.report.stops += 1
        process.stalled = stall
        if process.task is not None:
            process.task.stopped = True
        process.stalls += 1
        if process.uuid is not None:
            self._plan.hot = process.uuid
        self._processes.note(process, f"stopped until {stall}")
        process.signal(signal.SIGSTOP)
        process.stopped = True
        process.wait_stopped()

    def _continue(self, process: Process) -> None:
        process.stalled = None
        if process.task is not None:
            process.task.stopped = False
        if process.stopped:
            process.stopped = False
            self._last = process
            self._processes.note(process, "continues")
            process.signal(signal.SIGCONT)
            if process.doomed:
                self._wait_for_end(process)

    def _kill(self, process: Process) -> Process | None:
        """Kill a process. :returns: the parent of one that wipes, if it runs: what it has yet to hear is in the pipe"""
        self.report.kills += 1
        process.signal(signal.SIGKILL)
        self._wait_for_end(process)
        parent = process.parent if process.role == "child" else None
        return parent if parent in list(self._processes) and parent is not None and parent.stalled is None else None

    def _signalled(self, process: Process, number: int) -> None:
        """A signal was sent to a process, which it does not handle."""
        if process.stopped and number != signal.SIGKILL:
            process.doomed = True
        else:
            self._wait_for_end(process)

    def _wait_for_end(self, process: Process) -> None:
        if not process.wait_end(PATIENCE_SECONDS):
            raise Hangs(f"{process} does not end")
        if process in list(self._processes):
            self._watch.look_at_last(process)
            self._died(process)

    def _died(self, process: Process) -> None:
        """A process has ended, and what it did was looked at."""
        children = self._processes.children_of(process)
        status = self._processes.bury(process)
        self._processes.note(process, f"has ended, status {status}")
        task = process.task
        self._end_task(process)
        if task is not None and process.output is not None and status is not None and status >= 0:
            self._facts.hear_command(task, status, pathlib.Path(process.output), self._directory / "errors")
        elif status is not None and status > 0 and status not in EXIT_CODES | {120}:  # 120: nobody reads its stderr
            raise Violation("error", f"{process} ended with status {status}: {self._processes.errors()}")
        # The kernel signals children whose parent dies, if they have asked for that.
        for child in children:
            if process.contained:
                self._signalled(child, signal.SIGKILL)  # the container ends with its first process
            elif child.role == "child" and child.points:
                self._signalled(child, signal.SIGTERM)

    def _lose_power(self) -> None:
        """Everybody dies, and what was not made durable is lost, some of it."""
        self.report.trace.append("power is lost")
        self._end_all()
        if self._accidents.lose_power():
            self._introduce()

    def _end_all(self) -> None:
        self._processes.kill_all()
        if self.report.violation is None and self._processes and sys.exc_info()[0] is None:
            self.report.kills += len(self._processes)
            self._watch.look_at_last(next(iter(self._processes)))
        for process in self._processes:
            self._end_task(process)
        self._processes.bury_all()
