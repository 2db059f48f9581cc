"""A virtual host that is ready for use: namespaces of every kind, and vpmem's configuration."""

import pathlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.host import STATE, VirtualHost
from tests.machine import kernel

ROOT = pathlib.Path(__file__).resolve().parents[2]

CONFIG = "/etc/vpmem/vpmem.conf"
SLOW_CONFIG = "/etc/vpmem/slow.conf"
LEDGER = f"{STATE}/ledger.sqlite3"

#: What ``ndctl create-namespace`` is told, by NUMA node. A namespace loses 2 MiB of its size to its info block. Of
#: memory only whole blocks, of 128 MiB, can become system RAM, wherever they begin.
_NAMESPACES = {
    0: (
        "--name=mem --mode=devdax --map=mem --size=32M",
        "--name=dev --mode=devdax --map=dev --size=32M",
        "--name=fine --mode=devdax --align=4096 --size=32M",
        "--name=fsdax --mode=fsdax --size=32M",
        "--name=sector --mode=sector --size=32M",
        "--name=raw --mode=raw --size=32M",
        "--mode=devdax --size=32M",
        "--name=off --mode=devdax --size=32M",
        "--name=twin --mode=devdax --size=32M",
        "--name=twin --mode=devdax --size=32M",
        "--name=ram --mode=devdax --size=384M",
    ),
    1: (
        "--name=guest --mode=devdax --size=16M",  # the first, as is mem: the other order makes one's path the other's
        "--name=big --mode=devdax --size=256M",
        *(f"--name=power{number} --mode=devdax --size=32M" for number in range(5)),
        *(f"--name=churn{number} --mode=devdax --size=16M" for number in range(4)),
        *(f"--name=life{number} --mode=devdax --size=16M" for number in range(4)),
        "--name=files --mode=fsdax --size=128M",
    ),
}

#: What the guest sees of its namespace: 2 MiB are lost to the info block, and 2 MiB to the label.
GUEST_SIZE = 12 << 20

LABELS = {
    "KIND": ["mem", "dev", "fine"],
    "BIG": ["big"],
    "POWER": [f"power{number}" for number in range(5)],
    "CHURN": [f"churn{number}" for number in range(4)],
    "GUEST": ["guest"],
}

_BARE = """
set -e
ndctl disable-region all
ndctl init-labels --force all
ndctl enable-region all
"""

_MAKE = """
for region in /sys/bus/nd/devices/region*; do
    case $(cat "$region/numa_node") in
        0) node0=${region##*/} ;;
        1) node1=${region##*/} ;;
    esac
done
"""


@contextmanager
def virtual_host(*, terminal: str | None = None) -> Iterator[VirtualHost]:
    """A virtual host that is on, with all namespaces, configured. Nothing is left of it afterwards.

    :param terminal: the device that is to be its serial console
    """
    memory = pathlib.Path("/dev/shm")  # noqa: S108  below it mkdtemp makes a private one
    of = kernel.unpacked(ROOT / ".tox" / "kernel")
    with tempfile.TemporaryDirectory(prefix="vpmem-lab-", dir=memory if memory.is_dir() else None) as work:
        host = VirtualHost(pathlib.Path(work), of)
        try:
            host.boot(terminal=terminal)
            make_namespaces(host)
            configure(host)
            yield host
        finally:
            host.power_off()


def make_namespaces(host: VirtualHost) -> None:
    """Make all of them anew."""
    made = [
        " &&\n".join(f"ndctl create-namespace --region=$node{node} {kind}" for kind in kinds)
        for node, kinds in _NAMESPACES.items()
    ]
    host.run("sh", "-c", _BARE + _MAKE + " &\n".join(made) + "\nwait %1")


def remove_namespaces(host: VirtualHost) -> None:
    """Leave regions without any namespace."""
    host.run("sh", "-c", _BARE)


def configure(host: VirtualHost, *, discovery: str = "ndctl", labels: dict[str, list[str]] = LABELS) -> None:
    """Write vpmem's configuration, and one beside it with which a wipe takes long. They are lost without power."""
    write_configuration(host, ",".join(f"{label}:{'|'.join(names)}" for label, names in labels.items()), discovery)


def write_configuration(host: VirtualHost, entries: str, discovery: str = "ndctl") -> None:
    """Write both with this value of ``pmem_namespaces``."""
    text = f"[libvirt]\npmem_namespaces = {entries}\n[vpmem]\ndiscovery = {discovery}\nstate_path = {STATE}\n"
    host.call("write", CONFIG, text)
    host.call("write", SLOW_CONFIG, text + "wipe_rate = 1\nwipe_parallel = 8\n")
