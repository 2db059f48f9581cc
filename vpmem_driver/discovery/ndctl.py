"""Discovery with ``ndctl list``, and of volatile memory, which ndctl does not list (:mod:`.volatile`).

The output format is that of ndctl 76.1 and 81: ndctl/list.c (outline), ndctl/json.c (a namespace) and daxctl/json.c
(its dax region and devices).
"""

import logging
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence

import msgspec

from vpmem_driver import exception, model
from vpmem_driver.discovery import badblocks, hardware, interface, volatile

LOG = logging.getLogger(__name__)

#: Prints a flat list of all namespaces, including disabled ones. --verbose adds the dax regions with their devices, the
#: NUMA and the target nodes; a second --verbose would nest the list in regions and buses. It implies --namespaces,
#: except with NDCTL_LIST_LINT set.
COMMAND = ("ndctl", "list", "--namespaces", "--idle", "--verbose")
TIMEOUT = 60.0  # seconds

_ALTERNATIVE = "set [vpmem] discovery = sysfs"
_BY_HAND = f"Run '{' '.join(COMMAND)}' by hand and check the kernel log, or {_ALTERNATIVE}"
_HUMAN = re.compile(r'"(?:size|align)"\s*:\s*"')


class _Device(msgspec.Struct, frozen=True, gc=False):
    chardev: str
    size: int = 0
    target_node: int = -1
    align: int = 0
    mode: str = ""
    state: str = ""


class _DaxRegion(msgspec.Struct, frozen=True, gc=False):
    align: int = 0
    devices: tuple[_Device, ...] = ()


class _Item(msgspec.Struct, frozen=True, gc=False):
    """A namespace, or one that contains namespaces: a region, a bus, the platform."""

    dev: str = ""
    mode: str = "unknown"
    state: str = ""
    size: int = 0
    uuid: str | None = None
    name: str | None = None
    align: int = 0
    numa_node: int = -1
    target_node: int = -1
    chardev: str | None = None
    daxregion: _DaxRegion | None = None
    buses: tuple["_Item", ...] | None = None
    regions: tuple["_Item", ...] | None = None
    namespaces: tuple["_Item", ...] | None = None
    dimms: tuple["_Item", ...] | None = None


_DECODER: msgspec.json.Decoder[list[_Item] | _Item] = msgspec.json.Decoder(list[_Item] | _Item)
_NO_DEVICE = _Device("")

NodeOf = Callable[[str], int | None]
HardwareOf = Callable[[str], hardware.Hardware]


class NdctlDiscovery(interface.Discovery):
    """Runs the ndctl program.

    :param run: returns the JSON text of an ``ndctl list``, instead of running ndctl here. Without ``--verbose`` or
        ``--device-dax``, the text does not show which devices are in mode system-ram.
    :param sysfs_root: where to read what ndctl does not print
    :param timeout: seconds
    """

    name = "ndctl"

    def __init__(
        self, run: Callable[[], str] | None = None, *, sysfs_root: str = "/sys", timeout: float = TIMEOUT
    ) -> None:
        self._run = run
        self._sysfs_root = sysfs_root
        self._timeout = timeout
        #: kernel name of each namespace, by uuid, from the last listing
        self._places: dict[str, str] = {}

    def namespaces(self) -> tuple[model.Namespace, ...]:
        text = run(self._timeout) if self._run is None else _call(self._run)
        listed = self._read(text)
        found = [*self._volatile(listed), *listed]
        namespaces = interface.check(self.name, [namespace for _, namespace in found])
        self._places = interface.places(dict(found), namespaces)
        return namespaces

    def _read_again(self, uuid: str) -> tuple[model.Namespace, ...]:
        dev = self._places.get(uuid)
        if dev is None:
            return ()
        if dev.startswith("dax"):
            again = volatile.namespace(self._sysfs_root, dev)
            return () if again is None else interface.check(self.name, [again])
        if self._run is not None:
            return ()
        found = self._read(run(self._timeout, f"--namespace={dev}"))
        return interface.check(self.name, [namespace for _, namespace in found])

    def _volatile(self, listed: list[tuple[str, model.Namespace]]) -> Iterator[tuple[str, model.Namespace]]:
        on_bus = {namespace.device.removeprefix("/dev/") for _, namespace in listed if namespace.device is not None}
        try:
            yield from volatile.namespaces(self._sysfs_root, volatile.links(self._sysfs_root, on_bus))
        except OSError as exc:
            reason = f"{self._sysfs_root}/bus/dax/devices cannot be read ({exc.strerror})"
            raise _failed(reason, "Check the kernel log") from exc

    def _read(self, text: str) -> list[tuple[str, model.Namespace]]:
        """Read what ndctl printed, and add what it does not print: the hardware, and which devices are fsdev_dax's."""
        found = _read(text, self._node_of(), hardware.by_region(self._sysfs_root))
        filesystems = _names(f"{self._sysfs_root}/bus/dax/drivers/fsdev_dax")
        return [(dev, _mark(namespace, filesystems)) for dev, namespace in found] if filesystems else found

    def options(self) -> dict[str, str]:
        return {} if self._sysfs_root == "/sys" else {"root": self._sysfs_root}

    def identity_of(self, fd: int) -> str | None:
        return volatile.identity_of(fd, self._sysfs_root)

    def bad_ranges(self, device: str) -> tuple[tuple[int, int], ...]:
        return badblocks.bad_ranges(device, self._sysfs_root)

    def _node_of(self) -> NodeOf:
        """Cache the node per region: the kernel gives a namespace the node of its region (drivers/nvdimm/bus.c)."""
        known: dict[str, int | None] = {}

        def node_of(dev: str) -> int | None:
            region = dev.partition(".")[0]
            if region not in known:
                known[region] = interface.read_node(f"{self._sysfs_root}/bus/nd/devices/{dev}/numa_node")
            return known[region]

        return node_of


