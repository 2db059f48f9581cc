"""The command ``vpmem domain attach``."""

import argparse
import typing
from collections.abc import Sequence

from vpmem_driver import exception, guestxml, model, sizes
from vpmem_driver.cli import common, listing
from vpmem_driver.libvirt_domains import Domains

#: More than any host has: 52 bits address them.
_MAX_RESERVED = 1 << 52


class DomainAttach(listing.NamespaceLister):
    """Claim namespaces for a libvirt domain and add them to its definition.

    A running domain gets them at its next start or, with --live, at once. Its guest must then have free memory slots,
    which --reserve prepares: that needs a restart too, once. A nvdimm can be added to a running domain that was started
    with one; a virtio-pmem also to others. Neither can be removed from a running domain. The domain definition must
    have guest NUMA cells.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem domain attach db1 4GB,SMALL --connect qemu:///system"
        common.add_domain_arguments(parser)
        common.add_claim_arguments(parser, optional=True)
        when = parser.add_mutually_exclusive_group()
        when.add_argument("--live", action="store_true", help="add them to the running domain too, at once")
        when.add_argument(
            "--reserve",
            metavar="N:SIZE",
            type=_reservation,
            help="make room in the definition for N more devices of SIZE each, to be added with --live",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        if parsed_args.labels is None and parsed_args.reserve is None:
            raise exception.InvalidRequest(
                what="labels", value="", reason="there are none", remedy="Give LABEL[,LABEL…], or --reserve N:SIZE"
            )
        wanted = common.labels(parsed_args.labels) if parsed_args.labels is not None else []
        pool = common.app(self).pool(parsed_args.connect)
        domains = common.app(self).domains(parsed_args.connect)
        grants: Sequence[model.Grant] = ()
        with domains.connection() as connection:
            domain = domains.find(connection, parsed_args.domain)
            owner = domain.UUIDString()
            guestxml.check(domains.definition(domain))  # fail before anything is claimed
            if parsed_args.live:
                _require_pluggable(domains, domain, len(wanted))
            if wanted:
                with common.wipe_progress(self) as on_progress:
                    grants = pool.claim(owner, wanted, numa_node=parsed_args.numa_node, on_progress=on_progress)
            try:
                if parsed_args.live:
                    _plug(domains, domain, grants)
                else:
                    _define(domains, connection, domain, grants, parsed_args.reserve)
            except exception.VPMEMError:
                if missing := _missing(domains, domain, grants):
                    pool.release(owner, missing)
                raise
            if domains.is_running(domain) and not parsed_args.live:
                what = "namespaces" if wanted else "room"
                self.app.LOG.warning("Domain %s is running. It gets the %s at its next start.", domain.name(), what)
        uuids = {grant.uuid for grant in grants}
        return common.rows(record for record in pool.records() if record.uuid in uuids)


def _reservation(text: str) -> tuple[int, int]:
    """Parse the argument ``N:SIZE``."""
    count, _, size = text.partition(":")
    number = common.whole_number(1, 256)(count)
    return number, common.size(sizes.GRANULE, _MAX_RESERVED)(size)


def _require_pluggable(domains: Domains, domain: typing.Any, count: int) -> None:
    """Verify what is known before the claim. :raises DomainRefused: the domain cannot take the devices now."""
    if not domains.is_running(domain):
        raise exception.DomainRefused(domain=domain.name(), reason="it is shut off", remedy="Leave out --live")
    guestxml.require_slots(domains.running(domain), count)


def _plug(domains: Domains, domain: typing.Any, grants: Sequence[model.Grant]) -> None:
    for device_xml in guestxml.plug(domains.running(domain), grants):
        domains.attach(domain, device_xml)


def _define(
    domains: Domains,
    connection: typing.Any,
    domain: typing.Any,
    grants: Sequence[model.Grant],
    reserved: tuple[int, int] | None,
) -> None:
    definition = guestxml.add(domains.definition(domain), grants)
    domains.define(connection, definition if reserved is None else guestxml.reserve(definition, *reserved))


def _missing(domains: Domains, domain: typing.Any, grants: Sequence[model.Grant]) -> list[str]:
    """Return the namespaces that the domain does not have, despite the error. In doubt it has them, and keeps them."""
    try:
        shown = [domains.definition(domain), *([domains.running(domain)] if domains.is_running(domain) else [])]
        devices = [device for text in shown for device in guestxml.identified(text)]
    except exception.VPMEMError:
        return []
    uuids, paths = {uuid for _, uuid in devices}, {device.path for device, _ in devices}
    return [grant.uuid for grant in grants if grant.uuid not in uuids and grant.device not in paths]
