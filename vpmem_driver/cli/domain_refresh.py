"""The command ``vpmem domain refresh``."""

import argparse
import typing

from vpmem_driver import exception, guestxml
from vpmem_driver.cli import common, listing, tables
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import Pool

COLUMNS = ("domain", "uuid", "name", "before", "now")

_FOR_PEOPLE = tuple(tables.Column(heading) for heading in ("DOMAIN", "NAME", "BEFORE", "NOW"))


class DomainRefresh(listing.Lister):
    """Update the device paths in the definitions of domains that hold namespaces.

    The kernel can renumber its device nodes at each boot. A domain with an old path, also at autostart, would then
    start on another owner's namespace. Run this command after each boot, before any domain starts. It lists the
    changes.
    """

    column_names = COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem domain refresh --dry-run"
        parser.add_argument("domains", metavar="DOMAIN", nargs="*", help="name or uuid (default: all)")
        common.add_connect_argument(parser)
        parser.add_argument("--dry-run", action="store_true", help="only list the changes")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        pool = common.app(self).pool(parsed_args.connect)
        domains = common.app(self).domains(parsed_args.connect)
        changes: list[tuple[object, ...]] = []
        failed: list[exception.VPMEMError] = []
        with domains.connection() as connection:
            named = [domains.find(connection, name) for name in parsed_args.domains]
            for domain in named or domains.all(connection):
                try:
                    changes += refresh(pool, domains, connection, domain, dry_run=parsed_args.dry_run)
                except exception.VPMEMError as error:  # continue with the other domains
                    self.app.LOG.error("Domain %s: %s", domain.name(), error)
                    failed.append(error)
        if failed:  # an error replaces the table
            for domain_name, _, name, before_path, now in changes:
                self.app.LOG.warning("Domain %s: %s is now at %s, was at %s", domain_name, name, now, before_path)
            raise failed[0]
        return COLUMNS, changes

    def for_people(self, parsed_args: argparse.Namespace, rows: list[common.Row], screen: tables.Screen) -> str:  # noqa: ARG002
        cells = [[str(row[COLUMNS.index(name)] or "") for name in ("domain", "name", "before", "now")] for row in rows]
        return tables.render(_FOR_PEOPLE, cells, screen)


def refresh(
    pool: Pool, domains: Domains, connection: typing.Any, domain: typing.Any, *, dry_run: bool = False
) -> list[common.Row]:
    """Update the device paths in the definition of one domain.

    :returns: a row of the listing for each path that changes
    :raises VPMEMError: see :func:`.guestxml.refresh`; or discovery, the ledger or libvirt failed
    """
    if not pool.held(domain.UUIDString()):
        return []  # do not read its definition or the host
    grants = pool.grants(domain.UUIDString())
    definition = domains.definition(domain)
    fresh = guestxml.refresh(definition, grants)
    if fresh != definition and not dry_run:
        domains.define(connection, fresh)
    before = guestxml.find(guestxml.identified(definition), grants)
    return [
        (domain.name(), grant.uuid, grant.name, before[grant.uuid], grant.device)
        for grant in grants
        if before[grant.uuid] != grant.device
    ]
