"""What it costs to plan a host: one that is like another one, and one that is not."""

import pathlib
import subprocess
import sys
import tempfile

import msgspec
from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver.sizes import GIB, MIB

HOSTS = 10_000
ALIKE, OTHERS = f"{HOSTS} hosts, 3 kinds", f"{HOSTS} hosts, all different"

_FLAVORS = """
[labels]
4GB = "4GiB"
2GB = "2GiB"
SMALL = "512MiB"
[flavors.db]
pmem = "4GB,2GB"
weight = 1
[flavors.cache]
pmem = "SMALL"
weight = 2
"""


def _region(number: int, size: int) -> dict[str, object]:
    known = {"dev": f"region{number}", "iset_id": number, "numa_node": number, "type": "pmem", "align": 16 * MIB}
    return known | dict.fromkeys(("size", "available_size", "max_available_extent"), size)


def make(directory: pathlib.Path, hosts: int, kinds: int) -> None:
    """Write the inventories of hosts with two regions, for about 64 namespaces each."""
    for number in range(hosts):
        more, most = divmod(number % kinds, 100)
        regions = [_region(0, 50 * GIB + 16 * MIB * more), _region(1, 54 * GIB + 16 * MIB * most)]
        (directory / f"host{number:05}.json").write_bytes(msgspec.json.encode(regions))


def run(directory: pathlib.Path) -> None:
    """Plan them all."""
    flavors = directory.with_name("flavors.toml")
    flavors.write_text(_FLAVORS)
    words = ["-m", "vpmem_driver.cli.main", "plan", flavors, "--inventory", directory]
    subprocess.run([sys.executable, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def ours(measure: Measure) -> None:
    """The program, from its start to its end."""
    for case, hosts, kinds in ((ALIKE, HOSTS, 3), (OTHERS, HOSTS, HOSTS)):
        with tempfile.TemporaryDirectory() as root:
            directory = pathlib.Path(root, "hosts")
            directory.mkdir()
            make(directory, hosts, kinds)
            measure.calls(case, 1, lambda directory=directory: run(directory))


ROW = Row(
    name="plan",
    work="vpmem plan for a directory of inventories; hosts with two regions and 64 namespaces",
    kinds={"ours": ours},
    targets=(Target(case=ALIKE, against=60.0, most=1), Target(case=OTHERS, against=60.0, most=1)),
    rounds=1,
)
