"""Damaged ledgers: each is refused with a typed error, or everything that is decided on it is as it was."""

import collections
import contextlib
import random
import shutil
import sqlite3
import uuid

import pytest

from tests.fuzz.targets import ledger as fuzzed
from vpmem_driver import exception, ledger, model
from vpmem_driver.ledger import replacement
from vpmem_driver.ledger.reader import LedgerReader
from vpmem_driver.model import State

PAGE = 4096
NAMESPACES = 40
#: One mutant each.
SEEDS = range(800)


def new_uuid(rng):
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def make(directory, *, moves=4):
    """A ledger with every state, several owners and a history; left open."""
    rng = random.Random("a ledger")
    records = ledger.Ledger(directory)
    records._db.execute("PRAGMA synchronous = OFF")
    owners = [new_uuid(rng) for _ in range(6)]
    uuids = [new_uuid(rng) for _ in range(NAMESPACES)]
    for number, one in enumerate(uuids):
        with records.transaction():
            records.insert(
                model.Namespace(
                    uuid=one,
                    name=f"ns{number}",
                    size=2**30,
                    align=2**21,
                    numa_node=number % 2,
                    mode="devdax",
                    device=f"/dev/dax{number}.0",
                    pmem=True,
                )
            )
    for turn in range(moves):
        for number, one in enumerate(uuids):
            step(records, one, (number + turn) % 5, owners[number % len(owners)], number)
    return records


def step(records, one, kind, owner, position):
    """One commit."""
    with records.transaction():
        row = records.row(one)
        match kind:
            case 0:
                records.move(row, State.CLAIMED, "claimed", owner=owner, position=position, label="4GB")
            case 1:
                records.move(row, State.DIRTY, "released")
            case 2:
                reserved = {"owner": owner, "position": position, "label": "4GB", "reservation": "0123456789abcdef"}
                records.move(row, State.DIRTY, "reserved", **reserved)
            case 3:
                records.move(row, State.QUARANTINED, "wipe failed: byte 0 is not zero", reason="byte 0 is not zero")
            case 4:
                records.move(row, State.CLEAN, "wiped")


def decided_on(rows):
    """What a namespace is handed out or wiped by. The rest discovery tells anew, or nobody else knows."""
    return {row.uuid: (row.state, row.owner, row.changed) for row in rows}


