"""vpmem domain detach."""

import argparse

from cliff import lister

from vpmem_driver import exception, guestxml
from vpmem_driver.cli import commands


class DomainDetach(commands.Command, lister.Lister):
    """Take all of a domain's namespaces out of its definition and release them. Its bytes in them are lost.

    The domain must be shut off: a guest cannot give up persistent memory while it runs.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the domain."""
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem domain detach db1 --dry-run"
        parser.add_argument("domain", metavar="DOMAIN", help="name or uuid")
        commands.add_connect_argument(parser)
        commands.add_release_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        """Detach."""
        pool = commands.app(self).pool(parsed_args.connect)
        domains = commands.app(self).domains(parsed_args.connect)
        with domains.connection() as connection:
            domain = domains.find(connection, parsed_args.domain)
            grants = pool.grants(domain.UUIDString())
            if not grants:
                raise exception.NotOwner(
                    owner=domain.UUIDString(), namespace="any namespace", reason="the ledger has none for it"
                )
            if domains.is_running(domain):
                raise exception.DomainRefused(
                    domain=domain.name(), reason="it is running", remedy="Shut it down, then detach."
                )
            if not parsed_args.dry_run:
                definition = domains.definition(domain)
                paths = guestxml.find(guestxml.identified(definition), grants)
                domains.define(connection, guestxml.remove(definition, paths.values()))
        return commands.release(self, parsed_args, pool, grants[0].owner, [grant.uuid for grant in grants])
