"""The command ``vpmem repair``."""

import argparse

from vpmem_driver.cli import common, listing
from vpmem_driver.pool import wipes


class Repair(listing.NamespaceLister):
    """Clear the bad addresses of an unowned namespace, wipe it, and look for bad addresses again.

    'ndctl clear-errors' clears them, for which this must run as root. Its exit status is not believed: the namespace is
    clean only if every byte is zero when it is read back, and the kernel then knows no bad address in it. Otherwise it
    stays quarantined, and the command exits with 6.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem repair ns0 --dry-run"
        parser.add_argument("namespace", metavar="NAME|UUID", help="the namespace")
        parser.add_argument("--dry-run", action="store_true", help="only show the namespace that would be erased")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[common.Row]]:
        pool = common.app(self).pool()
        uuid = pool.find(parsed_args.namespace)
        record = pool.maintenance.repairable(uuid)
        if parsed_args.dry_run:
            return common.rows([record])
        with common.wipe_progress(self) as on_progress:
            wipes.raise_for(pool.maintenance.repair(uuid, on_progress=on_progress))
        return common.rows([pool.record(uuid)])
