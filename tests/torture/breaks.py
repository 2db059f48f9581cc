"""The breaks: texts of the package, and what each is replaced by. A text that is gone is an error: adapt the break."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Break:
    """One rule that is broken: in each of these files one text, which is there once, is replaced by another."""

    name: str
    patches: tuple[tuple[str, str, str], ...]

    def apply(self, package: pathlib.Path) -> None:
        """Patch a copy of the package. :raises ValueError: a text is not there once"""
        for file, old, new in self.patches:
            path = package / "vpmem_driver" / file
            text = path.read_text()
            if text.count(old) != 1:
                raise ValueError(f"'{self.name}' does not fit: {file} has this {text.count(old)} times: {old!r}")
            path.write_text(text.replace(old, new))


def _break(name: str, *patches: tuple[str, str, str]) -> Break:
    return Break(name, patches)


#: What the process that wipes does.
CHILD = (
    _break("no lock on the device", ("wipe/device.py", "            _lock(fd)\n", "")),
    _break(
        "progress ahead of the medium",
        (
            "wipe/child.py",
            "                        act(memory, region, done - region, step)\n                        done += step\n",
            "                        done += step\n                        self._tell(phase, done)\n"  # noqa: ISC004
            "                        act(memory, region, done - step - region, step)\n",
        ),
    ),
    _break(
        "zeros are not made durable", ("wipe/device.py", "            os.fdatasync(self.fd)\n", "            pass\n")
    ),
    _break(
        "the last page is left out",
        (
            "wipe/child.py",
            "        share = -(-length",
            "        length = max(length - _PAGE, _PAGE)\n        share = -(-length",
        ),
    ),
    _break(
        "nothing is read back",
        (
            "wipe/child.py",
            "        passes.verify()\n",
            '        parent.tell(protocol.Progress("verify", device.size))\n',
        ),
    ),
    _break("what is not zero is no failure", ("wipe/child.py", "        if bad:\n", "        if False:\n")),
    _break("no look for users", ("wipe/child.py", "    user = in_use.mapped_by(device.fd)\n", "    user = None\n")),
    _break(
        "no look for users after go",
        ("wipe/child.py", "        raise Stopped\n    _refuse_if_used(device)\n", "        raise Stopped\n"),
    ),
    _break(
        "does not wait for go",
        ("wipe/child.py", "    if parent.line() != protocol.GO:\n", "    if False:\n"),
    ),
    _break(
        "resumes at the wrong byte",
        ("wipe/child.py", "0 if privileged else task.start,", "task.size if task.start else 0,"),
    ),
)

#: What the engine makes of it.
ENGINE = (
    _break(
        "nobody is asked before go",
        (
            "wipe/engine.py",
            "                if self._tell(child, self._watcher.may_start, job):\n",
            "                if True:\n",
        ),
    ),
    _break(
        "killed is done",
        (
            "wipe/process.py",
            '            return Outcome.STOPPED, f"its process was',
            '            return Outcome.WIPED, f"its process was',
        ),
    ),
    _break(
        "killed is a failure of the medium",
        (
            "wipe/process.py",
            '            return Outcome.STOPPED, f"its process was',
            '            return Outcome.MEDIA, f"its process was',
        ),
    ),
)

#: What is recorded of wipes.
WIPES = (
    _break(
        "no fencing of the outcome",
        (
            "wiping.py",
            "row is None or run is None or row.run != run",
            "row is None or row.state is not model.State.DIRTY",
        ),
    ),
    _break(
        "no fencing of progress",
        (
            "ledger.py",
            '                "WHERE uuid = ? AND run = ?",\n                (wiped',
            "                \"WHERE uuid = ? AND state = 'dirty' AND ? IS NOT NULL\",\n                (wiped",
        ),
    ),
    _break(
        "a wipe may always begin",
        ("ledger.py", "        return run if done.rowcount == 1 else None\n", "        return run\n"),
    ),
    _break("that a wipe has begun is not recorded", ("ledger.py", "SET begun = 1,", "SET begun = begun,")),
    _break(
        "that a wipe has begun is not durable",
        (
            "ledger.py",
            "        run = secrets.token_hex(8)\n        with self.transaction():",
            "        run = secrets.token_hex(8)\n        with self.transaction(durable=False):",
        ),
    ),
    _break(
        "a failed wipe leaves it clean",
        ("wiping.py", "            if failure is not None:\n", "            if False:\n"),
    ),
    _break(
        "progress stays when the size changes",
        ("ledger.py", "wiped = CASE WHEN size = ? THEN wiped ELSE 0 END", "wiped = min(wiped, ?)"),
    ),
    _break(
        "clean stays clean when the size changes",
        (
            "pool/books.py",
            "if row.size != namespace.size and row.state is State.CLEAN:",
            "if False:",
        ),
    ),
    _break(
        "unknown again although its wipe has begun",
        (
            "pool/pool.py",
            "row.state is State.DIRTY and row.owner is None and not row.begun",
            "row.state is State.DIRTY",
        ),
    ),
    _break(
        "a claim that is called off leaves it unknown",
        ("reservations.py", "row.last_owner is None and not row.begun", "row.last_owner is None"),
    ),
)

#: Who holds what.
OWNERS = (
    _break(
        "adopted after its wipe has begun",
        ("pool/requests.py", "(row.last_owner != owner or row.begun)", "row.last_owner != owner"),
    ),
    _break(
        "adopted with what another has left",
        ("pool/requests.py", "(row.last_owner != owner or row.begun)", "row.begun"),
    ),
    _break(
        "adopted from its owner",
        (
            "pool/requests.py",
            'fault = None if row.owner == owner else f"it belongs to {row.owner}"\n    elif',
            "fault = None\n    elif",
        ),
        (
            "pool/pool.py",
            "                if row.owner is None:\n                    label",
            "                if row.owner != owner:\n                    label",
        ),
    ),
    _break(
        "a claim that is called off leaves it clean",
        (
            "reservations.py",
            "    return State.UNKNOWN if row.state is State.DIRTY and never_owned else row.state\n",
            "    return State.CLEAN\n",
        ),
    ),
    _break(
        "one wipe is enough for all of a claim",
        ("reservations.py", "    if any(row.state is State.DIRTY for row in others):\n", "    if False:\n"),
    ),
    _break(
        "granted before it is wiped",
        (
            "pool/claims.py",
            "                row.state if row.state is State.CLEAN else State.DIRTY,\n",
            "                State.CLAIMED,\n",
        ),
        (
            "pool/claims.py",
            "                reservation=reservation,\n                keep_wipe=row.state is State.DIRTY,\n",
            "",
        ),
    ),
    _break(
        "granted while in use",
        ("pool/claims.py", "failed = self._in_use(rows) or self._wipe_reserved(", "failed = self._wipe_reserved("),
    ),
    _break(
        "released by name alone",
        (
            "pool/pool.py",
            "        held = {row.uuid: row for row in self._books.ledger.held(owner)}\n        if not held:\n",
            "        held = {row.uuid: row for row in self._books.ledger.rows() if row.owner}\n        if not held:\n",
        ),
    ),
    _break(
        "released is clean",
        (
            "pool/pool.py",
            'self._books.move(row, State.DIRTY, "released")',
            'self._books.move(row, State.CLEAN, "released")',
        ),
    ),
    _break(
        "released is not durable",
        (
            "pool/pool.py",
            "        with self._books.change() as table:\n            released =",
            "        with self._books.change(durable=False) as table:\n            released =",
        ),
    ),
    _break(
        "renewing keeps the bytes",
        (
            "pool/pool.py",
            "            for row in renewed:\n                if row.state is State.CLAIMED:\n",
            "            for row in renewed:\n                if False:\n",
        ),
    ),
    _break(
        "a wipe takes what is claimed",
        (
            "pool/pool.py",
            "            if row.state is State.CLAIMED:\n                raise exception.NamespaceClaimed",
            "            if False:\n                raise exception.NamespaceClaimed",
        ),
    ),
    _break(
        "the table is not brought up to date",
        ("pool/books.py", "        if last_move != self._table.seen:\n", "        if False:\n"),
    ),
    _break(
        "identified by name",
        (
            "discovery/directory.py",
            "uuid=_identity(status) if regular",
            "uuid=str(uuid.uuid5(_FILES, os.path.basename(path))) if regular",
        ),
        (
            "discovery/directory.py",
            "        return _identity(status) if status",
            '        return str(uuid.uuid5(_FILES, os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))) if status',
        ),
    ),
)

#: How the ledger is written.
LEDGER = (
    _break(
        "no commit is durable",
        (
            "ledger.py",
            '            if not durable:\n                self._execute("PRAGMA synchronous = NORMAL")',
            '            if True:\n                self._execute("PRAGMA synchronous = NORMAL")',
        ),
    ),
    _break(
        "committed with the next transaction",
        (
            "ledger.py",
            '                self._execute("BEGIN IMMEDIATE")\n                yield\n                self._execute("COMMIT")\n',  # noqa: E501
            '                if self._db.in_transaction:\n                    self._execute("COMMIT")\n'  # noqa: ISC004
            '                self._execute("BEGIN IMMEDIATE")\n                yield\n',
        ),
    ),
    _break(
        "no transactions, and no look whether a row has moved",
        (
            "ledger.py",
            '                self._execute("BEGIN IMMEDIATE")\n                yield\n                self._execute("COMMIT")\n',  # noqa: E501
            "                yield\n",
        ),
        ("ledger.py", 'WHERE uuid = ? AND changed = ?"  # noqa', 'WHERE uuid = ? AND ? IS NOT NULL"  # noqa'),
    ),
    _break(
        "moved without a line of history",
        (
            "ledger.py",
            "        last_owner = row.owner if row.state is model.State.CLAIMED else row.last_owner\n",
            "        last_owner = row.owner if row.state is model.State.CLAIMED else row.last_owner\n        self._execute(\"DELETE FROM history WHERE id = ? AND to_state = 'dirty'\", (move_id,))\n",  # noqa: E501
        ),
    ),
)

ALL = (*CHILD, *ENGINE, *WIPES, *OWNERS, *LEDGER)
