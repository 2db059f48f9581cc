"""What processes were asked and told, and whether that agrees with the ledger and the files."""

import json
import pathlib
import random
import sqlite3
import typing

from tests.torture.checker import Checker, Line, Violation, read_ledger
from tests.torture.plan import Plan, Task
from tests.torture.world import World

#: The exit codes that the command line documents, without that of a defect, and that of Ctrl-C.
EXIT_CODES = {2, 3, 4, 5, 6, 130}


class Facts:
    """Judges answers."""

    def __init__(self, world: World, checker: Checker, plan: Plan) -> None:
        self._world, self._checker, self._plan = world, checker, plan
        self._renewed: list[Task] = []

    def ask(self, task: Task, now: float) -> None:
        """Note what a process is asked to do."""
        task.mark, task.since = self._checker.last_line, now
        task.tenures = [
            tenure
            for tenure in self._checker.tenures()
            if task.covers(tenure.uuid) and task.owner in {"", tenure.owner}
        ]
        self._plan.running.append(task)

    def follow_up(self, rng: random.Random) -> Task | None:
        """What an owner does next: it starts a guest on what it has got, and waits for what it has renewed."""
        if self._renewed and rng.random() < 0.7:
            task = self._renewed.pop()
            return Task("claim_exact", task.owner, [tenure.uuid for tenure in task.tenures])
        tenures = [tenure for tenure in self._plan.writable() if not any(self._content(tenure.uuid))]
        if tenures and rng.random() < 0.7:
            return self._plan.write("write", rng.choice(tenures))
        return None

    def _content(self, uuid: str) -> bytes:
        namespace = self._checker.namespace(uuid)
        return b"" if namespace is None else namespace.content

    def hear(self, task: Task, name: str, info: dict[str, typing.Any]) -> None:
        """What a process has to say about its task."""
        if name == "broke":
            raise Violation("error", f"{task}: {info['text']}")
        if name == "done":
            self._done(task, info["result"])

    def hear_command(self, task: Task, status: int, output: pathlib.Path, errors: pathlib.Path) -> None:
        """How a command has ended."""
        if status in EXIT_CODES:
            return
        text = output.read_text(errors="replace")
        if status != 0:
            said = errors.read_text(errors="replace")[-3000:] if errors.exists() else ""
            raise Violation("error", f"{task} ended with status {status}: {text}{said}")
        try:
            rows = json.loads(text)
        except ValueError as error:
            raise Violation("error", f"{task} printed no JSON: {text[:300]}") from error
        match task.do:
            case "claim" | "adopt":
                grants = [{**row, "ready": row["state"] == "claimed"} for row in rows if row["owner"] == task.owner]
                self._done(task, {"grants": grants})
            case "release":
                self._done(task, {"uuids": [row["uuid"] for row in rows]})
            case "wipe":
                self._done(task, {"wiped": [[row["uuid"], "wiped"] for row in rows]})

    def _done(self, task: Task, result: dict[str, typing.Any]) -> None:
        match task.do:
            case "claim" | "claim_exact" | "adopt" | "grants":
                self._granted(task, result["grants"])
            case "release" | "renew":
                self._released(task, result["uuids"])
            case "wipe":
                self._wiped(task, result["wiped"])

    def _granted(self, task: Task, grants: list[dict[str, typing.Any]]) -> None:
        ready = [grant for grant in grants if grant["ready"]]
        for grant in ready if task.do in {"claim", "claim_exact"} else ():
            user = self._plan.stranger_in(grant["uuid"], task)
            if user is not None:
                name = self._checker.name(grant["uuid"])
                raise Violation("granted in use", f"{task} was given {name}, which a stranger's guest has mapped")
        for grant in ready:
            uuid = grant["uuid"]
            if self._checker.told(task.owner, uuid, task.mark) is None:
                continue
            namespace = self._checker.namespace(uuid)
            device = grant["device"]
            inode = None if device is None else pathlib.Path(device).stat().st_ino
            if inode != (None if namespace is None else namespace.inode):
                raise Violation("identity", f"{task}: {self._checker.name(uuid)} is not at {device}")
            if device is not None:
                self._plan.devices[task.owner, uuid] = device
        uuids = [grant["uuid"] for grant in grants]
        if len(set(uuids)) != len(uuids):
            raise Violation("answer", f"{task} was given one twice: {uuids}")
        if task.do == "claim" and sorted(grant["label"] for grant in ready) != sorted(task.labels):
            raise Violation("answer", f"{task} was given {[grant['label'] for grant in ready]}")
        wanted = {*(task.uuids or ())}
        if task.do == "claim_exact" and not wanted <= {grant["uuid"] for grant in ready}:
            raise Violation("answer", f"{task} was given {uuids}")
        if task.do == "grants":
            for tenure in task.tenures:
                if tenure.told and self._checker.tenure(tenure.uuid) is tenure and tenure.uuid not in uuids:
                    raise Violation("lost", f"{task} was not given {self._checker.name(tenure.uuid)}")

    def _released(self, task: Task, uuids: list[str] | None) -> None:
        for tenure in task.tenures:
            if self._checker.tenure(tenure.uuid) is tenure:
                name = self._checker.name(tenure.uuid)
                raise Violation("told released", f"{task} is done, and {task.owner} still has {name} as before")
            ended = self._checker.lives[tenure.uuid].ended.get(task.owner, 0)
            self._checker.require_durable(ended, f"{task} is done")
        if task.do == "renew":
            self._renewed.append(task)
        lines = read_ledger(self._world.ledger_path, task.mark)[1]
        for uuid in uuids or ():
            if not any(line.uuid == uuid and line.after != "claimed" for line in lines):
                raise Violation(
                    "told released", f"{task} is done, and nothing has become of {self._checker.name(uuid)}"
                )

    def _wiped(self, task: Task, wiped: list[tuple[str, str]]) -> None:
        lines = read_ledger(self._world.ledger_path, task.mark)[1]
        for uuid, outcome in wiped:
            if outcome == "wiped" and not self._was_wiped(uuid, lines):
                name, row = self._checker.name(uuid), self._checker.rows[uuid]
                raise Violation("told wiped", f"{task} has wiped {name}, which is {row.state} now")
        if task.uuids is not None:
            for tenure in task.tenures:
                if self._checker.tenure(tenure.uuid) is tenure and tenure.uuid in {uuid for uuid, _ in wiped}:
                    raise Violation("told wiped", f"{task} was not refused, but {tenure.owner} has it")

    def _was_wiped(self, uuid: str, lines: list[Line]) -> bool:
        row = self._checker.rows[uuid]
        its = [line for line in lines if line.uuid == uuid]
        return (
            row.state in {"clean", "claimed"}
            or any("clean" in {line.before, line.after} for line in its)
            or any(line.after == "claimed" for line in its)
        )

    def check_file(self) -> None:
        """The ledger as a file, when nobody has it open."""
        database = sqlite3.connect(self._world.ledger_path)
        try:
            ((found,),) = database.execute("PRAGMA integrity_check").fetchall()
        finally:
            database.close()
        if found != "ok":
            raise Violation("ledger", f"integrity_check: {found}")
