"""The map of a host."""

import io
import types

import pytest
from rich import console

from tests.unit.checkup.conftest import MadeHost
from vpmem_driver import exception, model
from vpmem_driver.cli import hostmap
from vpmem_driver.pool import Progress
from vpmem_driver.sizes import GIB, MIB

OWNER = "11111111-1111-4111-8111-111111111111"


def record(name, size, state="clean", *, node=0, owner=None):
    known = {"resource_class": None, "align": 2 * MIB, "device": None, "reason": None, "guest_size": size - 2 * MIB}
    return model.Record(uuid=name, name=name, label="L", size=size, state=state, numa_node=node, owner=owner, **known)


def rendered(records, *, memory=None, width=80, progress=None, errors=()):
    names = types.SimpleNamespace(short=lambda uuid: "" if uuid is None else "db1")
    now = types.SimpleNamespace(records=records, progress=(progress or {}).get, errors=errors)
    target = console.Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    target.print(hostmap.HostMap(now, memory or {}, names))
    return target.file.getvalue().splitlines()


def test_bars_are_to_scale_and_fill_the_line():
    lines = rendered([record("big", 3 * GIB, "claimed", owner=OWNER), record("small", GIB)], width=81)
    assert lines[0] == "node 0: 4.00 GiB, 2 namespaces"
    _, big, small, end = lines[1].split("|")
    assert (len(lines[1]), end) == (81, "")
    assert (big.strip("#"), small.strip(".")) == (" big ", " small ")
    assert (len(big) + 1, len(small) + 1) == (60, 20)
    assert lines[2].split() == ["big", "3.00", "GiB", "claimed", "L", "db1"]
    assert lines[4] == "  guests get 4.00 GiB; labels and alignment take 4194304 bytes"
    assert lines[-1].split() == ["...", "clean", "###", "claimed"]


def test_what_info_blocks_cost_and_what_is_unused():
    lines = rendered([record("a", 2 * GIB)], memory={0: hostmap.Memory(4 * GIB, 2 * GIB - 32 * MIB)})
    assert lines[0] == "node 0: 4.00 GiB, 1 namespace"
    assert lines[4] == "  info blocks and page descriptors take 32.00 MiB; 2016.00 MiB unused"
    assert lines[1].rstrip("|").endswith(" " * 30)


@pytest.mark.parametrize("width", [40, 80, 100, 200])
@pytest.mark.parametrize("count", [1, 7, 500])
def test_no_line_is_longer_than_the_terminal(width, count):
    records = [record(f"namespace-{number}", (number % 5 + 1) * GIB, owner=OWNER) for number in range(count)]
    lines = rendered(records, width=width)
    assert max(map(len, lines)) <= width
    assert len(lines[1]) == width
    assert all(line.isascii() or "…" in line for line in lines)


def test_a_wipe_has_a_bar():
    lines = rendered([record("a", GIB, "dirty")], progress={"a": Progress(40, "wiped", 400, 2000)})
    assert "dirty [========            ] 40% wiped" in lines[2]


def test_nothing_but_an_error():
    error = exception.LedgerError(path="/x", reason="it is full", remedy="Free space")
    assert rendered([], errors=[error])[-1] == str(error)


def test_nodes_without_a_number_come_last():
    lines = rendered([record("a", GIB, node=None), record("b", GIB, node=1)])
    assert [line.split(":")[0] for line in lines if line.startswith("node ")] == ["node 1", "node unknown"]


def test_the_memory_of_a_host(tmp_path):
    made = MadeHost(tmp_path)
    for region, size, available, node in (
        ("region0", GIB, "0x100", 0),
        ("region1", GIB, "512", 0),
        ("region2", 5, 0, -1),
    ):
        for name, value in (("size", size), ("available_size", available), ("numa_node", node)):
            made.write(f"/sys/bus/nd/devices/{region}/{name}", f"{value}\n")
    made.write("/sys/bus/nd/devices/region3/size", "garbage")
    made.write("/sys/bus/nd/devices/ndbus0/size", "7")
    assert hostmap.memory_of(made) == {0: hostmap.Memory(2 * GIB, 768), None: hostmap.Memory(5, 0)}
    assert hostmap.memory_of(MadeHost(tmp_path / "empty")) == {}
