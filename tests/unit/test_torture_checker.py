"""The checker of ./dev torture sees each violation, made by hand, and lets pass what is sound."""

import random
import sqlite3

import pytest

from tests.torture import crew, mutants
from tests.torture.checker import INVARIANTS, Checker, Step, Violation
from tests.torture.facts import Facts
from tests.torture.plan import Plan, Task
from tests.torture.world import PAGE, UNIT, World, pattern

WIPE = Step("a wipe", wipes=True)
NOTHING = Step("somebody")
SCHEMA = """
CREATE TABLE namespace (uuid TEXT PRIMARY KEY, name TEXT, size INTEGER, state TEXT, owner TEXT, wiped INTEGER,
    begun INTEGER);
CREATE TABLE history (id INTEGER PRIMARY KEY, uuid TEXT, from_state TEXT, to_state TEXT, owner TEXT);
"""


class Asked:
    """What processes were asked to do: everything, but for what a test takes away."""

    end = begin = adopt = True

    def may_end(self, _tenure):
        return self.end

    def may_begin(self, _owner, _uuid):
        return self.begin

    def may_adopt(self, _owner, _uuid):
        return self.adopt


class Scene:
    """One namespace that is followed, "n", its file, and a ledger that a test writes as it likes."""

    def __init__(self, directory):
        self.world = World(directory, random.Random(1))
        self.file = self.world.namespaces[0]
        self.world.state_path.mkdir()
        self.database = sqlite3.connect(self.world.ledger_path, isolation_level=None)
        self.database.executescript(SCHEMA)
        self.database.execute(
            "INSERT INTO namespace VALUES ('n', ?, ?, 'unknown', NULL, 0, 0)", (self.file.name, self.file.size)
        )
        self.line(None, "unknown")
        self.checker = Checker(self.world)
        self.asked = self.checker.rules = Asked()
        self.check()

    def line(self, before, after, owner=None):
        self.database.execute(
            "INSERT INTO history (uuid, from_state, to_state, owner) VALUES ('n', ?, ?, ?)", (before, after, owner)
        )

    def row(self, **values):
        for column, value in values.items():
            self.database.execute(f"UPDATE namespace SET {column} = ?", (value,))  # noqa: S608  fixed names

    def check(self, step=NOTHING):
        return self.checker.check(step)

    def move(self, after, owner=None):
        """A move as the package makes it, and a look at it."""
        self.line(self.checker.rows["n"].state, after, owner)
        self.row(state=after, owner=owner, begun=0, wiped=0)
        self.check()

    def store(self, data, step=NOTHING):
        """Have the file contain `data` again and again, and look."""
        self.file.path.write_bytes(data * (self.file.size // len(data)))
        self.check(step)

    def wipe(self):
        """Make it clean, from dirty."""
        self.row(begun=1)
        self.store(bytes(UNIT), WIPE)
        self.move("clean")

    def write(self, owner):
        """Have an owner write."""
        unit = pattern(owner, UNIT)
        self.store(unit, Step(owner, writes=(self.file.inode, unit)))

    def to(self, state):
        """Bring it to a state in a sound way; it is "old"'s when it is claimed, and was before it was dirty."""
        self.move("dirty")
        self.wipe()
        if state != "clean":
            self.move("claimed", "old")
            self.write("old")
        if state == "dirty":
            self.move("dirty")


@pytest.fixture
def scene(tmp_path):
    made = Scene(tmp_path)
    yield made
    made.database.close()


def test_a_sound_life_passes(scene):
    scene.to("dirty")
    scene.move("claimed", "old")  # adopted
    scene.move("dirty")
    scene.row(begun=1)
    scene.file.path.write_bytes(bytes(PAGE) + scene.file.content[PAGE:])
    scene.check(WIPE)
    scene.row(wiped=PAGE)
    scene.check()
    scene.wipe()
    scene.move("claimed", "new")
    scene.checker.note_durable()
    assert scene.checker.told("new", "n", 0).told
    scene.checker.go_back()
    assert scene.checker.tenure("n").owner == "new"


# Each of these breaks one rule in a scene; the name of the check follows in CASES.


def two_owners(scene):
    scene.to("claimed")
    scene.move("claimed", "new")


def taken_away(scene):
    scene.to("claimed")
    scene.asked.end = False
    scene.move("dirty")


def not_asked_for(scene):
    scene.to("clean")
    scene.asked.begin = False
    scene.move("claimed", "new")


def wiped_while_claimed(scene):
    scene.to("claimed")
    scene.store(bytes(UNIT), WIPE)


def wiped_while_unknown(scene):
    scene.store(bytes(UNIT), WIPE)


def wiped_before_it_is_recorded(scene):
    scene.to("dirty")
    scene.store(bytes(UNIT), WIPE)


def zeroed_by_no_wipe(scene):
    scene.to("dirty")
    scene.row(begun=1)
    scene.store(bytes(UNIT))


def wiped_with_something_else(scene):
    scene.to("dirty")
    scene.row(begun=1)
    scene.store(b"x" * UNIT, WIPE)


def wiped_under_a_guest(scene):
    scene.to("dirty")
    scene.row(begun=1)
    scene.store(bytes(UNIT), Step("a wipe", wipes=True, mapped=frozenset({scene.file.inode})))


def written_for_another(scene):
    scene.to("claimed")
    other = scene.world.namespaces[1]
    scene.store(pattern("old2", UNIT), Step("old", writes=(other.inode, pattern("old2", UNIT))))


def clean_with_content(scene):
    scene.to("dirty")
    scene.row(begun=1)
    scene.move("clean")


def clean_with_one_byte(scene):
    scene.to("clean")
    content = bytearray(scene.file.size)
    content[-1] = 1
    scene.file.path.write_bytes(content)
    scene.file.content = bytes(content)
    scene.move("clean")


def progress_ahead(scene):
    scene.to("dirty")
    scene.row(begun=1, wiped=PAGE)
    scene.check()


def granted_unwiped(scene):
    scene.to("dirty")
    scene.asked.adopt = False
    scene.move("claimed", "old")


def granted_with_content(scene):
    scene.to("dirty")
    scene.row(owner="new")
    scene.check()
    scene.move("claimed", "new")


def adopted_from_another(scene):
    scene.to("dirty")
    scene.move("claimed", "new")


def adopted_half_wiped(scene):
    scene.to("dirty")
    scene.row(begun=1)
    scene.file.path.write_bytes(bytes(PAGE) + scene.file.content[PAGE:])
    scene.check(WIPE)
    scene.move("claimed", "old")


def unknown_again(scene):
    scene.move("dirty")
    scene.row(begun=1)
    scene.store(bytes(UNIT), WIPE)
    scene.move("unknown")


def quarantined_for_nothing(scene):
    scene.to("dirty")
    scene.move("quarantined")


def told_too_early(scene):
    scene.to("claimed")
    scene.checker.told("old", "n", 0)


def told_what_is_anothers(scene):
    scene.to("claimed")
    scene.checker.told("new", "n", scene.checker.last_line)


def lost_with_the_power(scene):
    scene.checker.note_durable()
    scene.to("claimed")
    scene.checker.tenure("n").told = True
    scene.checker.go_back()


def a_wipe_lost_with_the_power(scene):
    scene.to("dirty")
    scene.checker.note_durable()
    scene.row(begun=1)
    scene.store(bytes(UNIT), WIPE)
    scene.checker.go_back()


def no_line(scene):
    scene.to("clean")
    scene.row(state="dirty")
    scene.check()


def a_line_that_does_not_follow(scene):
    scene.to("clean")
    scene.line("dirty", "clean")
    scene.check()


def a_line_is_gone(scene):
    scene.to("clean")
    scene.database.execute("DELETE FROM history WHERE id = 2")
    scene.check()


def a_row_is_gone(scene):
    scene.to("clean")
    scene.database.execute("DELETE FROM namespace")
    scene.check()


def another_owner_than_in_its_history(scene):
    scene.to("claimed")
    scene.row(owner="new")
    scene.check()


def facts_of(scene):
    plan = Plan(scene.world, scene.checker, random.Random(1))
    return plan, Facts(scene.world, scene.checker, plan)


def told_released(scene):
    scene.to("claimed")
    _, facts = facts_of(scene)
    task = Task("release", "old")
    facts.ask(task, 0.0)
    facts.hear(task, "done", {"result": {"uuids": ["n"]}})


def told_wiped(scene):
    scene.to("dirty")
    _, facts = facts_of(scene)
    task = Task("wipe", "", ["n"])
    facts.ask(task, 0.0)
    facts.hear(task, "done", {"result": {"wiped": [["n", "wiped"]]}})


def led_to_another_file(scene):
    scene.to("claimed")
    scene.checker.note_durable()
    _, facts = facts_of(scene)
    task = Task("grants", "old")
    facts.ask(task, 0.0)
    grant = {"uuid": "n", "device": str(scene.world.namespaces[1].path), "label": "A", "ready": True}
    facts.hear(task, "done", {"result": {"grants": [grant]}})


def given_while_a_stranger_has_it(scene, state="clean", owner="new"):
    scene.to(state)
    plan, facts = facts_of(scene)
    stray = Task("stray", "", ["n"])
    facts.ask(stray, 0.0)
    plan.note_mapped(stray)
    task = Task("claim_exact", owner, ["n"])
    facts.ask(task, 1.0)
    scene.move("claimed", owner)
    scene.checker.note_durable()
    grant = {"uuid": "n", "device": str(scene.file.path), "label": "A", "ready": True}
    facts.hear(task, "done", {"result": {"grants": [grant]}})


CASES = {
    two_owners: "two owners",
    taken_away: "taken away",
    not_asked_for: "not asked for",
    wiped_while_claimed: "overwritten",
    wiped_while_unknown: "overwritten",
    wiped_before_it_is_recorded: "overwritten",
    zeroed_by_no_wipe: "overwritten",
    wiped_with_something_else: "overwritten",
    wiped_under_a_guest: "overwritten",
    written_for_another: "overwritten",
    clean_with_content: "clean is not zero",
    clean_with_one_byte: "clean is not zero",
    progress_ahead: "progress",
    granted_unwiped: "granted unwiped",
    granted_with_content: "granted is not zero",
    adopted_from_another: "adopted from another",
    adopted_half_wiped: "adopted half wiped",
    unknown_again: "unknown is overwritten",
    quarantined_for_nothing: "quarantined",
    told_too_early: "told too early",
    told_what_is_anothers: "told but not held",
    lost_with_the_power: "lost",
    a_wipe_lost_with_the_power: "lost",
    no_line: "history",
    a_line_that_does_not_follow: "history",
    a_line_is_gone: "history",
    a_row_is_gone: "history",
    another_owner_than_in_its_history: "history",
    told_released: "told released",
    told_wiped: "told wiped",
    led_to_another_file: "identity",
    given_while_a_stranger_has_it: "granted in use",
}


@pytest.mark.parametrize("broken", CASES, ids=lambda broken: broken.__name__)
def test_it_sees(scene, broken):
    with pytest.raises(Violation) as caught:
        broken(scene)
    assert caught.value.check == CASES[broken]


def test_every_invariant_is_tested():
    assert set(CASES.values()) == set(INVARIANTS)


def test_an_owner_may_have_adopted_what_a_stranger_has(scene):
    """Somebody else has adopted it for the owner while its claim was under way."""
    given_while_a_stranger_has_it(scene, "dirty", "old")


@pytest.mark.parametrize("mutant", mutants.breaks(), ids=lambda mutant: mutant.name)
def test_every_break_fits(mutant, tmp_path):
    for file, _, _ in mutant.patches:
        path = tmp_path / "vpmem_driver" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((crew.ROOT / "vpmem_driver" / file).read_bytes())
    mutant.apply(tmp_path)
