"""Whether a domain that libvirt is about to start comes to no namespaces but its own."""

import contextlib
from collections.abc import Mapping, Sequence

from oslo_config import cfg

from vpmem_driver import conf, discovery, exception, guestxml, hostpaths, model
from vpmem_driver.pool import Pool, Row

_MEMORY = "memory"


def refusal(domain: str, xml: str) -> str | None:
    """Why a domain must not be started; None when it may be. In doubt it must not.

    Where namespaces cannot be listed there is a doubt only about domains with memory devices. All others are started,
    or each trouble with persistent memory would stop every domain of the host.
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
        if has_memory or _lead_to(found, sources):
            with contextlib.closing(Pool.from_conf(options, source=source, leave_out_absent=True)) as pool:
                check(domain, xml, pool, found)
    except (exception.VPMEMError, cfg.Error) as error:
        return str(error)
    return None


def _lead_to(found: Sequence[model.Namespace], sources: Sequence[guestxml.Source]) -> bool:
    wanted = hostpaths.Wanted(namespace.device for namespace in found if namespace.device is not None)
    return any(wanted.reached_from(source.path) for source in sources)


def check(domain: str, xml: str, pool: Pool, found: Sequence[model.Namespace]) -> None:
    """Whether each path of a domain that leads to a namespace leads to one that the domain holds.

    Files and devices that are no namespaces of this host do not count; nor does the namespace that a device names, if
    it is another host's. A domain from the time before the ledger holds nothing, and may have unknown namespaces.

    :param found: what discovery sees now
    :raises DomainRefused, NamespaceBusy, NamespaceMissing: one does not
    """
    rows = {row.uuid: row for row in pool.rows()}
    places = _Places(rows, found)
    for device, named in guestxml.identified(xml):
        meant = rows.get(named or "")
        if meant is not None and meant not in places.at(device.path):
            now = places.device_of(meant) or "no path"
            reason = f"its {meant.name} ({meant.uuid}) is at {now} now, and not at {device.path}"
            raise exception.DomainRefused(domain=domain, reason=reason, remedy=f"'vpmem domain refresh {domain}'.")
    owner = guestxml.uuid(xml)
    holds = any(row.owner == owner for row in rows.values())
    for source in guestxml.sources(xml):
        for row in places.at(source.path):
            if row.owner == owner:
                places.require_usable(domain, source, row)
            else:
                _refuse(domain, owner, holds, source, row)


class _Places:
    """Where the ledger's namespaces are: what discovery finds, usable or not; else where they were last."""

    def __init__(self, rows: Mapping[str, Row], found: Sequence[model.Namespace]) -> None:
        known = [(ns, rows[ns.uuid]) for ns in found if ns.uuid is not None and ns.uuid in rows]
        self._found = {row.uuid: ns for ns, row in known}
        self._here = {ns.device: row for ns, row in known if ns.device is not None}
        missing = [row for row in rows.values() if row.uuid not in self._found and row.owner is not None]
        self._last = {row.device: row for row in missing if row.device is not None}
        self._wanted, self._wanted_last = hostpaths.Wanted(self._here), hostpaths.Wanted(self._last)

    def at(self, path: str) -> list[Row]:
        """The namespaces that `path` leads to. The last path of one that is missing may lead to another one by now."""
        here = [self._here[device] for device in self._wanted.reached_from(path)]
        return here or [self._last[device] for device in self._wanted_last.reached_from(path)]

    def device_of(self, row: Row) -> str | None:
        """The device of a namespace that can be used now."""
        found = self._found.get(row.uuid)
        return None if found is None or found.unusable is not None else found.device

    def require_usable(self, domain: str, source: guestxml.Source, row: Row) -> None:
        """Whether the domain's own namespace is there, and ready for it."""
        found = self._found.get(row.uuid)
        if found is None:
            raise exception.NamespaceMissing(namespace=row.name or row.uuid)
        if found.unusable is not None:
            reason = f"{source.path} is its {row.name} ({row.uuid}), which cannot be used now: {found.unusable}"
            raise exception.DomainRefused(domain=domain, reason=reason, remedy="Change that, then start it again.")
        if row.state is not model.State.CLAIMED:
            raise exception.NamespaceBusy(namespace=row.name or row.uuid)


def _refuse(domain: str, owner: str, holds: bool, source: guestxml.Source, row: Row) -> None:
    """Refuse a namespace that it does not hold, unless it is unknown and may be what it has had all the time."""
    is_memory = source.kind == _MEMORY
    if row.owner is not None:
        whose = f"belongs to {row.owner}"
    elif row.state is model.State.UNKNOWN and not (holds and is_memory):
        return
    else:
        whose = f"is {row.state} and unowned"
    if is_memory and holds:
        remedy = f"'vpmem domain refresh {domain}'."
    elif is_memory and row.owner is None:
        remedy = f"'vpmem adopt {owner} {row.name}' gives it what is in it; 'vpmem domain attach' an empty one."
    else:
        remedy = f"Take that <{source.kind}> out of its definition ('virsh edit {domain}')."
    reason = f"{source.path} leads to {row.name} ({row.uuid}), which {whose}"
    raise exception.DomainRefused(domain=domain, reason=reason, remedy=remedy)
