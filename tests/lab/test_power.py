"""The plug is pulled in the middle of things; then the device nodes have other numbers."""

import collections
import json
import pathlib
import random
import sys
import time
import uuid

from tests.lab import inside, ready

DEADLINE_SECONDS = 300


def listed(host):
    """The namespaces as vpmem lists them, by name."""
    return {row["name"]: row for row in host.vpmem("namespace", "list", "-f", "json").json}


def power_cycle(host):
    """Off, and on again with other device nodes."""
    host.power_off()
    host.boot()
    ready.configure(host, discovery="sysfs")


def notes(host):
    """What was noted outside by what ran in the host. The last line may not be whole."""
    text = host.notes.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


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


def slowly(host, *words):
    """Start vpmem, with wipes that take long."""
    host.call("start_vpmem", ["--config-file", ready.SLOW_CONFIG, *words])


def in_the_middle(row):
    return row["begun"] and 0 < row["wiped"] < row["size"] * 3 / 4


def test_off_in_the_middle_of_a_wipe_a_claim_and_a_release(host, seen):
    keeper, leaver, newcomer, other = (str(uuid.uuid4()) for _ in range(4))
    names = ready.LABELS["POWER"]
    ready.configure(host, discovery="sysfs")
    before = listed(host)
    for name in names:
        host.call("fill", before[name]["device"], f"somebody's {name}")
    kept, left = names[:2]
    host.vpmem("adopt", keeper, kept)
    host.vpmem("adopt", leaver, left)

    slowly(host, "claim", newcomer, "POWER,POWER")
    rows = wait_for_rows(host, lambda rows: sum(row["owner"] == newcomer for row in rows.values()) == 2)
    reserved = [name for name in names if rows[name]["owner"] == newcomer]
    (wiped, unknown) = (name for name in names if name not in {kept, left, *reserved})
    slowly(host, "wipe", "--namespace", wiped)
    slowly(host, "release", leaver)
    rows = wait_for_rows(host, lambda rows: all(in_the_middle(rows[name]) for name in (left, wiped, *reserved)))
    power_cycle(host)

    after = listed(host)
    assert all(after[name]["device"] != before[name]["device"] for name in names)
    assert all(after[name]["uuid"] == before[name]["uuid"] for name in names)
    states = {name: (after[name]["state"], after[name]["owner"]) for name in names}
    assert states == {
        kept: ("claimed", keeper),
        left: ("dirty", None),
        wiped: ("dirty", None),
        **dict.fromkeys(reserved, ("dirty", newcomer)),
        unknown: ("unknown", None),
    }
    assert host.call("content", after[kept]["device"]) == f"somebody's {kept}"
    assert host.call("content", after[unknown]["device"]) == f"somebody's {unknown}"
    ledger = host.call("ledger", ready.LEDGER)
    for name in (left, wiped, *reserved):
        assert ledger[name]["wiped"] >= rows[name]["wiped"]
        assert host.call("first_nonzero", after[name]["device"]) >= ledger[name]["wiped"]
    seen("another order of the NVDIMMs", f"what was {before[wiped]['device']} is {after[wiped]['device']} now")
    seen("power off in a wipe", f"dirty, {after[wiped]['reason']}")
    seen("power off in a release", f"dirty, {after[left]['reason']}, nobody's")
    seen("power off in a claim", f"dirty, {after[reserved[0]]['reason']}")

    host.vpmem("claim", other, "POWER,POWER,POWER,POWER", code=3)
    host.vpmem("wipe")
    granted = host.vpmem("claim", other, "POWER,POWER,POWER", "-f", "json").json
    assert {row["name"] for row in granted} == {left, wiped, unknown}
    last = listed(host)
    assert {name for name in names if last[name]["owner"] == newcomer} == set(reserved)
    assert {last[name]["state"] for name in names} == {"claimed"}
    assert {host.call("content", last[name]["device"]) for name in names if name != kept} == {""}
    assert host.call("content", last[kept]["device"]) == f"somebody's {kept}"
    seen("the wipes after that", "went on; what was held has its bytes, the rest is zeros and one owner's each")


def test_off_at_any_moment(host, seen):
    before = listed(host)
    host.call("start", [sys.executable, "-P", str(pathlib.Path(__file__).with_name("churn.py")), ready.CONFIG, "CHURN"])
    wanted = random.randrange(10, 20)
    wait_until(host, lambda: len(notes(host)) >= wanted)
    power_cycle(host)
    told = notes(host)
    assert len(told) >= wanted

    after = {name: row for name, row in listed(host).items() if row["label"] == "CHURN"}
    assert all(row["device"] != before[name]["device"] for name, row in after.items())
    owners = {row["owner"]: row for row in after.values() if row["state"] == "claimed"}
    last = {owner: (step, namespace) for step, owner, namespace in told}
    for owner, (step, namespace) in last.items():
        if step == "filled":
            assert owners[owner]["uuid"] == namespace, f"{owner} lost what it held"
        elif step == "left":
            assert owner not in owners, f"{owner} has back what it left"
    for row in after.values():
        word = host.call("content", row["device"])
        match row["state"]:
            case "claimed" if row["owner"] in last:
                assert word == row["owner"], "bytes were lost"
            case "claimed":
                assert word.strip("…") in {"", row["owner"]}, "another owner's bytes were handed out"
            case "clean":
                assert word == ""
    states = collections.Counter(row["state"] for row in after.values())
    kept = sum(step == "filled" for step, _ in last.values())
    said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    seen("power off at any moment", f"after {len(told)} steps of {len(last)} owners: {said}; {kept} owners kept theirs")
