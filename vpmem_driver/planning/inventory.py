"""The regions of a host and the namespaces in them, as ``ndctl list --regions`` prints them."""

import dataclasses
import os
import pathlib
import socket
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from vpmem_driver import exception
from vpmem_driver.discovery import interface, ndctl
from vpmem_driver.planning import cutting

#: What a file of an inventory is made with. Regions alone are enough for a bare host.
COMMAND = "ndctl list --regions --dimms --namespaces --idle --verbose"
_MAX_WAYS = 64


class _Device(msgspec.Struct, frozen=True):
    chardev: str = ""
    mode: str = ""


class _DaxRegion(msgspec.Struct, frozen=True):
    devices: tuple[_Device, ...] = ()


class Namespace(msgspec.Struct, frozen=True):
    """A namespace that exists.

    :ivar size: bytes after info block and page descriptors
    """

    dev: str
    mode: str = "unknown"
    size: int = 0
    uuid: str | None = None
    name: str | None = None
    chardev: str | None = None
    blockdev: str | None = None
    daxregion: _DaxRegion | None = None

    @property
    def identity(self) -> str:
        """Its uuid, or its kernel name if it has none."""
        return interface.canonical_uuid(self.uuid) or self.dev

    @property
    def devices(self) -> tuple[_Device, ...]:
        """Its dax devices."""
        if self.daxregion is not None:
            return self.daxregion.devices
        return (_Device(self.chardev),) if self.chardev else ()


class _Item(msgspec.Struct, frozen=True):
    """A region, or the platform or a bus, which has regions."""

    dev: str = ""
    size: int = 0
    available_size: int = 0
    max_available_extent: int | None = None
    align: int = cutting.DEFAULT_REGION_ALIGN
    type: str = "pmem"
    state: str = ""
    numa_node: int = -1
    iset_id: int | None = None
    mappings: tuple[object, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    buses: tuple["_Item", ...] = ()
    regions: tuple["_Item", ...] = ()


_DECODER: msgspec.json.Decoder[list[_Item] | _Item] = msgspec.json.Decoder(list[_Item] | _Item)


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """A region that namespaces can be cut from. Sizes are in bytes.

    :ivar id: identity that a reboot does not change: its interleave set, or its kernel name if it has none
    :ivar align: what the kernel wants sizes of namespaces to be multiples of
    :ivar ways: NVDIMMs that it is interleaved over; 1 if that is not known
    :ivar node: NUMA node; None if unknown
    :ivar available: in no namespace
    :ivar extent: the largest part of that in one piece
    """

    dev: str
    id: str
    size: int
    align: int
    ways: int
    node: int | None
    available: int
    extent: int
    namespaces: tuple[Namespace, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Inventory:
    """The persistent memory of one host."""

    host: str
    regions: tuple[Region, ...]


def of_this_host(*, timeout: float = ndctl.TIMEOUT) -> Inventory:
    """Ask ndctl.

    :raises DiscoveryFailed: it failed, or there is no region
    """
    text = ndctl.run(timeout, "--regions", "--dimms")
    try:
        return Inventory(socket.gethostname(), parse(text))
    except ValueError as error:
        raise exception.DiscoveryFailed(
            source="ndctl", reason=str(error), remedy=f"Run '{COMMAND}' by hand and check the kernel log"
        ) from error


def of_files(files: Iterable[pathlib.Path]) -> Iterator[Inventory]:
    """Read files, whose names are those of the hosts.

    :raises InvalidRequest: one cannot be read or parsed
    """
    for file in files:
        try:
            yield Inventory(file.stem, parse(file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise _wrong(os.fspath(file), getattr(error, "strerror", None) or str(error)) from error


def files(path: str) -> list[pathlib.Path]:
    """Return this file, or each file with the suffix ``.json`` of this directory.

    :raises InvalidRequest: there is none
    """
    if not os.path.isdir(path):
        return [pathlib.Path(path)]
    found = sorted(pathlib.Path(path).glob("*.json"))
    if not found:
        raise _wrong(path, "this directory has no file whose name ends in .json")
    return found


def parse(text: str) -> tuple[Region, ...]:
    """Parse the output of ``ndctl list --regions``, with any of its options except ``--human``.

    :raises ValueError: the text has another form, or no region; the message says so
    """
    try:
        decoded = _DECODER.decode(text or "[]")
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError("it is not the JSON of ndctl list --regions, or was made with --human") from error
    found = _regions(decoded if isinstance(decoded, list) else [decoded])
    regions = tuple(_region(region) for region in found if region.type == "pmem" and region.state != "disabled")
    if not regions:
        raise ValueError("there is no region that is enabled")
    if len({region.id for region in regions}) < len(regions):
        raise ValueError("two regions have the same identity")
    return regions


def _regions(items: Sequence[_Item]) -> Iterator[_Item]:
    """Yield the regions: the items, or those in them."""
    for item in items:
        if item.dev.startswith("region"):
            yield item
        else:
            yield from _regions([*item.buses, *item.regions])


def _region(region: _Item) -> Region:
    """Check the numbers of a region, as discovery checks those of a namespace.

    :raises ValueError: one is impossible
    """
    extent = region.available_size if region.max_available_extent is None else region.max_available_extent
    numbers = (region.size, region.available_size, extent, region.align)
    if not all(0 <= number < interface.SIZE_LIMIT for number in numbers) or not region.align:
        raise ValueError(f"{exception.shorten(region.dev)} has an impossible size or alignment")
    if not extent <= region.available_size <= region.size or len(region.mappings) > _MAX_WAYS:
        raise ValueError(f"{exception.shorten(region.dev)} has more free bytes than bytes, or too many NVDIMMs")
    return Region(
        dev=region.dev,
        id=region.dev if region.iset_id is None else str(region.iset_id),
        size=region.size,
        align=region.align,
        ways=max(1, len(region.mappings)),
        node=region.numa_node if 0 <= region.numa_node < interface.MAX_NODES else None,
        available=region.available_size,
        extent=extent,
        namespaces=tuple(ns for ns in region.namespaces if ns.size or interface.canonical_uuid(ns.uuid)),
    )


def _wrong(path: str, reason: str) -> exception.InvalidRequest:
    return exception.InvalidRequest(
        what="inventory", value=path, reason=reason, remedy=f"Make it with '{COMMAND}', as root on that host"
    )
