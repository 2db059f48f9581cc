"""The plug is pulled in the middle of everything; then the device nodes have other numbers."""

import collections
import dataclasses
import json
import random
import time
import uuid

import pytest

from tests.lab import inside, ready

DEADLINE_SECONDS = 300

NAMES = ready.LABELS["POWER"]
KEPT, LEFT = NAMES[:2]


def listed(host):
    """The namespaces as vpmem lists them, by name."""
    return {row["name"]: row for row in host.vpmem("namespace", "list", "-f", "json").json}


def power_cycle(host):
    """Off, and on again with other device nodes."""
    host.power_off()
    host.boot()
    ready.configure(host, discovery="sysfs")


def wait_until(host, condition):
    """Wait for `condition`; returns what it gave."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, host.call("read", inside.STARTED_LOG)
        time.sleep(0.2)
    return found


def wait_for_rows(host, condition):
    """Wait until the ledger's rows satisfy `condition`; returns them."""

    def rows():
        found = host.call("ledger", ready.LEDGER)
        return found if condition(found) else None

    return wait_until(host, rows)


def in_the_middle(row):
    return row["begun"] and 0 < row["wiped"] < row["size"]


def notes(host):
    """What was noted outside by what ran in the host. The last line may not be whole."""
    text = host.notes.read_text() if host.notes.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


@dataclasses.dataclass
class Story:
    """What was going on when the power went, and what there was before and after: listings, and the ledger's rows."""

    keeper: str
    newcomer: str
    reserved: str
    wiped: str
    unknown: str
    before: dict[str, dict]
    rows: dict[str, dict]
    after: dict[str, dict]


@pytest.fixture(scope="module")
def story(host):
    """Off in the middle of a wipe, of a claim and of a release, while other guests come and go."""
    keeper, leaver, newcomer = (str(uuid.uuid4()) for _ in range(3))
    ready.configure(host, discovery="sysfs")
    before = listed(host)
    host.call("start_churn", ready.CONFIG, "CHURN")
    for name in NAMES:
        host.call("fill", before[name]["device"], f"somebody's {name}")
    host.vpmem("adopt", keeper, KEPT)
    host.vpmem("adopt", leaver, LEFT)

    slowly = ["--config-file", ready.SLOW_CONFIG]
    host.call("start_vpmem", [*slowly, "claim", newcomer, "POWER"])
    rows = wait_for_rows(host, lambda rows: any(row["owner"] == newcomer for row in rows.values()))
    (reserved,) = (name for name in NAMES if rows[name]["owner"] == newcomer)
    wiped, unknown = (name for name in NAMES if name not in {KEPT, LEFT, reserved})
    host.call("start_vpmem", [*slowly, "release", leaver])
    host.call("start_vpmem", [*slowly, "wipe", "--namespace", wiped])
    wanted = random.randrange(2, 8)
    wait_until(host, lambda: len(notes(host)) >= wanted)
    rows = wait_for_rows(host, lambda rows: all(in_the_middle(rows[name]) for name in (LEFT, wiped, reserved)))
    power_cycle(host)
    return Story(keeper, newcomer, reserved, wiped, unknown, before, rows, listed(host))


def test_device_nodes_have_other_numbers(story, seen):
    assert set(story.after) == set(story.before)
    for name, row in story.after.items():
        assert row["uuid"] == story.before[name]["uuid"]
        assert row["device"] != story.before[name]["device"]
    seen("another order of the NVDIMMs", f"{story.before[LEFT]['device']} is {story.after[LEFT]['device']} now")


def test_off_in_the_middle_of_a_wipe_a_claim_and_a_release(host, story, seen):
    after, begun = story.after, (LEFT, story.wiped, story.reserved)
    assert {name: (after[name]["state"], after[name]["owner"]) for name in NAMES} == {
        KEPT: ("claimed", story.keeper),
        LEFT: ("dirty", None),
        story.wiped: ("dirty", None),
        story.reserved: ("dirty", story.newcomer),
        story.unknown: ("unknown", None),
    }
    for name in (KEPT, story.unknown):
        assert host.call("content", after[name]["device"]) == f"somebody's {name}"
    ledger = host.call("ledger", ready.LEDGER)
    for name in begun:
        assert ledger[name]["wiped"] >= story.rows[name]["wiped"]
        assert host.call("first_nonzero", after[name]["device"]) >= ledger[name]["wiped"]
    for what, name in (("wipe", story.wiped), ("release", LEFT), ("claim", story.reserved)):
        seen(f"power off in a {what}", f"{after[name]['state']}, {after[name]['reason']}")


def test_off_at_any_moment(host, story, seen):
    told = notes(host)
    after = [row for row in story.after.values() if row["label"] == "CHURN"]
    owners = {row["owner"]: row for row in after if row["state"] == "claimed"}
    last = {owner: (step, namespace) for step, owner, namespace in told}
    for owner, (step, namespace) in last.items():
        if step == "filled":
            assert owners.get(owner, {}).get("uuid") == namespace, f"{owner} lost what it held"
        elif step == "left":
            assert owner not in owners, f"{owner} has back what it left"
    for row in after:
        word = host.call("content", row["device"])
        match row["state"]:
            case "claimed" if row["owner"] in last:
                assert word == row["owner"], "bytes were lost"
            case "claimed":
                assert word.strip("…") in {"", row["owner"]}, "another owner's bytes were handed out"
            case "clean":
                assert not word
    states = collections.Counter(row["state"] for row in after)
    said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    seen("power off at any moment", f"after {len(told)} noted steps of {len(last)} owners: {said}; all as noted")


def test_nothing_is_lost_leaked_or_handed_out_twice(host, story, seen):
    other = str(uuid.uuid4())
    host.vpmem("claim", other, "POWER,POWER,POWER,POWER", code=3)
    host.vpmem("wipe")
    granted = host.vpmem("claim", other, "POWER,POWER", "-f", "json").json
    assert {row["name"] for row in granted} == {LEFT, story.wiped}
    last = listed(host)
    assert {name for name in NAMES if last[name]["owner"] == story.newcomer} == {story.reserved}
    assert {last[name]["state"] for name in (story.reserved, LEFT, story.wiped)} == {"claimed"}
    for name in (story.reserved, LEFT, story.wiped):
        assert not host.call("content", last[name]["device"])
    for name in (KEPT, story.unknown):
        assert host.call("content", last[name]["device"]) == f"somebody's {name}"
    assert not any(host.call("content", row["device"]) for row in last.values() if row["state"] == "clean")
    seen("the wipes after that", "went on; what was held has its bytes, the rest is zeros and one owner's each")
