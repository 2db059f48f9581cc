"""Made-up hosts of any size: what ndctl would print of them, and how they are configured."""

import copy
import json
import pathlib
import tempfile
import uuid

from oslo_config import cfg

from vpmem_driver import conf
from vpmem_driver.discovery.ndctl import NdctlDiscovery
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import State
from vpmem_driver.pool import Pool

LABELS = ("4GB", "SMALL")
NODES = 8
#: What ndctl printed, asked as vpmem asks it, in the virtual host of tests/lab.
_RECORDED = pathlib.Path(__file__).parents[1] / "data/ndctl/ndctl-list-verbose.json"


def listing(count: int) -> str:
    """The text that ``ndctl list --namespaces --idle --verbose`` prints of `count` namespaces on 8 regions."""
    recorded = next(item for item in json.loads(_RECORDED.read_text()) if item.get("name") == "big")
    return json.dumps([_namespace(recorded, number) for number in range(count)], indent=2)


def _namespace(recorded: dict, number: int) -> dict:
    made = copy.deepcopy(recorded)
    region, place = number % NODES, number // NODES
    made |= {"dev": f"namespace{region}.{place}", "name": f"ns{number}", "uuid": str(uuid.uuid4())}
    made |= {"raw_uuid": str(uuid.uuid4()), "numa_node": region, "target_node": region}
    made["daxregion"]["id"] = region
    made["daxregion"]["devices"][0] |= {"chardev": f"dax{region}.{place}", "target_node": region}
    return made


def pmem_namespaces(count: int) -> list[str]:
    """The option for that host: two labels."""
    return [
        f"{label}:{'|'.join(f'ns{number}' for number in range(first, count, len(LABELS)))}"
        for first, label in enumerate(LABELS)
    ]


def configured(count: int, state_path: str) -> cfg.ConfigOpts:
    """The whole configuration for that host."""
    options = cfg.ConfigOpts()
    conf.register_opts(options)
    options([], default_config_files=[])
    options.set_override("pmem_namespaces", pmem_namespaces(count), group="libvirt")
    options.set_override("state_path", state_path, group="vpmem")
    return options


def half_taken(count: int, state_path: str) -> Pool:
    """A pool on that host. Every second namespace of each label is held, the others are clean."""
    text = listing(count)
    pool = Pool.from_conf(configured(count, state_path), source=NdctlDiscovery(run=lambda: text), domains=Domains(None))
    owners = [str(uuid.uuid4()) for _ in range(64)]
    held = [record for record in pool.records() if int((record.name or "ns0")[2:]) // len(LABELS) % 2 == 0]
    for number, owner in enumerate(owners):
        pool.adopt(owner, [record.uuid or "" for record in held[number :: len(owners)]])
    have_clean(pool)
    return pool


def have_clean(pool: Pool) -> None:
    """Make all that is free clean, as after all wipes, when a label has nothing clean left."""
    if all(entry.clean for entry in pool.inventory()):
        return
    with pool._state.ledger.transaction():
        for row in pool._state.ledger.rows():
            if row.owner is None and row.state is not State.CLEAN:
                pool._state.ledger.move(row, State.CLEAN, "made so")


def on_disk() -> tempfile.TemporaryDirectory[str]:
    """A directory in the working directory: a filesystem whose fsync does something, unlike tmpfs."""
    return tempfile.TemporaryDirectory(prefix="bench-", dir=pathlib.Path.cwd())


def in_memory() -> tempfile.TemporaryDirectory[str]:
    """A directory on tmpfs."""
    return tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm")
