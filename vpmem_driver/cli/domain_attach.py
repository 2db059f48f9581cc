"""The command ``vpmem domain attach``."""

import argparse
import typing

from vpmem_driver import exception, guestxml, model
from vpmem_driver.cli import common, listing
from vpmem_driver.libvirt_domains import Domains


class DomainAttach(listing.NamespaceLister):
    """Claim namespaces for a libvirt domain and add them to its definition.

    A running domain gets them at its next start. The domain definition must have guest NUMA cells.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem domain attach db1 4GB,SMALL --connect qemu:///system"
        common.add_domain_arguments(parser)
        common.add_claim_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        wanted = common.labels(parsed_args.labels)
        pool = common.app(self).pool(parsed_args.connect)
        domains = common.app(self).domains(parsed_args.connect)
        with domains.connection() as connection:
            domain = domains.find(connection, parsed_args.domain)
            owner = domain.UUIDString()
            guestxml.check(domains.definition(domain))  # fail before anything is claimed
            with common.wipe_progress(self) as on_progress:
                grants = pool.claim(owner, wanted, numa_node=parsed_args.numa_node, on_progress=on_progress)
            try:
                domains.define(connection, guestxml.add(domains.definition(domain), grants))
            except exception.VPMEMError:
                if not _has(domains, domain, grants):
                    pool.release(owner, [grant.uuid for grant in grants])
                raise
            if domains.is_running(domain):
                self.app.LOG.warning("Domain %s is running. It gets the namespaces at its next start.", domain.name())
        uuids = {grant.uuid for grant in grants}
        return common.rows(record for record in pool.records() if record.uuid in uuids)


def _has(domains: Domains, domain: typing.Any, grants: tuple[model.Grant, ...]) -> bool:
    """Return whether the domain has the devices despite the error. In doubt it has, and keeps its claim."""
    try:
        present = {device.path for device in guestxml.devices(domains.definition(domain))}
    except exception.LibvirtError:
        return True
    return bool(present & {grant.device for grant in grants})
