"""Kernel: buses, regions, drivers of dax devices, and bad addresses.

Sources: drivers/nvdimm/region_devs.c (badblocks), drivers/dax/bus.c, drivers/dax/fsdev.c, Linux 6.1 to 7.0.
"""

from collections.abc import Iterator, Sized

import msgspec

from vpmem_driver import sizes
from vpmem_driver.checkup import finding
from vpmem_driver.checkup.finding import Finding
from vpmem_driver.checkup.host import Host
from vpmem_driver.faults import checks as faults

_ND = "/sys/bus/nd/devices"
_DAX = "/sys/bus/dax"
_CXL = "/sys/bus/cxl/devices"
#: Drivers of a dax device whose memory no guest can map, and who has it.
_OTHERS = {"kmem": "the kernel uses it as system memory", "fsdev_dax": "a filesystem has it"}
_FREE = {
    "kmem": "To free it, run 'daxctl reconfigure-device --force --mode=devdax {}'",
    "fsdev_dax": "To free it, unmount the filesystem, unbind {} from fsdev_dax, and bind it to device_dax",
}
#: The most faults of one kind that are printed.
_MOST = 8


def modules(host: Host) -> Iterator[Finding]:
    """Check that the kernel has the buses and the driver for namespaces in mode devdax."""
    check = "kernel modules"
    regions = [name for name in host.names(_ND) if name.startswith("region")]
    volatile = [name for name in _with_memory(host) if not _on_nd_bus(host, name)]
    found = [f"NVDIMM bus with {_count(regions, 'region')}"] if regions else []
    found += [_count(volatile, "volatile device")] if volatile else []
    if not host.exists(_ND) and not volatile:
        yield finding.failure(check, faults.NO_BUS, "/sys/bus/nd does not exist: libnvdimm is not loaded")
    elif not found:
        yield finding.failure(check, faults.NO_BUS, "there is no region on the NVDIMM bus")
    elif not host.exists(f"{_DAX}/drivers/device_dax"):
        yield finding.failure(
            check, faults.NO_BUS, "the driver device_dax is not loaded", "Run 'modprobe device_dax dax_pmem'"
        )
    else:
        yield finding.ok(check, ", ".join([*found, "device_dax"]))


def drivers(host: Host) -> Iterator[Finding]:
    """Check that every dax device can be mapped."""
    check = "dax devices"
    names = _with_memory(host)
    bound = {name: host.link(f"{_DAX}/devices/{name}/driver") for name in names}
    others = {name: driver for name, driver in bound.items() if driver in _OTHERS}
    for name, driver in list(others.items())[:_MOST]:
        yield finding.warning(
            check,
            faults.NOT_MAPPABLE,
            f"/dev/{name} is bound to {driver} and cannot be mapped: {_OTHERS[driver or '']}",
            _FREE[driver or ""].format(name),
        )
    if not others and names:
        yield finding.ok(check, f"{len(names)} with memory, none bound to kmem or fsdev_dax")


def regions(host: Host) -> Iterator[Finding]:
    """Check that every region is enabled, and that persistent CXL memory has one."""
    check = "regions"
    for bus, program in ((_ND, "ndctl"), (_CXL, "cxl")):
        for name in _regions(host, bus):
            if not host.exists(f"{bus}/{name}/driver"):
                remedy = f"Run '{program} enable-region {name}'"
                yield finding.failure(check, faults.REGION, f"{program} region {name} is disabled", remedy)
    used = {_memdev(host, decoder) for region in _regions(host, _CXL) for decoder in _targets(host, region)}
    for name in host.names(_CXL):
        size = int(host.read(f"{_CXL}/{name}/pmem/size") or "0", 0) if name.startswith("mem") else 0
        if size and name not in used:
            serial = (host.read(f"{_CXL}/{name}/serial") or "unknown").strip()
            yield finding.warning(
                check, faults.REGION, f"{name}, serial number {serial}, has {sizes.in_words(size)} without a region"
            )


def _regions(host: Host, bus: str) -> list[str]:
    return [name for name in host.names(bus) if name.startswith("region")]


def _targets(host: Host, region: str) -> list[str]:
    """Return the endpoint decoders of a CXL region."""
    path = f"{_CXL}/{region}"
    return [(host.read(f"{path}/{name}") or "").strip() for name in host.names(path) if name.startswith("target")]


def _memdev(host: Host, decoder: str) -> str | None:
    """Return the memory device of an endpoint decoder: the port above the decoder belongs to it."""
    return host.link(f"{_CXL}/endpoint{decoder.removeprefix('decoder').partition('.')[0]}/uport")


def _with_memory(host: Host) -> list[str]:
    """Return the dax devices that are no empty slots."""
    devices = f"{_DAX}/devices"
    return [name for name in host.names(devices) if (host.read(f"{devices}/{name}/size") or "0\n") != "0\n"]


def _on_nd_bus(host: Host, device: str) -> bool:
    return "/ndbus" in str(host.path(f"{_DAX}/devices/{device}").resolve())


def _count(found: Sized, noun: str) -> str:
    return f"{len(found)} {noun}{'s' if len(found) > 1 else ''}"


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


class _Error(msgspec.Struct):
    offset: int
    length: int
    source: str = "unknown"


class _Memdev(msgspec.Struct):
    memdev: str
    serial: int = 0
    media_errors: list[_Error] = []


def poison(host: Host) -> Iterator[Finding]:
    """Check that no CXL device has addresses that it knows to be bad. The kernel does not put these into badblocks."""
    check = "CXL media"
    if not any(name.startswith("mem") for name in host.names(_CXL)):
        return
    text = host.run("cxl", "list", "--memdevs", "--media-errors")
    try:
        memdevs = msgspec.json.decode(text or "", type=list[_Memdev])
    except msgspec.DecodeError:
        remedy = "Run this as root, with the program cxl 80 or newer"
        yield finding.unseen(check, "the program cxl does not list the errors of CXL devices", remedy)
        return
    bad = [memdev for memdev in memdevs if memdev.media_errors]
    for memdev in bad:
        errors = [f"bytes {each.offset} to {each.offset + each.length - 1}" for each in memdev.media_errors]
        what = f"{memdev.memdev}, serial number {memdev.serial:#x}, cannot be read at {_first(errors)} of the device"
        yield finding.failure(
            check,
            faults.MEDIA,
            what,
            "Move guests away. Then write the number of the first byte of each range to "
            f"/sys/kernel/debug/cxl/{memdev.memdev}/clear_poison, and run 'vpmem repair' for the namespaces there",
        )
    if not bad:
        yield finding.ok(check, f"no errors known in {_count(memdevs, 'CXL device')}")


def _first(texts: list[str]) -> str:
    return ", ".join(texts[:_MOST]) + (f" and {len(texts) - _MOST} more" if len(texts) > _MOST else "")


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
    return _first(found)
