"""A ledger that something damaged: bytes of its files, rows, schema."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import sqlite3
import weakref
from collections.abc import Iterator

import msgspec
from oslo_config import cfg

from tests.fuzz.target import Target
from tests.fuzz.targets import checks, made
from vpmem_driver import conf, exception, ledger
from vpmem_driver.ledger.reader import LedgerReader
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import State
from vpmem_driver.pool import Pool

_PAGE = 1024  # small: most bytes then mean something
_WAL = "-wal"
_VALUES = (
    *("NULL", "-1", "0", "1", "9223372036854775807", "-9223372036854775808", "2147483648", "1.5", "1e999", "''", "'x'"),
    *("'claimed'", "'dirty'", "'unknown'", "X''", "X'00ff'", "CAST(X'ff00' AS TEXT)", "char(0)", "char(55296)"),
    *("printf('%.*c', 100000, 'x')", "1048576", f"'{made.UUIDS[0]}'", f"'{made.OWNERS[0]}'", "uuid", "name", "'[/b]'"),
)
_STATEMENTS = (
    *("DROP TABLE history", "DROP TABLE namespace", "DROP INDEX {index}"),
    *("DELETE FROM history", "DELETE FROM namespace", "DELETE FROM sqlite_master"),
    *("ALTER TABLE namespace RENAME COLUMN {column} TO other", "ALTER TABLE history RENAME TO other", "REINDEX"),
    *("ALTER TABLE namespace DROP COLUMN {column}", "ALTER TABLE namespace ADD COLUMN other TEXT", "VACUUM"),
    *("PRAGMA user_version = {number}", "PRAGMA application_id = {number}", "PRAGMA encoding = 'UTF-16le'"),
    *("PRAGMA journal_mode = DELETE", "CREATE TABLE other (x)", "INSERT INTO namespace SELECT * FROM namespace"),
    "UPDATE sqlite_master SET sql = replace(sql, 'STRICT', '')",
    "UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '')",
    "UPDATE sqlite_master SET rootpage = {number}",
    "UPDATE sqlite_master SET sql = NULL",
    "CREATE TRIGGER t AFTER UPDATE ON namespace BEGIN DELETE FROM history; END",
    "CREATE TRIGGER u AFTER INSERT ON history BEGIN SELECT RAISE(ABORT, 'no'); END",
    "CREATE VIEW v AS SELECT * FROM namespace",
)
_NUMBERS = (-1, 0, 1, 2, 3, 4, 100, (1 << 31) - 1, 0x76706D65)  # the last one is a ledger's own application_id
_INDEXES = ("namespace_owner", "history_uuid", "history_owner", "namespace_changed")


class Damage(msgspec.Struct):
    """What was done to a ledger.

    :ivar sql: statements; those that fail are left out
    :ivar bytes: file (``""`` for the database, ``-wal``), offset, new bytes
    :ivar lengths: file, bytes to cut it to
    """

    sql: list[str] = []
    bytes: list[tuple[str, int, list[int]]] = []
    lengths: list[tuple[str, int]] = []


def make(state_path: pathlib.Path) -> ledger.Ledger:
    """A ledger with a namespace in each state. The last moves are in its write-ahead log as long as it is open."""
    opened = ledger.Ledger(state_path)
    with opened.transaction():
        for number in range(len(made.UUIDS)):
            opened.insert(made.NAMESPACES[number])
    opened.close()
    with contextlib.closing(sqlite3.connect(opened.path)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute(f"PRAGMA page_size = {_PAGE}")
        database.execute("VACUUM")
    opened = ledger.Ledger(state_path)
    states = {1: State.CLEAN, 2: State.DIRTY, 3: State.CLAIMED, 4: State.QUARANTINED, 5: State.DIRTY}
    for number, state in states.items():
        owner = {3: made.OWNERS[0], 5: made.OWNERS[1]}.get(number)
        row = opened.row(made.UUIDS[number])
        assert row is not None
        place = None if owner is None else 0
        reservation = "0123456789abcdef" if owner is not None and state is State.DIRTY else None
        with opened.transaction():
            opened.move(row, state, "made", owner=owner, position=place, reservation=reservation, label="A")
    return opened


def damage(state_path: pathlib.Path, done: Damage) -> None:
    """Damage the ledger below `state_path`."""
    path = state_path / ledger.FILE_NAME
    if done.sql:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # no other file
            database.execute("PRAGMA ignore_check_constraints = ON")
            database.execute("PRAGMA writable_schema = ON")
            for statement in done.sql:
                with contextlib.suppress(sqlite3.Error, sqlite3.Warning, ValueError, MemoryError):
                    database.execute(statement).fetchall()
    files = {"": path, _WAL: path.with_name(path.name + _WAL)}
    for suffix, offset, content in done.bytes:
        if suffix in files and files[suffix].exists() and 0 <= offset < files[suffix].stat().st_size:
            with files[suffix].open("r+b") as opened:
                opened.seek(offset)
                opened.write(bytes(byte & 0xFF for byte in content))
    for suffix, length in done.lengths:
        if suffix in files and files[suffix].exists() and 0 <= length < files[suffix].stat().st_size:
            os.truncate(files[suffix], length)


def use(state_path: pathlib.Path) -> None:
    """Read all of a ledger, and move something. What a pool takes without an error must be possible."""
    with contextlib.closing(ledger.Ledger(state_path)) as records:
        rows = records.rows()
        for owner in made.OWNERS:
            records.held(owner)
            records.next_position(owner)
            list(records.history(owner=owner))
        records.changed_since(0)
        records.last_move()
        list(records.history(limit=3))
    with contextlib.suppress(FileNotFoundError), contextlib.closing(LedgerReader(state_path)) as reader:
        assert reader.rows() == rows, "read in another way"
        reader.moved_at()
    with contextlib.closing(_pool(state_path)) as pool:
        pool.records()
        pool.inventory()
        for owner in made.OWNERS:
            pool.grants(owner)
            pool.releasable(owner)
        with contextlib.suppress(exception.VPMEMError):
            pool.claim(made.OWNERS[1], ["A"])
        pool.release(made.OWNERS[0])
        pool.records()
    checks.recorded(rows)


def _pool(state_path: pathlib.Path) -> Pool:
    options = cfg.ConfigOpts()
    conf.register_opts(options)
    options([], default_config_files=[], default_config_dirs=[])
    options.set_override("state_path", str(state_path), group="vpmem")
    options.set_override("wipe_command", "/bin/false", group="vpmem")
    options.set_override("pmem_namespaces", ["A:" + "|".join(made.UUIDS)], group="libvirt")
    return Pool.from_conf(options, source=made.source(), domains=Domains(None))


class Fuzzed(Target):
    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        self._made = make(root / "made")  # open, so that its write-ahead log stays
        weakref.finalize(self, self._made.close)
        self._sizes = {suffix: (root / "made" / f"{ledger.FILE_NAME}{suffix}").stat().st_size for suffix in ("", _WAL)}

    def seeds(self) -> Iterator[bytes]:
        yield b"{}"

    def run(self, data: bytes) -> None:
        try:
            done = msgspec.json.decode(data, type=Damage)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        state = self.root / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        for suffix in self._sizes:
            shutil.copy(self.root / "made" / (ledger.FILE_NAME + suffix), state)
        damage(state, done)
        use(state)

    def shown(self, data: bytes) -> str:
        return f"made = make(tmp_path); damage(tmp_path, {msgspec.json.decode(data, type=Damage)!r}); use(tmp_path)"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        try:
            done = msgspec.json.decode(data, type=Damage)
        except (msgspec.DecodeError, UnicodeDecodeError):
            done = Damage()
        suffix, size = chance.choice(list(self._sizes.items()))
        match chance.randrange(8):
            case 0 if done.sql:
                del done.sql[chance.randrange(len(done.sql))]
            case 1 if done.bytes:
                del done.bytes[chance.randrange(len(done.bytes))]
            case 2 | 3 | 4:
                done.sql.insert(chance.randrange(len(done.sql) + 1), self._statement(chance))
            case 5:
                done.lengths = [(suffix, chance.randrange(size))] if chance.random() < 0.5 else []
            case _:
                most = chance.choice([100, _PAGE, size])  # the header of SQLite has 100 bytes
                content = chance.choice([[chance.randrange(256)], [0], [255] * 4, list(chance.randbytes(16))])
                done.bytes.append((suffix, chance.randrange(most), content))
        return json.dumps(msgspec.to_builtins(done)).encode()

    def _statement(self, chance: random.Random) -> str:
        column, value = chance.choice(ledger.Row.__struct_fields__), chance.choice(_VALUES)
        if chance.random() < 0.3:
            parts = {"column": column, "number": chance.choice(_NUMBERS), "index": chance.choice(_INDEXES)}
            return chance.choice(_STATEMENTS).format(**parts)
        if chance.random() < 0.2:
            column = chance.choice(["id", "at", "uuid", "name", "from_state", "to_state", "owner", "reason"])
            return f"UPDATE history SET {column} = {value} WHERE id = {chance.randrange(12)}"  # noqa: S608  a database of our own
        return f"UPDATE namespace SET {column} = {value} WHERE rowid = {chance.randrange(1, 7)}"  # noqa: S608