def _names(directory: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(directory))
    except OSError:
        return frozenset()


def _mark(namespace: model.Namespace, filesystems: frozenset[str]) -> model.Namespace:
    """Make it unusable if its device is one of `filesystems`, which the driver fsdev_dax has."""
    device = (namespace.device or "").removeprefix("/dev/")
    if device not in filesystems:
        return namespace
    reason = interface.why_not_mappable("fsdev", device)
    return msgspec.structs.replace(namespace, mode="fsdev", unusable=reason)


def parse(text: str, node_of: NodeOf | None = None) -> tuple[model.Namespace, ...]:
    """Parse the output of ``ndctl list``, with any of its options except ``--human``.

    The output is a flat array, one object, or arrays in regions, buses or the platform. It is empty or blank if there
    is nothing to list. Empty slots, with neither size nor uuid, are skipped. `align` is the alignment of the dax
    device, which the kernel uses for mappings, otherwise that of its dax region, of the namespace, or DEFAULT_ALIGN.

    :param node_of: called with ``namespace0.0`` if the text has no NUMA node for it; if this returns None too, the
        target node is used
    :returns: see :func:`.interface.check`
    :raises DiscoveryFailed: the text is not JSON, incomplete, or not a list of namespaces
    """
    return interface.check(NdctlDiscovery.name, [namespace for _, namespace in _read(text, node_of)])


def _read(
    text: str, node_of: NodeOf | None, hardware_of: HardwareOf = lambda _number: hardware.UNKNOWN
) -> list[tuple[str, model.Namespace]]:
    """Like :func:`parse`, but unchecked and with the kernel name of each namespace."""
    found: list[tuple[str, model.Namespace]] = []
    if text and not text.isspace():
        _add(found, _decode(text), -1, node_of, hardware_of)
    return found


def _call(run: Callable[[], str]) -> str:
    try:
        return run()
    except Exception as exc:
        LOG.debug("Calling ndctl list failed: %s", exc)
        raise _failed(f"ndctl list failed ({type(exc).__name__})", _BY_HAND) from exc


