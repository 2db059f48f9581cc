"""Every kind of namespace that ndctl and daxctl can make, as real sysfs and real ndctl show it."""

import pytest

from tests.lab import ready
from tests.proofs import CELLS, proves

#: A part of the reason, for those that cannot be given to a guest.
UNUSABLE = {
    None: "it has no name",
    "files": "its mode is fsdax",
    "fsdax": "its mode is fsdax",
    "off": "it is disabled; 'ndctl enable-namespace namespace",
    "ram": "mode system-ram; 'daxctl reconfigure-device",
    "raw": "its mode is raw",
    "sector": "its mode is sector",
}


@pytest.fixture(scope="module")
def listed(host):
    """What each way of discovery lists."""
    made = {found.get("name"): found for found in host.run("ndctl", "list", "--device-dax").json}
    host.run("ndctl", "disable-namespace", made["off"]["dev"])
    (device,) = made["ram"]["daxregion"]["devices"]
    host.run("daxctl", "reconfigure-device", "--mode=system-ram", device["chardev"])
    lists = {}
    for discovery in ("sysfs", "ndctl"):
        ready.configure(host, discovery=discovery)
        lists[discovery] = host.vpmem("namespace", "list", "--all", "-f", "json").json
    return lists


def test_ndctl_and_sysfs_agree(listed, seen):
    assert listed["ndctl"] == listed["sysfs"]
    assert len(listed["ndctl"]) == 27
    seen("ndctl and sysfs list the same", f"{len(listed['ndctl'])} namespaces, every column")


@proves(*CELLS, kinds=("fsdax",), no="it is a block device; make a DAX filesystem on it, and files in that")
def test_each_kind_has_the_right_reason(listed, seen):
    rows = {row["name"]: row for row in listed["ndctl"] if row["state"] == "unusable"}
    assert set(rows) == set(UNUSABLE)
    for name, reason in UNUSABLE.items():
        assert reason in rows[name]["reason"]
        seen(f"listed as unusable: {name or 'unnamed'}", rows[name]["reason"])


def test_usable_ones_have_size_alignment_node_and_device(listed, seen):
    rows = {row["name"]: row for row in listed["ndctl"] if row["state"] == "unknown"}
    assert {name: rows[name]["align"] for name in ("mem", "dev", "fine")} == {
        "mem": 2 << 20,
        "dev": 2 << 20,
        "fine": 4096,
    }
    assert {rows[name]["numa_node"] for name in ("mem", "dev", "fine")} == {0}
    assert {rows[name]["numa_node"] for name in ("big", "power0", "guest")} == {1}
    assert all(row["device"].startswith("/dev/dax") for row in rows.values())
    seen("listed as usable", "devdax with map=mem, with map=dev, and with 4 KiB alignment, with their NUMA nodes")


def test_two_of_one_name_are_told_by_uuid(host, listed, seen):
    twins = [row["uuid"] for row in listed["ndctl"] if row["name"] == "twin"]
    assert len(twins) == 2
    ready.configure(host, labels={"TWIN": ["twin"]})
    refused = host.vpmem("namespace", "list", code=2).err
    assert all(uuid in refused for uuid in twins)
    ready.configure(host, labels={"TWIN": twins})
    assert [row["uuid"] for row in host.vpmem("namespace", "list", "-f", "json").json] == sorted(twins)
    ready.configure(host)
    seen("two namespaces of one name", "refused by name, usable by uuid")
