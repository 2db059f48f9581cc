"""Discovery: ndctl's JSON in hand, and sysfs."""

import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import uuid

from bench import hosts
from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver.discovery.ndctl import NdctlDiscovery
from vpmem_driver.discovery.sysfs import SysfsDiscovery
from vpmem_driver.pool import labels, matching
from vpmem_driver.sizes import MIB

SIZES = (8, 64, 512, 4096)
SYSFS_SIZE = 512


def _loops(size: int) -> int:
    """So many that the garbage collector's share is in every value."""
    return max(8, 1024 // size)


def ours(measure: Measure) -> None:
    """Parse, and find what the configuration names. In a process like nova-compute, as the others."""
    from bench import novas  # noqa: F401  it is what the garbage collector then has to look through

    for size in SIZES:
        text, option = hosts.listing(size), hosts.pmem_namespaces(size)
        source = NdctlDiscovery(run=lambda text=text: text)
        measure.calls(
            size,
            _loops(size),
            lambda source=source, option=option: matching.match(labels.parse(option), source.namespaces(), {}),
        )


def nova(measure: Measure) -> None:
    """Its ``_discover_vpmems``."""
    from bench import novas

    for size in SIZES:
        discover, option = novas.discovery(hosts.listing(size)), hosts.pmem_namespaces(size)
        measure.calls(size, max(4, _loops(size) // 16), lambda discover=discover, option=option: discover(option))


def limit(measure: Measure) -> None:
    """``json.loads`` alone."""
    from bench import novas  # noqa: F401

    for size in SIZES:
        text = hosts.listing(size)
        measure.calls(size, _loops(size), lambda text=text: json.loads(text))


def make_sysfs(root: pathlib.Path, count: int) -> None:
    """What the kernel shows of `count` devdax namespaces: the attributes that tell them, and the links."""
    nd, dax, platform = root / "bus/nd/devices", root / "bus/dax/devices", root / "devices/platform/ndbus0"
    drivers = [root / "bus/nd/drivers/dax_pmem", root / "bus/dax/drivers/device_dax"]
    for directory in (nd, dax, *drivers):
        directory.mkdir(parents=True)
    for region in range(hosts.NODES):
        _attributes(
            platform / f"region{region}", {"persistence_domain": "memory_controller", "mapping0": "nmem0,0,1,0"}
        )
        (nd / f"region{region}").symlink_to(os.path.relpath(platform / f"region{region}", nd))
    _attributes(platform, {"provider": "ACPI.NFIT"})
    for number in range(count):
        region, place = number % hosts.NODES, number // hosts.NODES
        size = random.randrange(16, 4096) * 2 * MIB
        name, holder = f"namespace{region}.{place}", f"dax{region}.{place}"
        device = platform / f"region{region}" / holder / holder
        values = {"uuid": str(uuid.uuid4()), "size": str(size), "numa_node": str(region), "target_node": str(region)}
        _attributes(nd / name, values | {"holder": holder, "alt_name": f"ns{number}", "mode": "dax"})
        _attributes(nd / holder, values | {"align": str(2 * MIB), "resource": hex(1 << 32)})
        _attributes(device, values | {"align": str(2 * MIB)})
        (nd / holder / "driver").symlink_to(drivers[0])
        (device / "driver").symlink_to(drivers[1])
        (dax / holder).symlink_to(os.path.relpath(device, dax))


def _attributes(directory: pathlib.Path, values: dict[str, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (directory / name).write_text(value + "\n")


def sysfs(measure: Measure) -> None:
    """All that it does."""
    with hosts.in_memory() as root:
        make_sysfs(pathlib.Path(root), SYSFS_SIZE)
        source = SysfsDiscovery(root)
        assert len([found for found in source.namespaces() if found.unusable is None]) == SYSFS_SIZE
        measure.calls(SYSFS_SIZE, 2, source.namespaces)


def sysfs_limit(measure: Measure) -> None:
    """Open and read the files that it reads, and nothing else."""
    with hosts.in_memory() as root:
        make_sysfs(pathlib.Path(root), SYSFS_SIZE)
        opened: list[str] = []
        listening = True

        def note(event: str, details: tuple) -> None:
            if event == "open" and listening:
                opened.append(str(details[0]))

        sys.addaudithook(note)
        SysfsDiscovery(root).namespaces()
        listening = False
        measure.calls(SYSFS_SIZE, 2, lambda: _read_all(opened))


def _read_all(paths: list[str]) -> None:
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        os.read(fd, 4096)
        os.close(fd)


def ndctl(measure: Measure) -> None:
    """Start the program: it has nothing to list here."""
    measure.calls(SYSFS_SIZE, 2, lambda: subprocess.run(["ndctl", "list"], check=True, stdout=subprocess.DEVNULL))


ROW = Row(
    name="discovery",
    work="discovery and matching, ndctl's JSON in hand; N namespaces",
    kinds={"ours": ours, "nova": nova, "limit": limit},
    statistic=statistics.median,
    targets=(
        Target(case="4096", against="nova", least=20),
        *(Target(case=str(size), against="limit", most=1) for size in SIZES),
    ),
)

SYSFS_ROW = Row(
    name="sysfs",
    work="discovery by sysfs, in a made tree on tmpfs; limit: open and read the same files",
    kinds={"ours": sysfs, "ndctl list, the start alone": ndctl, "limit": sysfs_limit},
    targets=(Target(case=str(SYSFS_SIZE), against="limit", most=1.5),),
)
