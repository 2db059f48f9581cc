"""What the checker of ``./dev concurrency`` notices, on a ledger and accounts that are made up."""

import json
import random
import sqlite3

import pytest

from tests.concurrency import checker, host

ME, OTHER, NAMESPACE = "me", "other", "n"


class MadeUp:
    """A host with one namespace."""

    def __init__(self, root):
        (root / "state").mkdir()
        (root / "memory").mkdir()
        self.host = host.Host(root, root / "memory")
        self.path = root / "memory" / "small0"
        self.path.write_bytes(bytes(host.SIZE))
        self.database = sqlite3.connect(self.host.ledger, isolation_level=None)
        self.database.execute("CREATE TABLE namespace (uuid, name, state, owner, reservation, changed)")
        self.database.execute(
            "CREATE TABLE history (id INTEGER PRIMARY KEY, uuid, from_state, to_state, owner, reason)"
        )
        self.database.execute("INSERT INTO namespace VALUES (?, 'small0', 'unknown', NULL, NULL, 0)", (NAMESPACE,))
        self.state = None
        self.checker = checker.Checker(self.host, random.Random(0))

    def move(self, state, owner=None, why=""):
        done = self.database.execute(
            "INSERT INTO history (uuid, from_state, to_state, owner, reason) VALUES (?, ?, ?, ?, ?)",
            (NAMESPACE, self.state, state, owner, why),
        )
        held = owner if state == "claimed" else None
        self.database.execute("UPDATE namespace SET state = ?, owner = ?, changed = ?", (state, held, done.lastrowid))
        self.state = state
        return done.lastrowid

    def tell(self, **line):
        with self.host.account("pool 0").open("a") as file:
            file.write(json.dumps({"kind": "test"} | line if "writes" not in line else line) + "\n")

    def claim(self, owner):
        last = self.move("claimed", owner)
        self.tell(owner=owner, got=[NAMESPACE], first=last - 1, last=last)

    def release(self, owner):
        last = self.move("dirty", owner)
        self.tell(owner=owner, gave=[NAMESPACE], first=last - 1, last=last)

    def wipe(self):
        last = self.move("clean", why="wiped")
        self.tell(wiped=[NAMESPACE], first=last - 1, last=last)

    @property
    def found(self):
        self.checker.look()
        self.checker.finish()
        return self.checker.violations


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(checker, "SAMPLES", 1)
    found = MadeUp(tmp_path)
    found.move("unknown", why="first seen")
    found.move("dirty")
    found.wipe()
    yield found
    found.database.close()
    found.checker.close()


def test_a_life_without_a_fault(made):
    made.claim(ME)
    made.release(ME)
    made.wipe()
    made.claim(OTHER)
    made.release(OTHER)
    assert made.found == []


def test_two_owners(made):
    made.claim(ME)
    made.claim(OTHER)
    assert "from me to other directly" in made.found[0]


def test_the_bytes_of_another_owner(made):
    made.claim(ME)
    made.release(ME)
    made.claim(OTHER)
    assert "with the bytes of me" in made.found[0]


def test_a_claim_that_the_ledger_does_not_have(made):
    made.tell(owner=ME, got=[NAMESPACE], first=3, last=9)
    assert "have it 0 times" in made.found[0]


def test_two_callers_are_told_of_one_claim(made):
    made.claim(ME)
    made.tell(owner=ME, got=[NAMESPACE], first=3, last=4)
    assert "have it 0 times" in made.found[0]


def test_a_claim_that_nobody_was_told_of(made):
    made.move("claimed", ME)
    assert "nobody was told" in made.found[0]


def test_something_is_left_reserved(made):
    made.database.execute("UPDATE namespace SET owner = 'me', reservation = 'r'")
    assert made.found == ["at the end small0 is clean, owner me, reservation r"]


def test_a_line_of_the_history_is_lost(made):
    made.move("dirty")
    made.move("clean", why="wiped")
    made.database.execute("DELETE FROM history WHERE id = 4")
    assert "has line 5 after line 3" in made.found[0]


def test_what_was_kept_was_not_held(made):
    made.tell(owner=ME, kept=[NAMESPACE], first=3, last=3)
    assert "told that it holds n" in made.found[0]


def test_a_wipe_that_was_not(made):
    last = made.move("dirty")
    made.tell(wiped=[NAMESPACE], first=last, last=last)
    assert "was said to be wiped" in made.found[0]


def test_a_listing_that_was_never_right(made):
    made.tell(seen=[NAMESPACE, "claimed", ME], first=3, last=3)
    assert "was listed as claimed for me" in made.found[0]


def test_a_clean_namespace_that_is_not_zero(made):
    made.path.write_bytes(b"x" + bytes(host.SIZE - 1))
    assert "its bytes are others" in made.found[0]


def test_a_claimed_namespace_that_has_changed(made):
    made.claim(ME)
    host.write(str(made.path), ME, NAMESPACE, 1)
    made.tell(writes=[ME, NAMESPACE, 1])
    made.checker.look()
    made.checker.look()
    assert made.checker.violations == []
    host.write(str(made.path), OTHER, NAMESPACE, 1)
    assert "its bytes are others" in made.found[0]
