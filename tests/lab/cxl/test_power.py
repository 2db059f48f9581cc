"""The plug is pulled in the middle of a wipe, a claim and a release; then regions are gone, and a card."""

import dataclasses
import json
import uuid

import pytest

from tests.lab import ready as lab
from tests.lab.cxl import ready
from tests.lab.cxl.host import PERSISTENT
from tests.lab.test_power import in_the_middle, wait_for_rows

NAMES = ready.LABELS["POWER"]
KEPT, LEFT = NAMES[:2]


@dataclasses.dataclass
class Story:
    """Who had what when the power went, and the ledger's rows then."""

    keeper: str
    newcomer: str
    holder: str
    reserved: str
    wiped: str
    volatile: str
    rows: dict[str, dict]


def findings(host, check):
    """What that check of the host says."""
    told = json.loads(host.call("vpmem", ["host", "check", "-f", "json"])["out"])
    return [row for row in told if row["check"] == check]


@pytest.fixture(scope="module")
def story(host):
    """Off in the middle of a wipe, of a claim and of a release."""
    keeper, leaver, newcomer, holder = (str(uuid.uuid4()) for _ in range(4))
    ready.configure(host, discovery="sysfs")
    before = ready.by_name(host)
    for name in NAMES:
        host.call("fill", before[name]["device"], f"somebody's {name}")
    host.vpmem("adopt", keeper, KEPT)
    host.vpmem("adopt", leaver, LEFT)
    (volatile,) = host.vpmem("claim", holder, "VOLATILE", "-f", "json").json
    host.call("fill", volatile["device"], "the holder's")

    slowly = ["--config-file", lab.SLOW_CONFIG]
    host.call("start_vpmem", [*slowly, "claim", newcomer, "POWER"])
    rows = wait_for_rows(host, lambda rows: any(row["owner"] == newcomer for row in rows.values()))
    (reserved,) = (name for name in NAMES if rows[name]["owner"] == newcomer)
    (wiped,) = (name for name in NAMES if name not in {KEPT, LEFT, reserved})
    host.call("start_vpmem", [*slowly, "release", leaver])
    host.call("start_vpmem", [*slowly, "wipe", "--namespace", wiped])
    rows = wait_for_rows(host, lambda rows: all(in_the_middle(rows[name]) for name in (LEFT, wiped, reserved)))
    ready.power_cycle(host)
    return Story(keeper, newcomer, holder, reserved, wiped, volatile["name"], rows)


def test_without_regions_nothing_is_lost_and_the_cause_is_named(host, story, seen):
    lab.configure(host, discovery="sysfs", labels=ready.LABELS)
    refused = host.vpmem("namespace", "list", code=5).err
    assert f"{story.keeper} holds {KEPT}" in refused
    found = findings(host, "regions")
    assert [(row["level"], row["id"]) for row in found] == [("warning", "VPMEM-C20")] * 2
    assert {row["message"].partition(", has")[0].partition(", ")[2] for row in found} == {
        f"serial number {serial:#x}" for serial in PERSISTENT
    }
    seen("after a boot without regions", found[0]["message"])


def test_off_in_the_middle_of_a_wipe_a_claim_and_a_release(host, story, seen):
    ready.make_regions(host)
    ready.configure(host, discovery="sysfs")
    after = ready.by_name(host)
    assert {name: (after[name]["state"], after[name]["owner"]) for name in NAMES} == {
        KEPT: ("claimed", story.keeper),
        LEFT: ("dirty", None),
        story.wiped: ("dirty", None),
        story.reserved: ("dirty", story.newcomer),
    }
    assert host.call("content", after[KEPT]["device"]) == f"somebody's {KEPT}"
    ledger = host.call("ledger", lab.LEDGER)
    for name in (LEFT, story.wiped, story.reserved):
        assert ledger[name]["wiped"] >= story.rows[name]["wiped"]
        assert host.call("first_nonzero", after[name]["device"]) >= ledger[name]["wiped"]
    for what, name in (("wipe", story.wiped), ("release", LEFT), ("claim", story.reserved)):
        seen(f"power off in a {what}", f"{after[name]['state']}, {after[name]['reason']}")


def test_volatile_memory_is_wiped_for_its_owner(host, story, seen):
    row = ready.by_name(host)[story.volatile]
    assert (row["state"], row["owner"]) == ("dirty", story.holder)
    seen("volatile memory after that", f"{row['state']}, {row['reason']}")
    host.call("fill", row["device"], "what a boot leaves")
    host.vpmem("wipe")
    now = ready.by_name(host)
    assert (now[story.volatile]["state"], now[story.volatile]["owner"]) == ("claimed", story.holder)
    assert not host.call("content", row["device"])
    host.vpmem("release", story.holder, "--wait")
    assert now[story.reserved]["owner"] == story.newcomer
    assert not any(host.call("content", now[name]["device"]) for name in (LEFT, story.wiped, story.reserved))


