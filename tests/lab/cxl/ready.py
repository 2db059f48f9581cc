"""The virtual host with CXL memory, set up as an operator does: first the regions, then the namespaces."""

from tests.lab import ready
from tests.lab.cxl.host import PERSISTENT, VOLATILE, CxlHost

LABELS = {
    "POWER": [f"power{number}" for number in range(4)],
    "GUEST": ["guest"],
}

#: A region of the first persistent device, one of both, and one of the volatile device: always in this order, as the
#: place of a region on its devices follows from it.
_REGIONS = {
    "-t pmem -s 256M": PERSISTENT[:1],
    "-t pmem -w 2 -g 4096 -s 512M": PERSISTENT,
    "-t ram -s 512M": (VOLATILE,),
}
_CREATE = "cxl create-region -m -d decoder0.0"

_NAMESPACES = {
    "2": [f"--name={name} --size=32M" for name in LABELS["POWER"]],
    "1": ["--name=guest --size=16M", "--name=spare --size=32M"],
}
_MAKE = """
set -e
for region in /sys/bus/nd/devices/region*; do
    if [ "$(cat "$region/mappings")" = {devices} ]; then
        ndctl create-namespace --mode=devdax --map=mem --region="${{region##*/}}" {kind}
    fi
done
"""


def make_regions(host: CxlHost) -> None:
    """Make the regions, and free the volatile memory."""
    memdevs = host.memdevs()
    for options, serials in _REGIONS.items():
        host.run(*f"{_CREATE} {options}".split(), *[memdevs[serial] for serial in serials])
    (device,) = [found for found in host.run("daxctl", "list", "-D").json if found["mode"] == "system-ram"]
    host.run("daxctl", "reconfigure-device", "--force", "--mode=devdax", device["chardev"])


def make_namespaces(host: CxlHost) -> None:
    """Make the namespaces, on a host that never had any."""
    for devices, kinds in _NAMESPACES.items():
        for kind in kinds:
            host.run("sh", "-c", _MAKE.format(devices=devices, kind=kind))


def configure(host: CxlHost, *, discovery: str = "ndctl") -> None:
    """Write vpmem's configuration."""
    ready.configure(host, discovery=discovery, labels=LABELS | {"VOLATILE": [volatile_name(listed(host, "sysfs"))]})


def volatile_name(rows: list[dict[str, object]]) -> str:
    """The name of the volatile namespace in a listing."""
    (name,) = [row["name"] for row in rows if row["volatile"]]
    return str(name)


def listed(host: CxlHost, discovery: str) -> list[dict[str, object]]:
    """What vpmem lists without labels."""
    ready.configure(host, discovery=discovery, labels={})
    return host.vpmem("namespace", "list", "--all", "-f", "json").json


def by_name(host: CxlHost) -> dict[str, dict[str, object]]:
    """The namespaces as vpmem lists them with its configuration, by name."""
    return {row["name"]: row for row in host.vpmem("namespace", "list", "--all", "-f", "json").json}
