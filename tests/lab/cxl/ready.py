"""The virtual host with CXL memory, set up as an operator does: regions at each boot, namespaces once."""

from tests.lab import life, ready
from tests.lab.cxl.host import PERSISTENT, VOLATILE, CxlHost

LABELS = {
    "POWER": [f"power{number}" for number in range(4)],
    "SINGLE": ["single"],
    "SPARE": ["spare"],
    "LIFE": list(life.NAMES),
}

#: A region of the first persistent device, one of both, and one of the volatile device: always in this order, as the
#: place of a region on its devices follows from it.
_REGIONS = {
    "-t pmem -s 256M": PERSISTENT[:1],
    "-t pmem -w 2 -g 4096 -s 512M": PERSISTENT,
    "-t ram -s 512M": (VOLATILE,),
}
_CREATE = "cxl create-region -m -d decoder0.0"

#: The first of POWER keeps its content. The others are large, so that a slow wipe of one lasts until all have begun.
_NAMESPACES = {
    "2": [f"--name={name} --size={size}" for name, size in zip(LABELS["POWER"], ("32M", *["128M"] * 3), strict=True)],
    "1": ["--name=single --size=16M", "--name=spare --size=32M", *(f"--name={name} --size=16M" for name in life.NAMES)],
}
_MAKE = """
set -e
for region in /sys/bus/nd/devices/region*; do
    if [ "$(cat "$region/mappings")" = {devices} ]; then
        ndctl create-namespace --mode=devdax --map=mem --region="${{region##*/}}" {kind}
    fi
done
"""


#: A device that has all of its region becomes small, and others are made beside it.
_DIVIDE = f"""
set -e
device=$1
daxctl reconfigure-device --force --mode=devdax "$device"
daxctl disable-device "$device"
echo {life.SIZE} > "/sys/bus/dax/devices/$device/size"
daxctl enable-device "$device"
region=${{device#dax}}
for number in 1 2 3; do daxctl create-device --region="${{region%.*}}" --size={life.SIZE}; done
"""


def has_regions(host: CxlHost) -> bool:
    """Whether the regions were made since the host was switched on."""
    return host.call("run", ["sh", "-c", "ls -d /sys/bus/cxl/devices/region[0-9]*"])["code"] == 0


def make_regions(host: CxlHost) -> None:
    """Make the regions whose devices are there, as at the first boot, and free and divide the volatile memory."""
    memdevs = host.memdevs()
    for options, serials in _REGIONS.items():
        if all(serial in memdevs for serial in serials):
            host.run(*f"{_CREATE} {options}".split(), *[memdevs[serial] for serial in serials])
    (device,) = [found for found in host.run("daxctl", "list", "-D").json if found["mode"] == "system-ram"]
    host.run("sh", "-c", _DIVIDE, "sh", device["chardev"])


def make_namespaces(host: CxlHost) -> None:
    """Make the namespaces, on a host that never had any."""
    for devices, kinds in _NAMESPACES.items():
        for kind in kinds:
            host.run("sh", "-c", _MAKE.format(devices=devices, kind=kind))


def configure(host: CxlHost, *, discovery: str = "ndctl") -> None:
    """Write vpmem's configuration."""
    ready.configure(host, discovery=discovery, labels=LABELS | {"VOLATILE": volatile_names(listed(host, "sysfs"))})


def volatile_names(rows: list[dict[str, object]]) -> list[str]:
    """The names of the volatile namespaces in a listing, in their order."""
    return sorted(str(row["name"]) for row in rows if row["volatile"])


def listed(host: CxlHost, discovery: str) -> list[dict[str, object]]:
    """What vpmem lists without labels."""
    ready.configure(host, discovery=discovery, labels={})
    return host.vpmem("namespace", "list", "--all", "-f", "json").json


def by_name(host: CxlHost) -> dict[str, dict[str, object]]:
    """The namespaces as vpmem lists them with its configuration, by name."""
    return {row["name"]: row for row in host.vpmem("namespace", "list", "--all", "-f", "json").json}


def power_cycle(host: CxlHost) -> None:
    """Off, and on again. The regions are gone."""
    host.power_off()
    host.boot()