def run(timeout: float, *options: str) -> str:
    """Run COMMAND with more options, and return the JSON text that it prints.

    :param timeout: seconds
    :raises DiscoveryFailed: it cannot be run, fails, or takes longer
    """
    try:
        done = subprocess.run(
            (*COMMAND, *options),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise _explained(exc) from exc
    LOG.debug("ndctl list printed %d bytes; standard error: %s", len(done.stdout), done.stderr)
    # A name can be any bytes. One that is not UTF-8 must not hide the other namespaces.
    return done.stdout.decode("utf-8", "replace")


def _explained(exc: Exception) -> exception.DiscoveryFailed:
    match exc:
        case FileNotFoundError():
            return _failed("the ndctl program was not found", "Install the package ndctl, or " + _ALTERNATIVE)
        case PermissionError():
            return _failed("this user may not run the ndctl program", "Run this as root, or " + _ALTERNATIVE)
        case OSError():
            return _failed(f"the ndctl program cannot be run: {exc.strerror}", _BY_HAND)
        case subprocess.TimeoutExpired():
            return _failed(f"ndctl list did not end within {exc.timeout:g} seconds", _BY_HAND)
        case subprocess.CalledProcessError():
            return _failed(_exit(exc.returncode, exc.stderr), _BY_HAND)
    return _failed(f"ndctl list failed ({type(exc).__name__})", _BY_HAND)


def _exit(returncode: int, stderr: bytes) -> str:
    LOG.debug("ndctl list ended with %d; standard error: %s", returncode, stderr)
    if returncode < 0:
        return f"ndctl list was killed by signal {-returncode} ({signal.strsignal(-returncode)})"
    return f"ndctl list ended with exit code {returncode}"


def _failed(reason: str, remedy: str) -> exception.DiscoveryFailed:
    return exception.DiscoveryFailed(source=NdctlDiscovery.name, reason=reason, remedy=remedy)


def _decode(text: str) -> Sequence[_Item]:
    try:
        decoded = _DECODER.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        LOG.debug("ndctl list printed: %s", text)
        if _HUMAN.search(text):
            raise _failed("it printed sizes as text, not as numbers", "Remove its option --human (-u)") from exc
        raise _failed("its output is not JSON, incomplete, or not a list of namespaces", _BY_HAND) from exc
    return decoded if isinstance(decoded, list) else (decoded,)


def _add(
    found: list[tuple[str, model.Namespace]],
    items: Sequence[_Item],
    region_node: int,
    node_of: NodeOf | None,
    hardware_of: HardwareOf,
) -> None:
    """Add the namespaces in `items`, except empty slots. `region_node` is the NUMA node of their region, or -1."""
    for item in items:
        if item.dev.startswith("namespace"):
            namespace = _namespace(item, region_node, node_of, hardware_of)
            if namespace.size or namespace.uuid:
                found.append((item.dev, namespace))
            continue
        inner = [part for part in (item.buses, item.regions, item.namespaces) if part is not None]
        if not inner and not item.dev and item.dimms is None:
            raise _failed("its output is JSON, but not a list of namespaces", _BY_HAND)
        for part in inner:
            _add(found, part, item.numa_node, node_of, hardware_of)


def _namespace(item: _Item, region_node: int, node_of: NodeOf | None, hardware_of: HardwareOf) -> model.Namespace:
    region = item.daxregion
    devices = region.devices if region is not None else _only(item)
    if len(devices) != 1:
        devices = tuple(device for device in devices if device.size)  # a device of size 0 is an empty slot
    device = devices[0] if len(devices) == 1 else _NO_DEVICE
    mode = item.mode if device.mode != "system-ram" else device.mode
    uuid = interface.canonical_uuid(item.uuid)
    size = device.size or item.size
    node = item.numa_node
    memory = hardware_of(item.dev[len("namespace") :].partition(".")[0])
    # Most are usable, and finding the reason costs as much as the rest of this function.
    usable = mode == "devdax" and item.state != "disabled" and device.state != "disabled" and device.chardev
    return model.Namespace(
        uuid=uuid,
        name=item.name,
        size=size,
        align=device.align or (region.align if region is not None else 0) or item.align or interface.DEFAULT_ALIGN,
        numa_node=node if node >= 0 else _node(item, device, region_node, node_of),
        mode=mode,
        device="/dev/" + device.chardev if device.chardev else None,
        pmem=True,
        unusable=None
        if usable and size > 0 and uuid and item.name
        else interface.why_unusable(
            item.dev,
            enabled=item.state != "disabled",
            mode=mode,
            devices=len(devices),
            device=device.chardev,
            device_enabled=device.state != "disabled",
            name=item.name,
            uuid=uuid,
            size=size,
        ),
        # One by one: to unpack a dict would take a quarter of the time of this function.
        provider=memory.provider,
        persistence_domain=memory.persistence_domain,
        memdev=memory.memdev,
        serial=memory.serial,
    )


def _only(item: _Item) -> tuple[_Device, ...]:
    """Return the device from a text without --verbose and --device-dax, which has only the name of the first one."""
    return (_Device(item.chardev, item.size),) if item.chardev else ()


def _node(item: _Item, device: _Device, region_node: int, node_of: NodeOf | None) -> int | None:
    if region_node >= 0:
        return region_node
    node = node_of(item.dev) if node_of else None
    if node is None:
        node = max(item.target_node, device.target_node)
    return node if node >= 0 else None
