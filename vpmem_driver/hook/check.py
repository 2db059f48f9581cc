"""Check that a domain, before it starts, has paths only to its own namespaces."""

import contextlib
from collections.abc import Mapping, Sequence

from oslo_config import cfg

from vpmem_driver import conf, discovery, exception, guestxml, hostpaths, model
from vpmem_driver.pool import Pool, Row

_MEMORY = "memory"


def refusal(domain: str, xml: str) -> str | None:
    """Return why a domain must not start; None if it may. In doubt it must not.

    If the namespaces cannot be listed, only domains with memory devices are in doubt. All others may start: a fault of
    persistent memory must not stop every domain of the host.
    """
    try:
        sources = guestxml.sources(xml)
        has_memory = any(source.kind == _MEMORY for source in sources)
        try:
            options = conf.read_file_only(conf.CONFIG_FILE, required=True)
            source = discovery.from_conf(options)
            found = source.namespaces()
        except (exception.VPMEMError, cfg.Error):
            if has_memory:
                raise
            return None
        if has_memory or _any_leads_to(found, sources):
            with contextlib.closing(Pool.from_conf(options, source=source, leave_out_absent=True)) as pool:
                check(domain, xml, pool, found)
    except exception.VPMEMError as error:
        return error.with_id()
    except cfg.Error as error:
        return str(error)
    return None


def _any_leads_to(found: Sequence[model.Namespace], sources: Sequence[guestxml.Source]) -> bool:
    wanted = hostpaths.Wanted(namespace.device for namespace in found if namespace.device is not None)
    return any(wanted.reached_from(source.path) for source in sources)


def check(domain: str, xml: str, pool: Pool, found: Sequence[model.Namespace]) -> None:
    """Verify that each path of a domain to a namespace leads to a namespace that the domain holds.

    Files and devices that are not namespaces of this host are ignored, and so is an alias that names a namespace of
    another host. A domain that is older than the ledger holds nothing, and may use unknown namespaces.

    :param found: namespaces that discovery finds now
    :raises DomainRefused, NamespaceBusy, NamespaceMissing: a path leads to another namespace
    """
    rows = {row.uuid: row for row in pool.rows()}
    locations = _Locations(rows, found)
    for device, alias_uuid in guestxml.identified(xml):
        row = rows.get(alias_uuid or "")
        if row is not None and row not in locations.at(device.path):
            now = locations.device_of(row) or "no path"
            reason = f"its namespace {row.name} ({row.uuid}) is now at {now}, not at {device.path}"
            raise exception.DomainRefused(domain=domain, reason=reason, remedy=f"Run 'vpmem domain refresh {domain}'")
    owner = guestxml.uuid(xml)
    holds = any(row.owner == owner for row in rows.values())
    for source in guestxml.sources(xml):
        for row in locations.at(source.path):
            if row.owner == owner:
                locations.require_usable(domain, source, row)
            else:
                _refuse(domain, owner, holds, source, row)


class _Locations:
    """The device paths of the ledger's namespaces: from discovery, or the last known path of missing ones."""

    def __init__(self, rows: Mapping[str, Row], found: Sequence[model.Namespace]) -> None:
        known = [(ns, rows[ns.uuid]) for ns in found if ns.uuid is not None and ns.uuid in rows]
        self._found = {row.uuid: ns for ns, row in known}
        self._here = {ns.device: row for ns, row in known if ns.device is not None}
        missing = [row for row in rows.values() if row.uuid not in self._found and row.owner is not None]
        self._last = {row.device: row for row in missing if row.device is not None}
        self._wanted, self._wanted_last = hostpaths.Wanted(self._here), hostpaths.Wanted(self._last)

    def at(self, path: str) -> list[Row]:
        """Return the namespaces that `path` leads to: those on the host, otherwise missing ones by their last path."""
        here = [self._here[device] for device in self._wanted.reached_from(path)]
        return here or [self._last[device] for device in self._wanted_last.reached_from(path)]

    def device_of(self, row: Row) -> str | None:
        """Return the device of a namespace; None if it is missing or unusable."""
        found = self._found.get(row.uuid)
        return None if found is None or found.unusable is not None else found.device

    def require_usable(self, domain: str, source: guestxml.Source, row: Row) -> None:
        """Verify that the domain's own namespace is present, usable and complete, and not being copied away."""
        found = self._found.get(row.uuid)
        if found is None:
            raise exception.NamespaceMissing(namespace=row.name or row.uuid)
        if found.unusable is not None:
            reason = f"its namespace {row.name} ({row.uuid}) at {source.path} is unusable: {found.unusable}"
            raise exception.DomainRefused(domain=domain, reason=reason, remedy="Fix that, then start the domain again")
        if row.state is not model.State.CLAIMED or row.departure is not None:
            raise exception.NamespaceBusy(namespace=row.name or row.uuid)


def _refuse(domain: str, owner: str, holds: bool, source: guestxml.Source, row: Row) -> None:
    """Refuse a namespace that the domain does not hold, unless it is unknown and may belong to the domain."""
    is_memory = source.kind == _MEMORY
    if row.owner is not None:
        status = f"belongs to {row.owner}"
    elif row.state is model.State.UNKNOWN and not (holds and is_memory):
        return
    else:
        status = f"is {row.state} and unowned"
    if is_memory and holds:
        remedy = f"Run 'vpmem domain refresh {domain}'"
    elif is_memory and row.owner is None:
        remedy = f"To keep its content, run 'vpmem adopt {owner} {row.name}'; for a wiped one, 'vpmem domain attach'"
    else:
        remedy = f"Remove that <{source.kind}> from its definition ('virsh edit {domain}')"
    reason = f"{source.path} leads to namespace {row.name} ({row.uuid}), which {status}"
    raise exception.DomainRefused(domain=domain, reason=reason, remedy=remedy)
