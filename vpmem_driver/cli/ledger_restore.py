"""The command ``vpmem ledger restore``."""

import argparse
import dataclasses
import pathlib

from vpmem_driver.cli import common, listing, owners, tables
from vpmem_driver.pool import restoration

COLUMNS = tuple(field.name for field in dataclasses.fields(restoration.Restored))

_FOR_PEOPLE = (
    tables.Column("NAME"),
    tables.Column("BACKUP", is_cut_last=True),
    tables.Column("RESTORED", is_cut_last=True),
    tables.Column("OWNER"),
    tables.Column("REASON", takes_rest=True),
)


class LedgerRestore(listing.Lister):
    """Restore the ledger from a backup, if it is missing or damaged.

    What happened since the backup is not known. Namespaces that were not claimed are unknown, clean ones too. Claimed
    ones stay claimed, unless libvirt shows that another domain has them. Run 'vpmem reconcile' afterwards, before the
    next claim.

    Without --yes, only show what each namespace becomes. Stop nova-compute first; the command is refused while any
    program uses the ledger. What was there is kept beside the new ledger.
    """

    column_names = COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem ledger restore /var/backups/vpmem-2026-01-31.sqlite3 --yes"
        parser.add_argument("file", metavar="FILE", help="a file that 'vpmem ledger backup' has written")
        common.add_connect_argument(parser)
        parser.add_argument("--yes", action="store_true", help="restore (default: only show what would be done)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        app = common.app(self)
        conf, domains, file = app.configuration(), app.domains(parsed_args.connect), pathlib.Path(parsed_args.file)
        if not parsed_args.yes:
            rows = restoration.plan(conf, file, domains)
            app.LOG.warning("Nothing was changed. With --yes, the ledger is restored.")
        else:
            rows, kept = restoration.restore(conf, file, domains)
            if kept is not None:
                app.LOG.warning("The ledger that was there is kept as %s", kept)
        return COLUMNS, [common.row(row) for row in rows]

    def for_people(self, parsed_args: argparse.Namespace, rows: list[common.Row], screen: tables.Screen) -> str:
        restored = [restoration.Restored(*row) for row in rows]
        domains = common.app(self).domains(parsed_args.connect)
        names = owners.Owners({row.owner for row in restored if row.owner is not None}, domains)
        cells = [
            (
                row.name or row.uuid,
                row.backup_state,
                tables.Cell(row.state, listing.COLOURS.get(row.state)),
                names.short(row.owner),
                row.reason,
            )
            for row in restored
        ]
        return tables.render(_FOR_PEOPLE, cells, screen)
