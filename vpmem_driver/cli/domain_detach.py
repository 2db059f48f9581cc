"""The command ``vpmem domain detach``."""

import argparse

from vpmem_driver import exception, guestxml
from vpmem_driver.cli import common, listing


class DomainDetach(listing.NamespaceLister):
    """Remove all namespaces of a domain from its definition and release them. Their content is lost.

    The domain must be shut off, because persistent memory cannot be removed from a running guest.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem domain detach db1 --dry-run"
        common.add_domain_arguments(parser)
        common.add_release_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        pool = common.app(self).pool(parsed_args.connect)
        domains = common.app(self).domains(parsed_args.connect)
        with domains.connection() as connection:
            domain = domains.find(connection, parsed_args.domain)
            grants = pool.grants(domain.UUIDString(), required=True)
            if domains.is_running(domain):
                raise exception.DomainRefused(domain=domain.name(), reason="it is running", remedy="Shut it down first")
            if not parsed_args.dry_run:
                definition = domains.definition(domain)
                paths = guestxml.find(guestxml.identified(definition), grants)
                domains.define(connection, guestxml.remove(definition, paths.values()))
        return common.release(self, parsed_args, pool, grants[0].owner, [grant.uuid for grant in grants])
