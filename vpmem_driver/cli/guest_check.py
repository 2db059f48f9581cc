"""Whether a domain that libvirt is about to start leads to its own persistent memory."""

import contextlib
import os

from oslo_config import cfg

from vpmem_driver import conf, exception, guestxml, model
from vpmem_driver.pool import Pool


def refusal(domain: str, xml: str, config_file: str) -> str | None:
    """Why a domain must not be started; None when it may be. In doubt it must not."""
    try:
        if guestxml.devices(xml):
            with contextlib.closing(_pool(config_file)) as pool:
                check(domain, xml, pool)
    except (exception.VPMEMError, cfg.Error) as error:
        return str(error)
    return None


def check(domain: str, xml: str, pool: Pool) -> None:
    """Whether each nvdimm device of a domain leads to a namespace that the domain holds.

    Files and devices that are no namespaces of this host are none of ours; nor is what a device says that it is, if it
    comes from another host. A guest that was there before the ledger, and holds nothing in it, may have an unknown
    namespace.

    :raises DomainRefused: one does not
    """
    owner = guestxml.uuid(xml)
    held = {grant.uuid: grant for grant in pool.grants(owner)}
    records = pool.records()
    by_path = {os.path.realpath(record.device): record for record in records if record.device is not None}
    by_uuid = {record.uuid: record for record in records if record.uuid is not None}
    for device, told in guestxml.identified(xml):
        record = by_path.get(os.path.realpath(device.path))
        meant = by_uuid.get(told or "")
        if meant is not None and (record is None or record.uuid != meant.uuid):
            reason = f"its {meant.name} ({meant.uuid}) is at {meant.device or 'no path'} now, and not at {device.path}"
            raise exception.DomainRefused(domain=domain, reason=reason, remedy=f"'vpmem domain refresh {domain}'.")
        if record is not None and record.state != "unusable":
            _require_its_own(domain, owner, record, device.path, held)


def _require_its_own(domain: str, owner: str, record: model.Record, path: str, held: dict[str, model.Grant]) -> None:
    if record.owner == owner:
        if not held[record.uuid or ""].ready:
            raise exception.NamespaceBusy(namespace=record.name)
    elif record.owner is not None or held:
        whose = "nobody's" if record.owner is None else f"that of {record.owner}"
        reason = f"{path} is {record.name} ({record.uuid}), {whose}"
        raise exception.DomainRefused(domain=domain, reason=reason, remedy=f"'vpmem domain refresh {domain}'.")
    elif record.state != model.State.UNKNOWN:
        reason = f"{path} is {record.name} ({record.uuid}), which it does not hold"
        remedy = f"'vpmem adopt {owner} {record.name}' gives it what is in it; 'vpmem domain attach' does it cleanly."
        raise exception.DomainRefused(domain=domain, reason=reason, remedy=remedy)


def _pool(config_file: str) -> Pool:
    options = cfg.ConfigOpts()
    conf.register_opts(options)
    options([], project="vpmem", default_config_files=[config_file])
    return Pool.from_conf(options, leave_out_absent=True)
