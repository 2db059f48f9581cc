"""One round: starts processes, has one at a time take a step, kills and stops them, and has the checker look."""

import collections
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import random
import signal
import socket
import struct
import sys
import time

from tests.torture import actors, container, spawn
from tests.torture.checker import Checker, Row, Step, Violation
from tests.torture.facts import EXIT_CODES, Facts
from tests.torture.link import KILLED, MESSAGE_BYTES
from tests.torture.plan import Plan, Task
from tests.torture.process import PATIENCE_SECONDS, Hangs, Process, Stall
from tests.torture.world import World, is_zero

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: What a kill or a stop at one point is as likely as, on average; each round prefers some points to others.
KILL, STOP = 0.006, 0.004
#: How much more often a process that wipes is stopped: others then meet its lock, or do what it was to do.
CHILD_STOPS = 4
#: How much more often a process that wipes is killed, when it has said something that its parent has not heard, and else.  # noqa: E501
WORD_KILLS, CHILD_KILLS = 5, 2
#: How much the preference of a round differs from point to point.
SPREAD = 1.2
LINES, INTERRUPT, POWER_LOSS, LOST_ZERO = 0.002, 0.0006, 0.001, 0.12
MOST_LINES = 80
#: In one round of so many some are killed by the clock, between two points: such a round is not repeated exactly.
BY_CLOCK, MOST_CLOCK_SECONDS = 10, 0.002
#: How likely the process that has just run is to run on.
RUN_ON = 0.8
MOST_STEPS, MOST_PROCESSES = 6000, 12
#: How likely a stopped process is continued when all others wait.
CONTINUE = 0.05
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
        self._rng = random.Random(seed)
        self._directory = directory
        self._wanted = kills
        self.report = Report(seed)
        self._world = World(directory, self._rng)
        self._checker = Checker(
            self._world,
            may_end=lambda tenure: self._plan.may_end(tenure),  # noqa: PLW0108
            may_begin=lambda owner, uuid: owner in self._plan.owners,
            may_adopt=lambda owner, uuid: self._plan.may_adopt(owner, uuid),  # noqa: PLW0108
        )
        self._plan = Plan(self._world, self._checker, self._rng)
        self._facts = Facts(self._world, self._checker, self._plan)
        self._address = str(directory / "controller")
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(self._address)
        self._listening.listen(64)
        self._listening.settimeout(PATIENCE_SECONDS)
        self._processes: list[Process] = []
        self._count = self._ended = 0
        self._now = 1000.0
        self._last: Process | None = None
        self._statuses: dict[int, int] = {}
        self._calm = True
        self._weights: dict[str, tuple[float, float]] = {}
        self._most = self._rng.choice([2, 3, 3, 4])
        # Where nobody is killed for long, others get round; where many are, all sorts of remains meet.
        self._kills, self._stops = self._rng.choice([0.2, 0.5, 1.0, 1.5]), self._rng.choice([0.5, 1.0, 2.0])
        self._containers = container.possible() and self._rng.random() < 0.5
        spawn.real = self._rng.random() < 0.03
        spawn.program = ["-P", str(ROOT / "tests/torture/program.py"), str(ROOT), package, self._address]
        if spawn.real:
            words = [sys.executable, *spawn.program, "child", "-m", "vpmem_driver.worker"]
            self._world.options["wipe_command"] = " ".join(words)
            self._wanted = min(kills, 6)  # they take long

    def run(self) -> Report:
        """Do it. What is wrong is in the report."""
        try:
            self._begin()
            self._calm = False
            while self.report.kills < self._wanted and self.report.steps < MOST_STEPS:
                self._run_one()
            self._calm = True
            self._finish()
        except Violation as violation:
            self.report.violation = violation
        except Hangs as error:
            self.report.violation = Violation("hangs", str(error))
        finally:
            self._end_all()
            self._listening.close()
        return self.report

    # The course of a round

    def _begin(self) -> None:
        self._introduce()
        self._world.write_config(labels=True)

    def _introduce(self) -> None:
        """Have the ledger know new files before they have labels: small ones are accepted then."""
        calm, self._calm = self._calm, True
        self._start(Task("look"), labels=False)
        self._run_all()
        self._calm = calm

    def _run_all(self) -> None:
        """Let everybody end."""
        for process in list(self._processes):
            self._continue(process)
        most = self.report.steps + MOST_STEPS
        while self._processes:
            self._run_one()
            if self.report.steps > most:
                where = "; ".join(f"{process} at {process.at[1]}" for process in self._processes)
                raise Violation("hangs", f"nobody is stopped or killed any more, and these do not end: {where}")

    def _finish(self) -> None:
        """All that is left must end well: everything is released, wiped, clean, and can be claimed."""
        self._run_all()
        self._alone(Task("wipe"))
        for owner in self._plan.owners:
            self._alone(Task("grants", owner))
            if any(row.owner == owner for row in self._checker.rows.values()):
                self._alone(Task("release", owner))
        self._alone(Task("wipe", uuids=[row.uuid for row in self._present()]))
        for row in self._present():
            if row.state != "clean" or row.owner is not None:
                raise Violation("left over", f"at the end {row.name} is {row.state}, owner {row.owner}")
        self._facts.check_file()

    def _alone(self, task: Task) -> None:
        self._start(task)
        self._run_all()

    def _run_one(self) -> None:
        """One step of one process."""
        self._wake()
        if not self._calm:
            self._start_some()
        process = self._pick()
        if process is None:
            self._pass_time()
            return
        self._last = process
        do, value = self._decide(process)
        self._perform(process, do, value)
        if not self._calm and self._rng.random() < POWER_LOSS:
            self._lose_power()

    # Starting

    def _start_some(self) -> None:
        running = [process for process in self._processes if process.stalled is None and not process.waits]
        if len(running) < self._most and len(self._processes) < MOST_PROCESSES:
            tenures = self._plan.writable()
            chance = self._rng.random() if not self._containers else 1.0  # guests are not seen from a container
            if chance < 0.15:
                task = self._plan.write("guest", self._rng.choice(tenures)) if tenures else None
                if task is not None:
                    self._start_guest(task)
            elif chance < (0.17 if self._plan.hot is None else 0.22) and not self._plan.has_stray():
                task = self._plan.stray()
                if task is not None:
                    self._start_guest(task)
            else:
                self._start(self._plan.choose() if self._rng.random() < 0.2 else None)

    def _start(self, task: Task | None, *, labels: bool = True) -> None:
        """Start a process: the command line if it can do `task`, else one that asks what to do."""
        words = None
        if task is not None and not self._calm:
            words = self._plan.words(task)
        if words is None:
            pmem_namespaces = self._world.pmem_namespaces if labels else []
            process = self._fork("api", actors.api, pmem_namespaces, self._world.options)
            process.answer = task
        else:
            output = str(self._directory / f"output{self._count}")
            process = self._fork("cli", actors.cli, words, output)
            process.output = output
            self._ask(process, task)

    def _start_guest(self, task: Task) -> None:
        process = self._fork("guest", actors.guest, task.path, task.inode, task.pattern)
        self._ask(process, task)

    def _fork(self, role: str, main: object, *values: object) -> Process:
        contained = self._containers and role != "guest" and not self._calm and self._rng.random() < 0.5
        pid = actors.start(self._address, self._directory / "errors", main, *values, contained=contained)
        process = self._greet(None)
        process.contained = contained
        process.helper = pid if contained else 0
        return process

    def _greet(self, parent: Process | None) -> Process:
        """Wait for the greeting of a new process."""
        try:
            connection, _ = self._listening.accept()
        except TimeoutError as error:
            raise Hangs("a process does not start") from error
        kind, role, info = json.loads(connection.recv(MESSAGE_BYTES))
        assert kind == "hello", kind
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", credentials)
        process = Process(self._count, pid, role, parent, connection=connection, inner_pid=info["pid"])
        process.contained = parent is not None and parent.contained
        self._count += 1
        self._processes.append(process)
        self._note(process, "starts" if parent is None else f"is started by {parent}")
        return process

    def _ask(self, process: Process, task: Task | None) -> None:
        """Have a process do something from now on."""
        process.task = task
        if task is not None:
            self._facts.ask(task, self._now)
            self._note(process, f"is to {task}")

    # Choosing

    def _pick(self) -> Process | None:
        ready = [process for process in self._processes if self._may_run(process)]
        if self._last in ready and self._rng.random() < RUN_ON:
            return self._last
        return self._rng.choice(ready) if ready else None

    def _may_run(self, process: Process) -> bool:
        if process.stalled is not None or process.stopped:
            return False
        if process.waits:
            return process.stale or (process.until is not None and self._now >= process.until)
        if process.at[2].get("takes_lock"):
            return not any(other.holds_lock for other in self._processes if other is not process)
        return True

    def _wake(self) -> None:
        """Continue those that were stopped long enough."""
        for process in list(self._processes):
            if process.stalled is not None and self._is_over(process.stalled, process.uuid):
                self._continue(process)
        if not any(process.stalled for process in self._processes):
            self._plan.hot = None

    def _is_over(self, stall: Stall, uuid: str | None) -> bool:
        if stall.tasks <= self._ended or stall.until <= self._now:
            return True
        return stall.state is not None and self._checker.has_come_round(uuid or "", stall.line, stall.state)

    def _pass_time(self) -> None:
        """Everybody waits: until the first has waited long enough."""
        times = [process.stalled.until for process in self._processes if process.stalled is not None]
        times += [process.until for process in self._processes if process.until is not None and not process.stalled]
        if not times:
            if self._processes:
                where = "; ".join(f"{process} at {process.at[1]}" for process in self._processes)
                raise Violation("hangs", f"all wait for each other: {where}")
            return
        stalled = [process for process in self._processes if process.stalled is not None]
        if stalled and self._rng.random() < CONTINUE:
            self._continue(self._rng.choice(stalled))
            return
        self._now = max(self._now, min(times))
        for process in self._processes:
            if process.task is not None and not process.stalled and self._now - process.task.since > TASK_SECONDS:
                raise Violation("hangs", f"{process} has not ended {process.task} after {TASK_SECONDS} s")

    def _decide(self, process: Process) -> tuple[str, object]:
        kind, name, _ = process.at
        point = f"{process.role}: {name}"
        self.report.points[point][0] += 1
        if self._calm or kind not in {"point", "wait", "hello", "spawned"}:
            return "go", None
        kill, stop = self._weight(point)
        if name == "guest runs":
            stop = 0.7
        if process.role == "child":
            kill *= WORD_KILLS if name.startswith("after write") else CHILD_KILLS
            stop *= CHILD_STOPS * (1 + process.goes)
        if process.holds_lock:
            stop /= 10  # all others could do is wait for it
        chance = self._rng.random()
        clock = LINES if self.report.seed % BY_CLOCK == 0 else 0
        for do, its in (("kill", kill), ("stop", stop), ("lines", LINES), ("clock", clock), ("interrupt", INTERRUPT)):
            if chance < its:
                if do == "interrupt" and (process.role not in {"api", "cli"} or kind != "point"):
                    break
                if do == "lines" and process.role == "guest":
                    break
                if do == "clock" and name == "before start of a process":
                    break
                return do, self._rng.randint(1, MOST_LINES) if do == "lines" else None
            chance -= its
        return "go", None

    def _weight(self, point: str) -> tuple[float, float]:
        """How likely a kill and a stop are at a point, in this round."""
        if point not in self._weights:
            rng = random.Random(f"{self.report.seed} {point}")
            kill, stop = (
                KILL * self._kills * math.exp(rng.gauss(0, SPREAD)),
                STOP * self._stops * math.exp(rng.gauss(0, SPREAD)),
            )
            self._weights[point] = min(kill, 0.5), min(stop, 0.5)
        return self._weights[point]

    # Acting

    def _perform(self, process: Process, do: str, value: object) -> None:
        self.report.steps += 1
        point = f"{process.role}: {process.at[1]}"
        self._note(process, f"{'.' if process.waits else ''}{process.at[1]} -> {do}{'' if value is None else value}")
        if do == "kill":
            self.report.points[point][1] += 1
            self._kill(process)
            return
        if do == "stop":
            self.report.points[point][2] += 1
            self._stall(process)
            return
        if do == "go":
            value = self._answer(process)
        before = process.at[:2]
        process.send("go" if do == "clock" else do, self._now, value)
        if do == "clock":
            time.sleep(self._rng.uniform(0, MOST_CLOCK_SECONDS))
            process.signal(signal.SIGKILL)
            process.wait_end(PATIENCE_SECONDS)
        lives = process.receive()
        self._look(process)
        if lives:
            self._hear(process)
            if process.at[:2] != before or not process.waits:
                self._have_others_look(process)
            lives = do != "clock"
        if not lives:
            self.report.kills += do in {"clock", "lines"} and self._status(process) in {None, -signal.SIGKILL}
            self._died(process)

    def _answer(self, process: Process) -> object:
        """What a process that asks what to do is told."""
        if process.at[:2] != ("fact", "next"):
            return None
        task, process.answer = process.answer, None
        if task is None and not self._calm and self._rng.random() < 0.7:
            task = self._facts.follow_up(self._rng) or self._plan.choose()
        if task is None:
            return None
        self._ask(process, task)
        return dataclasses.asdict(dataclasses.replace(task, tenures=[]))

    def _hear(self, process: Process) -> None:
        """What a process has just announced."""
        kind, name, info = process.at
        match kind:
            case "spawned":
                self._greet(process)
            case "signalled":
                for child in [other for other in self._processes if other.parent is process]:
                    if child.inner_pid == info["pid"]:
                        self._signalled(child, info["signal"])
            case "fact":
                self._fact(process, name, info)
        if info.get("uuid"):
            process.uuid = info["uuid"]
            if process.parent is not None:
                process.parent.uuid = process.uuid
        if process.role == "child" and not process.goes:
            process.mapped, process.goes = self._mapped(), name == "after read go"
        if (name == "after fdatasync" or "synced" in info) and not info.get("failed"):
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
            task.mapped = True
        elif name in {"done", "refused", "broke"} and task is not None:
            self._note(process, f"{name} {task}: {str(info)[:300]}")
            self._end_task(process)
            self._facts.hear(task, name, info)

    def _end_task(self, process: Process) -> None:
        if process.task is not None:
            self._plan.running.remove(process.task)
            process.task = None
            self._ended += 1
            self.report.tasks += 1

    def _look(self, process: Process) -> None:
        """Have the checker look at what this process has just done."""
        committed = process.at[2].get("committed", False) or process.at[0] == "fact"
        if committed or process.role in {"child", "guest"} or (process.task and process.task.do == "write"):
            before = {namespace: namespace.content for namespace in self._world.namespaces}
            changed = self._checker.check(self._step_of(process), ledger=committed)
            if process.at[2].get("durable"):
                self._checker.note_durable()
                self._world.note_durable_ledger()
            if process.role == "child" and not self._calm and self._rng.random() < LOST_ZERO:
                for namespace in changed:
                    if not is_zero(before[namespace]) and is_zero(namespace.content):
                        self._note(process, f"zeroed {namespace.name}, and the medium loses one")
                        self._world.lose_a_zero(namespace)

    def _step_of(self, process: Process) -> Step:
        """What a process may do until its next point."""
        writes = None
        if process.task is not None and process.task.do in {"write", "guest"}:
            writes = (process.task.inode, process.task.pattern.encode())
        doing = f" ({process.task})" if process.task is not None else ""
        mapped = process.mapped & self._mapped()
        return Step(f"{process}{doing}", wipes=process.role == "child", mapped=mapped, writes=writes)

    def _mapped(self) -> frozenset[int]:
        """What guests have mapped now."""
        tasks = [process.task for process in self._processes]
        return frozenset(task.inode for task in tasks if task is not None and task.mapped)

    # Ends

    def _stall(self, process: Process) -> None:
        """Stop a process until others have done something."""
        self.report.stops += 1
        tasks = self._rng.choice([self._rng.randint(1, 4), self._rng.randint(5, 20)])
        state = None
        if process.uuid is not None:
            self._plan.hot = process.uuid
            state = self._rng.choice([None, "claimed", "dirty", "dirty"])
        until = self._now + tasks * self._rng.uniform(0.5, 5)
        process.stalled = Stall(self._ended + tasks, until, self._checker.last_line, state)
        self._note(process, f"stopped until {tasks} tasks have ended, or it is {state} again")
        process.signal(signal.SIGSTOP)
        process.stopped = True
        process.wait_stopped()

    def _continue(self, process: Process) -> None:
        process.stalled = None
        if process.stopped:
            process.stopped = False
            self._note(process, "continues")
            process.signal(signal.SIGCONT)
            if process.doomed:
                self._wait_for_end(process)

    def _kill(self, process: Process) -> None:
        self.report.kills += 1
        process.signal(signal.SIGKILL)
        parent = process.parent
        self._wait_for_end(process)
        if process.role == "child" and parent in self._processes and parent.stalled is None:  # noqa: SIM102
            if self._rng.random() < 0.7:
                self._stall(parent)  # what the dead one has said is still in the pipe

    def _signalled(self, process: Process, number: int) -> None:
        """A signal was sent to a process, which it does not handle."""
        if process.stopped and number != signal.SIGKILL:
            process.doomed = True
        else:
            self._wait_for_end(process)

    def _wait_for_end(self, process: Process) -> None:
        if not process.wait_end(PATIENCE_SECONDS):
            raise Hangs(f"{process} does not end")
        if process in self._processes:
            self._checker.check(self._step_of(process))
            self._died(process)

    def _died(self, process: Process) -> None:
        """A process has ended, and what it did was looked at."""
        self._processes.remove(process)
        self._reap()
        status = self._status(process)
        self._note(process, f"has ended, status {status}")
        task = process.task
        self._end_task(process)
        if task is not None and process.output is not None and status is not None and status >= 0:
            self._facts.hear_command(task, status, pathlib.Path(process.output), self._directory / "errors")
        elif status is not None and status > 0 and status not in EXIT_CODES | {120}:  # 120: nobody reads its stderr
            raise Violation("error", f"{process} ended with status {status}: {self._errors()}")
        process.close()
        for other in self._processes:
            other.stale = other.stale or other.waits
        # The kernel signals children whose parent dies, if they have asked for that.
        for child in [child for child in self._processes if child.parent is process]:
            if process.contained:
                self._signalled(child, signal.SIGKILL)  # the container ends with its first process
            elif child.role == "child" and child.points:
                self._signalled(child, signal.SIGTERM)

    def _status(self, process: Process) -> int | None:
        """Its exit status, negative for a signal; None when its parent has taken it."""
        if process.helper:
            with contextlib.suppress(ChildProcessError):
                self._statuses[process.helper] = os.waitstatus_to_exitcode(os.waitpid(process.helper, 0)[1])
        self._reap()
        status = self._statuses.get(process.helper or process.pid)
        return -signal.SIGKILL if status == KILLED else status

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                self._statuses[pid] = os.waitstatus_to_exitcode(status)

    def _errors(self) -> str:
        path = self._directory / "errors"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def _lose_power(self) -> None:
        """Everybody dies, and what was not made durable is lost, some of it."""
        self.report.trace.append("power is lost")
        self._end_all()
        self._world.lose_power()
        if self._rng.random() < 0.7 and self._world.lose_commits():
            self.report.trace.append("and what was committed since the last durable commit")
            self._checker.go_back()
        if self._rng.random() < 0.8:
            self._change_one()
        if self._rng.random() < 0.3:
            self._world.swap_names()
            self._plan.devices.clear()
            self.report.trace.append("two files have changed names")

    def _change_one(self) -> None:
        """Have an operator change the size of a file that nobody has been given, best of a clean or half wiped one.

        Or have another file in its place.
        """
        rows = [row for row in self._present() if row.state not in {"claimed", "quarantined"}]
        best = [row for row in rows if row.state == "clean" or row.wiped]
        namespace = self._checker.namespace(self._rng.choice(best or rows).uuid) if rows else None
        if namespace is None:
            return
        row = self._checker.row_of(namespace)
        if row is not None and row.owner is None and self._rng.random() < 0.4:
            self._world.replace(namespace)
            self.report.trace.append(f"{namespace.name} is another file now")
            self._introduce()
        else:
            self._world.resize(namespace)
            self._checker.forget_left(namespace)
            self.report.trace.append(f"{namespace.name} has {namespace.size} bytes now")

    def _present(self) -> list[Row]:
        """What the ledger says of namespaces that are there."""
        return [row for row in self._checker.rows.values() if self._checker.namespace(row.uuid) is not None]

    def _end_all(self) -> None:
        for process in self._processes:
            process.signal(signal.SIGKILL)
        for process in self._processes:
            process.wait_end(PATIENCE_SECONDS)
        if self.report.violation is None and self._processes and sys.exc_info()[0] is None:
            self.report.kills += len(self._processes)
            self._checker.check(self._step_of(self._processes[0]))
        for process in self._processes:
            process.close()
            self._end_task(process)
        self._processes.clear()
        self._reap()

    def _note(self, process: Process, what: str) -> None:
        self.report.trace.append(f"{process}: {what}")
