"""What ``vpmem plan`` says is what ndctl makes, and a guest boots on it."""

import pytest

from tests.lab import daemon, planned, ready
from tests.lab.host import STATE
from tests.lab.test_power import listed
from tests.lab.test_with_guest import booted, line


def test_ndctl_makes_what_the_plan_says(cut, seen):
    sizes = {found["name"]: found["size"] for found in cut.host.run("ndctl", "list", "--namespaces").json}
    assert sizes == {step["name"]: step["size"] for step in cut.plan["steps"]}
    free = {found["dev"]: found["available_size"] for found in cut.host.run("ndctl", "list", "--regions").json}
    assert free == {region["dev"]: region["unused"] for region in cut.plan["regions"]}
    assert [flavor["guests"] for flavor in cut.plan["flavors"]] == [1, 2, 1]
    count = len(cut.plan["steps"])
    assert cut.shown.out.count("ndctl create-namespace") == cut.provisioned.out.count("ndctl create-namespace") == count
    seen("vpmem plan", f"{count} namespaces for 4 guests, no better plan; {cut.planned.seconds:.1f} s")
    seen("vpmem provision --yes", f"every size as planned, as is what is left; {cut.provisioned.seconds:.1f} s")


def test_nothing_is_cut_twice(cut, seen):
    again = cut.host.vpmem("provision", planned.PLAN, "--yes").out
    assert "ndctl" not in again
    assert again.splitlines()[-1] == f"pmem_namespaces = {cut.plan['pmem_namespaces']}"
    seen("vpmem provision --yes again", "all namespaces of the plan exist")


@pytest.fixture(scope="module")
def owner(cut):
    """A guest that is defined and off."""
    daemon.start(cut.host)
    made, domain_xml = daemon.small_guest()
    daemon.define(cut.host, domain_xml)
    return made


def test_a_guest_boots_on_what_was_cut(cut, owner, seen):
    (row,) = cut.host.vpmem("domain", "attach", "guest", "GUEST", "-f", "json").json
    assert (row["name"], row["owner"]) == ("GUEST-0", owner)
    device = booted(cut.host)
    assert device.size == ready.GUEST_SIZE
    assert ready.GUEST_SIZE in {step["guest"] for step in cut.plan["steps"] if step["name"] == "GUEST-0"}
    assert device.zeros
    assert device.holds(owner, 0)
    seen("a guest on what was cut", f"sees {device.size >> 20} MiB as planned, all zero")
    assert {listed(cut.host)[step["name"]]["label"] for step in cut.plan["steps"]} == {"GUEST", "PAIR", "RAM"}


def test_the_ledger_is_lost_while_the_guest_runs(cut, owner, seen):
    row = listed(cut.host)["GUEST-0"]
    cut.host.run("sh", "-c", f"rm {STATE}/ledger.sqlite3*")
    assert listed(cut.host)["GUEST-0"]["owner"] is None
    assert "adopt" in cut.host.vpmem("reconcile", code=8).out
    assert listed(cut.host)["GUEST-0"]["owner"] is None
    cut.host.vpmem("reconcile", "--yes")
    after = listed(cut.host)["GUEST-0"]
    assert (after["uuid"], after["state"], after["owner"]) == (row["uuid"], "claimed", owner)
    assert cut.host.call("content", row["device"], ready.GUEST_SIZE) == line(owner)
    cut.host.vpmem("reconcile")
    seen(
        "vpmem reconcile --yes after a lost ledger",
        f"GUEST-0 is {after['state']} by its running guest again, unchanged",
    )


def test_a_region_in_use_is_not_touched(cut, owner, seen):
    more = planned.FLAVORS.replace('pmem = "RAM"\ncount = 1', 'pmem = "RAM"\ncount = 8')
    cut.host.call("write", "/run/more.toml", more)
    (plan,) = cut.host.vpmem("plan", "/run/more.toml", "--output", "/run/more.json", "-f", "json").json
    assert [(label["kept"], label["new"]) for label in plan["labels"]] == [(1, 0), (4, 0), (1, 7)]
    before = cut.host.run("ndctl", "list", "--namespaces", "--idle").json
    refused = cut.host.vpmem("provision", "/run/more.json", "--yes", code=4).err
    assert f"Namespace GUEST-0 is in use by {owner}" in refused
    assert cut.host.run("ndctl", "list", "--namespaces", "--idle").json == before
    seen("provision beside a claimed one", refused.removeprefix("vpmem: ").strip())
    cut.host.run("virsh", "destroy", "guest")
    cut.host.vpmem("domain", "detach", "guest", "--wait")
    assert listed(cut.host)["GUEST-0"]["state"] == "clean"
