"""Domain XML, as libvirt or an operator gives it."""

import contextlib
import dataclasses
import random
from collections.abc import Iterator

from tests.fuzz import mutation
from tests.fuzz.finding import literal
from tests.fuzz.target import Target, words
from tests.fuzz.targets import made
from tests.unit.discovery import hosts
from vpmem_driver import exception, guestxml, model

_VALUES = (
    *("", " ", "0", "1", "-1", "+5", "2048", "4194304", "18446744073709551615", "99999999999999999999", "1" * 5000),
    *("KiB", "GiB", "b", "EiB", "kb", "parsec", "0-16383", "^0", "0-3,^2,5", "0,", "16384", "4-1", "shared", "private"),
    *("nvdimm", "virtio-pmem", "dimm", "ppc64le", "/dev/dax0.0", "/dev/dax0.1", "dax0.0", "/a\u2028b", "ns\u00e9"),
    *(f"ua-vpmem-{made.UUIDS[0]}", "ua-vpmem-", "\n  "),
)


def _grant(number: int, *, known_device: str | None = None) -> model.Grant:
    namespace = made.NAMESPACES[number]
    return model.Grant(
        owner=made.OWNERS[0],
        uuid=made.UUIDS[number],
        name=namespace.name or "",
        label="A",
        size=namespace.size,
        align=namespace.align,
        numa_node=namespace.numa_node,
        device=namespace.device,
        known_device=known_device,
        pmem=True,
    )


GRANTS = (_grant(0), _grant(1, known_device="/dev/dax0.0"), _grant(2, known_device="/dev/dax9.9"))


def use(text: str) -> None:
    """Do with a domain all that is ever done with one; what comes of it must be a domain again."""
    with contextlib.suppress(exception.VPMEMError):
        guestxml.uuid(text)
    with contextlib.suppress(exception.VPMEMError):
        guestxml.find(guestxml.identified(text), GRANTS)
    with contextlib.suppress(exception.VPMEMError):
        guestxml.check(text)
    for grants in (GRANTS[:1], GRANTS):
        _refresh(text, grants)
        _add(text, grants)
    _rewrite(text)
    try:
        paths = [device.path for device in guestxml.devices(text)]
        removed = guestxml.remove(text, paths[:1])
    except exception.VPMEMError:
        return
    left = [path for path in paths if path not in paths[:1]]
    assert [device.path for device in guestxml.devices(removed)] == left, "remove"


def _refresh(text: str, grants: tuple[model.Grant, ...]) -> None:
    try:
        refreshed = guestxml.refresh(text, grants)
    except exception.VPMEMError:
        return
    assert guestxml.refresh(refreshed, grants) == refreshed, "refresh again"


def _add(text: str, grants: tuple[model.Grant, ...]) -> None:
    try:
        before = guestxml.devices(text)
        added = guestxml.add(text, grants)
    except exception.VPMEMError:
        return
    # The reading must not fail now.
    guestxml.check(added)
    told = guestxml.identified(added)
    assert [uuid for _, uuid in told[len(before) :]] == [grant.uuid for grant in grants], "add"
    removed = guestxml.remove(added, [grant.device for grant in grants if grant.device])
    assert guestxml.devices(removed) == before, "add and remove"


def _rewrite(text: str) -> None:
    """As a migration does: each device on another path."""
    try:
        devices = guestxml.devices(text)
        moved = {device.path: dataclasses.replace(device, path=f"{device.path}.moved") for device in devices}
        rewritten = guestxml.rewrite(text, moved)
    except exception.VPMEMError:
        return
    assert guestxml.devices(rewritten) == tuple(moved[device.path] for device in devices), "rewrite"


class Fuzzed(Target):
    words = words(
        """domain name uuid memory currentMemory maxMemory vcpu numatune memnode os type features acpi cpu numa cell
        devices source path alignsize pmem target size node label readonly alias address model access unit slots slot
        cellid nodeset arch xmlns id"""
    )
    max_bytes = 1 << 17

    def seeds(self) -> Iterator[bytes]:
        for name in ("memory-devices.xml", "plain.xml", "live.xml", "memory-devices-added.xml"):
            yield (hosts.DATA / "domains" / name).read_bytes()
        new = {"name": "n", "uuid": made.OWNERS[0], "domain_type": "test", "memory": 512 * made.MIB, "vcpus": 2}
        for nodes in ([], [0, 1]):
            yield guestxml.new_domain(**new, host_nodes=nodes, grants=GRANTS).encode()
        yield guestxml.new_domain(**new, host_nodes=[1], grants=[]).encode()

    def run(self, data: bytes) -> None:
        use(data.decode("utf-8", "surrogateescape"))

    def shown(self, data: bytes) -> str:
        return f"use({literal(data.decode('utf-8', 'surrogateescape'))})"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        return mutation.xml_document(data, chance, self.words, _VALUES, self.max_bytes)
