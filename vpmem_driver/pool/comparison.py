"""What ledger, devices, processes and domains say of each namespace, side by side. It changes nothing.

A device in a definition is identified by the uuid in its alias; without one by the path of the owner's claim, then by
what its path leads to now. What a running domain uses is what its path leads to, whatever its alias says.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator

from vpmem_driver import device_users, exception, guestxml, hostpaths, model
from vpmem_driver.ledger import Row
from vpmem_driver.libvirt_domains import Domains, DomainXML
from vpmem_driver.pool.snapshot import Snapshot
from vpmem_driver.pool.view import View


@dataclasses.dataclass(frozen=True, slots=True)
class Use:
    """One place where a domain has a namespace.

    :ivar owner: uuid of the domain
    :ivar is_running: it runs with the namespace; otherwise it has it in its definition
    :ivar kind: the device: memory, disk, … (:class:`.guestxml.Source`)
    :ivar position: order among the places of the domain
    :ivar is_marked: the alias of the device has the uuid of the namespace
    :ivar is_outdated: the path no longer leads to the namespace
    :ivar hardware: what the guest's device is; None if it is no memory device that vpmem can make
    """

    owner: str
    domain: str
    is_running: bool
    kind: str
    path: str
    position: int
    is_marked: bool = False
    is_outdated: bool = False
    hardware: model.Hardware | None = None

    @property
    def user(self) -> str:
        """Return the domain for a message."""
        return f"the running domain {self.domain}" if self.is_running else f"the definition of domain {self.domain}"


@dataclasses.dataclass(frozen=True, slots=True)
class Compared:
    """One namespace.

    :ivar row: its row in the ledger; None if the ledger does not have it
    :ivar uses: where domains have it
    :ivar process: a process that has it mapped, as from :func:`.device_users.users_of`
    """

    record: model.Record
    row: Row | None
    uses: tuple[Use, ...]
    process: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """All namespaces of host and ledger, sorted by name and uuid.

    :ivar strangers: places where a domain has a namespace that neither host nor ledger knows, with its uuid
    :ivar libvirt: URI of the libvirt that was asked; None if there is none
    """

    namespaces: tuple[Compared, ...]
    strangers: tuple[tuple[str, Use], ...]
    libvirt: str | None


def compare(now: Snapshot, domains: Domains) -> Comparison:
    """Ask libvirt and /proc about the namespaces of `now`.

    :raises LibvirtError: libvirt did not answer
    :raises DomainRefused: the XML of a domain cannot be read
    :raises HostToolError: /proc does not list the processes
    """
    uses = uses_of(domains.domain_xml(), now.found or (), now.rows.values())
    processes = device_users.users_of(ns.device for ns in now.found or () if ns.device is not None)
    known = {record.uuid for record in now.records}
    return Comparison(
        namespaces=tuple(
            Compared(
                record,
                now.rows.get(record.uuid or ""),
                tuple(uses.get(record.uuid or "", ())),
                processes.get(record.device or ""),
            )
            for record in now.records
        ),
        strangers=tuple((uuid, use) for uuid, found in uses.items() if uuid not in known for use in found),
        libvirt=domains.uri,
    )


def require_abandoned(owner: str, rows: Collection[Row], view: View, domains: Domains) -> None:
    """Verify that `owner` has no domain, and that no domain and no process has one of its namespaces.

    :raises DomainRefused, NamespaceInUse, LibvirtError: see :meth:`.Pool.require_abandoned`
    """
    defined = domains.domain_xml()
    for domain in defined:
        if domain.uuid == owner:
            remedy = "'vpmem domain detach' releases what it has. Nothing was changed"
            raise exception.DomainRefused(domain=domain.name, reason="it exists", remedy=remedy)
    uses = uses_of(defined, view.found, rows)
    devices = {row.uuid: view.grant(row).device or "" for row in rows}
    processes = device_users.users_of(devices.values())
    for row in rows:
        user = uses[row.uuid][0].user if row.uuid in uses else processes.get(devices[row.uuid])
        if user is not None:
            raise exception.NamespaceInUse(namespace=row.name or row.uuid, user=user)


def uses_of(
    domains: Iterable[DomainXML], found: Iterable[model.Namespace], rows: Collection[Row]
) -> dict[str, list[Use]]:
    """Return where `domains` have namespaces, by uuid.

    :param found: what discovery finds
    :raises DomainRefused: the XML of a domain cannot be read
    """
    devices = {ns.device: ns.uuid for ns in found if ns.device is not None and ns.uuid is not None}
    uses: dict[str, list[Use]] = {}
    for domain in domains:
        for uuid, use in _uses(domain, devices, rows):
            uses.setdefault(uuid, []).append(use)
    return uses


def _uses(domain: DomainXML, devices: dict[str, str], rows: Iterable[Row]) -> list[tuple[str, Use]]:
    """Return the namespaces that a domain has, by uuid, with the place.

    :param devices: uuid by current device path
    """
    wanted = hostpaths.Wanted(devices)
    known_paths = {row.device: row.uuid for row in rows if row.owner == domain.uuid and row.device is not None}
    try:
        found = list(_defined(domain, devices, wanted, known_paths))
        if domain.running is not None:
            found += _running(domain, domain.running, devices, wanted)
    except exception.InvalidDomainXML as error:
        raise exception.DomainRefused(
            domain=domain.name, reason=str(error), remedy="Fix that domain, or undefine it"
        ) from error
    return list(dict.fromkeys(found))


def _defined(
    domain: DomainXML, devices: dict[str, str], wanted: hostpaths.Wanted, known_paths: dict[str, str]
) -> Iterator[tuple[str, Use]]:
    devices_of = guestxml.identified(domain.definition)
    for position, (device, marked) in enumerate(devices_of):
        here = [devices[path] for path in wanted.reached_from(device.path)]
        claimed = known_paths.get(device.path)
        for uuid in [marked] if marked is not None else [claimed] if claimed is not None else here:
            use = Use(domain.uuid, domain.name, is_running=False, kind="memory", path=device.path, position=position)
            use = dataclasses.replace(use, is_marked=marked is not None, hardware=device.hardware)
            yield uuid, dataclasses.replace(use, is_outdated=uuid not in here)
    of_devices = {("memory", device.path) for device, _ in devices_of}
    for source in guestxml.sources(domain.definition):
        if source not in of_devices:
            for path in wanted.reached_from(source.path):
                yield (
                    devices[path],
                    Use(domain.uuid, domain.name, is_running=False, kind=source.kind, path=source.path, position=0),
                )


def _running(
    domain: DomainXML, xml: str, devices: dict[str, str], wanted: hostpaths.Wanted
) -> Iterator[tuple[str, Use]]:
    known = {
        device.path: (position, marked, device.hardware)
        for position, (device, marked) in enumerate(guestxml.identified(xml))
    }
    for source in guestxml.sources(xml):
        is_known = source.kind == "memory" and source.path in known
        position, marked, hardware = known[source.path] if is_known else (0, None, None)
        use = Use(domain.uuid, domain.name, is_running=True, kind=source.kind, path=source.path, position=position)
        here = [devices[path] for path in wanted.reached_from(source.path)]
        for uuid in here or ([marked] if marked is not None else []):
            yield uuid, dataclasses.replace(use, is_marked=uuid == marked, hardware=hardware)