_PLACE = """
set -e
device=/sys/bus/dax/devices/$1
region=$(readlink -f "$device" | sed 's|\\(.*/region[0-9]*\\)/.*|\\1|')
echo $(($(cat "$device/resource") - $(cat "$region/resource")))
"""


def test_poison_is_reported_quarantines_and_is_repaired(host, story, seen):
    """In the region of one device, whose addresses are those of the region."""
    serial = PERSISTENT[0]
    (before,) = findings(host, "CXL media")
    assert before["level"] == "ok"
    owner = str(uuid.uuid4())
    (spare,) = host.vpmem("claim", owner, "SPARE", "-f", "json").json
    host.vpmem("release", owner, "--wait")
    name = spare["device"].rpartition("/")[2]
    address = int(host.run("sh", "-c", _PLACE, "sh", name).out) + 4096
    host.inject_poison(serial, address)

    (found,) = findings(host, "CXL media")
    assert (found["level"], found["id"]) == ("failure", "VPMEM-C18")
    assert f"serial number {serial:#x}, cannot be read at bytes {address} to {address + 63}" in found["message"]
    seen("poison in a CXL device", found["message"])
    host.vpmem("claim", owner, "SPARE", code=6)
    assert ready.by_name(host)["spare"]["state"] == "quarantined"
    reason = "bad media: bytes 4096 to 4159"
    assert [row["reason"] for row in host.vpmem("quarantine", "list", "-f", "json").json] == [reason]
    host.vpmem("repair", "spare", code=6)
    seen("… a claim, and a repair without more", f"refused: quarantined, {reason}")

    assert f"/sys/kernel/debug/cxl/{host.memdevs()[serial]}/clear_poison" in found["remedy"]
    host.run("sh", "-c", "mountpoint -q /sys/kernel/debug || mount -t debugfs nodev /sys/kernel/debug")
    host.run("sh", "-c", f"echo {address:#x} > /sys/kernel/debug/cxl/{host.memdevs()[serial]}/clear_poison")
    (repaired,) = host.vpmem("repair", "spare", "-f", "json").json
    assert (repaired["name"], repaired["state"]) == ("spare", "clean")
    (after,) = findings(host, "CXL media")
    assert after["level"] == "ok"
    seen("… cleared as the remedy says, and repaired", repaired["state"])


def test_a_disabled_region_is_named_with_its_remedy(host, story, seen):
    region = host.run("sh", "-c", "grep -l '^2$' /sys/bus/nd/devices/region*/mappings").out.split("/")[-2]
    host.run("ndctl", "disable-region", region)
    now = ready.by_name(host)
    assert {now[name]["state"] for name in NAMES} == {"missing"}
    assert now[KEPT]["owner"] == story.keeper
    (fault,) = findings(host, "regions")
    assert (fault["level"], fault["remedy"]) == ("failure", f"Run 'ndctl enable-region {region}'")
    host.run("ndctl", "enable-region", region)
    assert ready.by_name(host)[KEPT]["state"] == "claimed"
    seen("a disabled region", f"{fault['message']}. {fault['remedy']}")


def test_a_card_that_is_gone_leaves_its_records_missing(host, story, seen):
    host.absent = frozenset(PERSISTENT[1:])
    ready.power_cycle(host)
    ready.make_regions(host)
    ready.configure(host, discovery="sysfs")
    gone = ready.by_name(host)
    assert {gone[name]["state"] for name in NAMES} == {"missing"}
    assert {name: gone[name]["owner"] for name in (KEPT, story.reserved)} == {
        KEPT: story.keeper,
        story.reserved: story.newcomer,
    }
    assert gone["single"]["state"] == "unknown"
    host.vpmem("claim", str(uuid.uuid4()), "POWER", code=3)

    host.absent = frozenset()
    ready.power_cycle(host)
    ready.make_regions(host)
    ready.configure(host, discovery="sysfs")
    back = ready.by_name(host)
    assert (back[KEPT]["state"], back[KEPT]["owner"]) == ("claimed", story.keeper)
    assert host.call("content", back[KEPT]["device"]) == f"somebody's {KEPT}"
    seen("a card that is gone at a boot", f"{gone[KEPT]['state']}, {gone[KEPT]['reason']}; back with its bytes")
