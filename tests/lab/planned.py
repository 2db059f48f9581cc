"""The virtual host without namespaces, and what ``vpmem plan`` and ``vpmem provision`` make of it."""

import dataclasses
import typing

from tests.lab import ready
from tests.lab.host import STATE, Done, VirtualHost

FLAVORS_FILE = "/run/flavors.toml"
PLAN = "/run/plan.json"

#: RAM is large enough that the kernel can have whole blocks, of 128 MiB, of it.
FLAVORS = """
[labels]
GUEST = "12MiB"
PAIR = "30MiB"
RAM = "400MiB"
[flavors.guest]
pmem = "GUEST"
count = 1
[flavors.pair]
pmem = "PAIR,PAIR"
count = 2
[flavors.ram]
pmem = "RAM"
count = 1
"""


@dataclasses.dataclass(frozen=True)
class Cut:
    """The host, its plan, and what the programs said."""

    host: VirtualHost
    plan: dict[str, typing.Any]
    planned: Done
    shown: Done
    provisioned: Done


def cut(host: VirtualHost) -> Cut:
    """Remove all namespaces and forget their ledger, plan, cut, and configure what was cut."""
    ready.remove_namespaces(host)
    host.run("sh", "-c", f"rm -f {STATE}/ledger.sqlite3*")
    ready.write_configuration(host, "")
    host.call("write", FLAVORS_FILE, FLAVORS)
    planned = host.vpmem("plan", FLAVORS_FILE, "--output", PLAN, "-f", "json")
    (plan,) = planned.json
    shown = host.vpmem("provision", PLAN)
    assert not host.run("ndctl", "list", "--namespaces").out.strip("[]\n")
    provisioned = host.vpmem("provision", PLAN, "--yes")
    ready.write_configuration(host, plan["pmem_namespaces"])
    return Cut(host, plan, planned, shown, provisioned)
