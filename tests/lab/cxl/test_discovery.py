"""CXL memory, persistent and volatile, as real sysfs and real ndctl show it."""

import json

import pytest

from tests.lab.cxl import ready
from tests.lab.cxl.host import PERSISTENT, VOLATILE


@pytest.fixture(scope="module")
def rows(host):
    """What both ways of discovery list, by name."""
    found = ready.listed(host, "ndctl")
    assert found == ready.listed(host, "sysfs")
    ready.configure(host)
    return {row["name"]: row for row in found}


def test_ndctl_and_sysfs_agree(rows, seen):
    assert len(rows) == 14
    seen("ndctl and sysfs list the same", f"{len(rows)} namespaces, every column")


def test_all_are_usable(rows, seen):
    assert {row["state"] for row in rows.values()} == {"unknown"}
    seen("listed as usable", ", ".join(rows))


def test_each_says_on_which_card_it_is(host, rows, seen):
    memdevs = host.memdevs()
    both, first = ",".join(memdevs[serial] for serial in PERSISTENT), memdevs[PERSISTENT[0]]
    volatile = rows[ready.volatile_names(list(rows.values()))[0]]
    keys = ("provider", "persistence_domain", "memdev", "serial")
    assert [rows["power0"][key] for key in keys] == ["CXL", "memory_controller", both, "0x11,0x22"]
    assert [rows["single"][key] for key in keys] == ["CXL", "memory_controller", first, "0x11"]
    assert [volatile[key] for key in keys] == ["cxl", None, memdevs[VOLATILE], "0x33"]
    for name in ("power0", "single", volatile["name"]):
        row = rows[name]
        seen(f"where {name} is", f"{row['provider']}, {row['memdev']}, serial number {row['serial']}")


def test_the_check_of_the_host_says_it_too(host, seen):
    told = json.loads(host.call("vpmem", ["host", "check", "-f", "json"])["out"])
    found = [row for row in told if row["check"] == "hardware"]
    assert [row["level"] for row in found] == ["ok"] * 3
    text = " / ".join(row["message"] for row in found)
    assert "serial 0x11,0x22" in text
    assert "cxl: 4 volatile namespaces" in text
    seen("vpmem host check", text)
