"""Kernel: buses, drivers of dax devices, and bad addresses.

Sources: drivers/nvdimm/region_devs.c (badblocks), drivers/dax/bus.c, drivers/dax/fsdev.c, Linux 6.1 to 7.0.
"""

from collections.abc import Iterator

from vpmem_driver.checkup import finding
from vpmem_driver.checkup.finding import Finding
from vpmem_driver.checkup.host import Host
from vpmem_driver.faults import checks as faults

_ND = "/sys/bus/nd/devices"
_DAX = "/sys/bus/dax"
#: Drivers of a dax device whose memory no guest can map, and who has it.
_OTHERS = {"kmem": "the kernel uses it as system memory", "fsdev_dax": "a filesystem has it"}
#: The most faults of one kind that are printed.
_MOST = 8


def modules(host: Host) -> Iterator[Finding]:
    """Check that the kernel has the buses and the driver for namespaces in mode devdax."""
    check = "kernel modules"
    regions = [name for name in host.names(_ND) if name.startswith("region")]
    if not host.exists(_ND):
        yield finding.failure(check, faults.NO_BUS, "/sys/bus/nd does not exist: libnvdimm is not loaded")
    elif not regions:
        yield finding.failure(check, faults.NO_BUS, "there is no region on the NVDIMM bus")
    elif not host.exists(f"{_DAX}/drivers/device_dax"):
        yield finding.failure(
            check, faults.NO_BUS, "the driver device_dax is not loaded", "Run 'modprobe device_dax dax_pmem'"
        )
    else:
        yield finding.ok(check, f"NVDIMM bus with {len(regions)} region{'s' if len(regions) > 1 else ''}, device_dax")


def drivers(host: Host) -> Iterator[Finding]:
    """Check that every dax device can be mapped."""
    check = "dax devices"
    names = [
        name for name in host.names(f"{_DAX}/devices") if (host.read(f"{_DAX}/devices/{name}/size") or "0\n") != "0\n"
    ]
    bound = {name: host.link(f"{_DAX}/devices/{name}/driver") for name in names}
    others = {name: driver for name, driver in bound.items() if driver in _OTHERS}
    for name, driver in list(others.items())[:_MOST]:
        yield finding.warning(
            check,
            faults.NOT_MAPPABLE,
            f"/dev/{name} is bound to {driver} and cannot be mapped: {_OTHERS[driver or '']}",
        )
    if not others and names:
        yield finding.ok(check, f"{len(names)} with memory, none bound to kmem or fsdev_dax")


def media(host: Host) -> Iterator[Finding]:
    """Check that no region has addresses that cannot be read."""
    check = "media"
    regions = [name for name in host.names(_ND) if name.startswith("region")]
    unread, bad = [], {}
    for region in regions:
        text = host.read(f"{_ND}/{region}/badblocks")
        if text is None:
            unread.append(region)
        elif text.strip():
            bad[region] = text
    for region, text in bad.items():
        yield finding.failure(check, faults.MEDIA, f"{region} cannot be read at {_ranges(text)}")
    if unread:
        yield finding.unseen(check, f"badblocks of {', '.join(unread)} cannot be read")
    elif regions and not bad:
        yield finding.ok(check, f"no errors known in {len(regions)} region{'s' if len(regions) > 1 else ''}")


def _ranges(text: str) -> str:
    """Return the lines ``SECTOR COUNT`` of a badblocks file as byte ranges. A sector has 512 bytes."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and all(word.isdigit() for word in words):  # noqa: PLR2004
            start, count = (512 * int(word) for word in words)
            found.append(f"bytes {start} to {start + count - 1}")
        else:
            found.append(f"'{line.strip()}'")
    return ", ".join(found[:_MOST]) + (f" and {len(found) - _MOST} more" if len(found) > _MOST else "")