def mutate(content, rng):
    """A damaged copy: (kind, content)."""
    damaged = bytearray(content)
    at = rng.randrange(len(content))
    page = rng.randrange(len(content) // PAGE) * PAGE
    other = rng.randrange(len(content) // PAGE) * PAGE
    length = rng.choice([1, 2, 16, 512])
    kind = rng.choice(
        ["bit", "bit", "bit", "byte", "byte", "zeros", "noise", "zero page", "page moved", "cut", "cut page"]
    )
    match kind:
        case "bit":
            damaged[at] ^= 1 << rng.randrange(8)
        case "byte":
            damaged[at] = rng.randrange(256)
        case "zeros":
            damaged[at : at + length] = bytes(len(damaged[at : at + length]))
        case "noise":
            damaged[at : at + length] = rng.randbytes(len(damaged[at : at + length]))
        case "zero page":
            damaged[page : page + PAGE] = bytes(PAGE)
        case "page moved":
            damaged[page : page + PAGE] = content[other : other + PAGE]
        case "cut":
            del damaged[at:]
        case "cut page":
            del damaged[page:]
    return kind, bytes(damaged)


def use(directory):
    """Open a ledger, read all of it and write to it; the rows as they were read."""
    records = ledger.Ledger(directory)
    try:
        records._db.execute("PRAGMA synchronous = OFF")
        rows = records.rows()
        for row in rows:
            assert records.row(row.uuid) == row
            if row.owner is not None:
                assert row in records.held(row.owner)
                assert records.next_position(row.owner) > row.position
        list(records.history())
        records.changed_since(records.last_move() // 2)
        for row in rows[:3]:
            with records.transaction():
                records.move(row, State.DIRTY, "used")
        return rows
    finally:
        records.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a ledger that was closed, and its rows."""
    directory = tmp_path_factory.mktemp("whole")
    records = make(directory)
    rows = records.rows()
    records.close()
    return (directory / ledger.FILE_NAME).read_bytes(), rows


@pytest.fixture
def place(tmp_path):
    def write(**files):
        for left in tmp_path.iterdir():
            left.unlink()
        for suffix, content in files.items():
            path = tmp_path / f"{ledger.FILE_NAME}{suffix.replace('_', '-')}"
            path.write_bytes(content)
            path.chmod(0o600)
        return tmp_path

    return write


def test_a_damaged_ledger_is_refused_or_says_what_it_said(whole, place):
    content, rows = whole
    outcomes = collections.Counter()
    for seed in SEEDS:
        kind, damaged = mutate(content, random.Random(seed))
        try:
            found = use(place(**{"": damaged}))
        except exception.LedgerError as error:
            outcomes[type(error).__name__] += 1
        except Exception as error:
            raise AssertionError(f"mutant {seed} ({kind}): {error!r}") from error
        else:
            assert decided_on(found) == decided_on(rows), f"mutant {seed} ({kind})"
            outcomes["the same" if found == rows else "other descriptions"] += 1
    assert outcomes["LedgerCorrupt"] > len(SEEDS) / 3


def test_a_damaged_log_loses_whole_commits_at_most(tmp_path_factory, place):
    """As after a power loss: SQLite goes back to the last commit whose frames have the right checksums."""
    directory = tmp_path_factory.mktemp("open")
    records = make(directory, moves=1)
    records._db.execute("PRAGMA wal_checkpoint")
    committed = [decided_on(records.rows())]
    rng = random.Random("more moves")
    for number, row in enumerate(records.rows()):
        step(records, row.uuid, rng.randrange(5), new_uuid(rng), number)
        committed.append(decided_on(records.rows()))
    content = (directory / ledger.FILE_NAME).read_bytes()
    log = (directory / f"{ledger.FILE_NAME}-wal").read_bytes()
    records.close()
    assert decided_on(use(place(**{"": content, "_wal": log}))) == committed[-1]
    for seed in SEEDS[:300]:
        kind, damaged = mutate(log, random.Random(f"log {seed}"))
        try:
            found = use(place(**{"": content, "_wal": damaged}))
        except exception.LedgerError:
            continue
        except Exception as error:
            raise AssertionError(f"mutant {seed} ({kind}): {error!r}") from error
        assert decided_on(found) in committed, f"mutant {seed} ({kind})"


@pytest.mark.parametrize("position", [-1, 2**31, 2**63 - 1])
def test_an_impossible_position_is_refused(tmp_path, position):
    """What `./dev fuzz` found: the next position after it did not fit SQLite's integers."""
    records = make(tmp_path)
    records._db.execute("UPDATE namespace SET position = ? WHERE owner IS NOT NULL", (position,))
    records.close()
    with pytest.raises(exception.LedgerCorrupt, match="its position is impossible"):
        ledger.Ledger(tmp_path)


@pytest.fixture
def without_owner(tmp_path):
    """A ledger in which somebody has taken the owner of a claimed namespace away."""
    make(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / ledger.FILE_NAME)) as database, database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.execute(
            "UPDATE namespace SET owner = NULL WHERE rowid IN (SELECT rowid FROM namespace WHERE state = 'claimed')"
        )
    return tmp_path


def test_readers_know_the_constraints_too(without_owner):
    """SQLite knows none where it may only read. Then 'vpmem ledger restore' refused, as the ledger was not damaged."""
    for opened in (ledger.Ledger, LedgerReader):
        with pytest.raises(exception.LedgerCorrupt, match="CHECK constraint failed"):
            opened(without_owner)
    replacement.require_replaceable(without_owner)


def test_a_file_that_says_it_may_only_be_read_is_refused(without_owner):
    """What `./dev fuzz` found: SQLite then checks no constraints."""
    path = without_owner / ledger.FILE_NAME
    content = bytearray(path.read_bytes())
    content[18] = 9  # the version that may write it
    path.write_bytes(content)
    with pytest.raises(exception.LedgerError, match="readonly"):
        ledger.Ledger(without_owner)
    with pytest.raises(exception.LedgerCorrupt, match="CHECK constraint failed"):
        LedgerReader(without_owner)


@pytest.mark.parametrize("opened", [ledger.Ledger, LedgerReader])
def test_a_damaged_length_that_needs_too_much_memory(tmp_path, opened):
    """What `./dev fuzz` found, in the ledger that it damages: SQLite is out of memory."""
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    with contextlib.closing(fuzzed.make(tmp_path / "whole")) as whole:
        for suffix in ("", "-wal"):
            shutil.copy(f"{whole.path}{suffix}", damaged)
    fuzzed.damage(damaged, fuzzed.Damage(sql=[], bytes=[("", 384, [0xFF] * 4), ("-wal", 6, [9])], lengths=[]))
    with pytest.raises(exception.LedgerCorrupt, match="more memory"):
        opened(damaged)
