"""vpmem domain refresh."""

import argparse

from cliff import lister

from vpmem_driver import exception, guestxml
from vpmem_driver.cli import commands

COLUMNS = ("domain", "uuid", "name", "before", "now")


class DomainRefresh(commands.Command, lister.Lister):
    """Update the device paths in the definitions of domains that hold namespaces.

    The kernel may number its device nodes anew at each boot. A domain that is defined from its XML, as libvirt does it
    at autostart, would then be started on another's namespace: run this after each boot, before the first start. What
    changes is listed.
    """

    column_names = COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the domains."""
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem domain refresh --dry-run"
        parser.add_argument("domains", metavar="DOMAIN", nargs="*", help="name or uuid (default: all)")
        commands.add_connect_argument(parser)
        parser.add_argument("--dry-run", action="store_true", help="only list what would be changed")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        """Refresh."""
        pool = commands.app(self).pool(parsed_args.connect)
        domains = commands.app(self).domains(parsed_args.connect)
        changes: list[tuple[object, ...]] = []
        failed: list[exception.VPMEMError] = []
        with domains.connection() as connection:
            named = [domains.find(connection, name) for name in parsed_args.domains]
            for domain in named or domains.all(connection):
                if not pool.held(domain.UUIDString()):
                    continue  # nothing of it is looked at, nor the host for its sake
                grants = pool.grants(domain.UUIDString())
                try:
                    definition = domains.definition(domain)
                    fresh = guestxml.refresh(definition, grants)
                    if fresh != definition and not parsed_args.dry_run:
                        domains.define(connection, fresh)
                except exception.VPMEMError as error:  # it must not stop the others
                    self.app.LOG.error("%s: %s", domain.name(), error)
                    failed.append(error)
                    continue
                before = guestxml.find(guestxml.identified(definition), grants)
                changes += [
                    (domain.name(), grant.uuid, grant.name, before[grant.uuid], grant.device)
                    for grant in grants
                    if before[grant.uuid] != grant.device
                ]
        if failed:  # then there is no table
            for domain_name, _, name, before_path, now in changes:
                self.app.LOG.warning("%s: %s is at %s now, and was at %s", domain_name, name, now, before_path)
            raise failed[0]
        return COLUMNS, changes
