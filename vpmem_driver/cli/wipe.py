"""vpmem wipe."""

import argparse

from cliff import lister

from vpmem_driver.cli import commands
from vpmem_driver.pool import wipes


class Wipe(commands.Command, lister.Lister):
    """Wipe unowned namespaces: overwrite every byte with zeros, verify that, and wait until it is done.

    Without --namespace, wipes all dirty ones. A named one may also be unknown (never seen by this ledger) or
    quarantined (a wipe failed). A namespace that is held or in use is refused. An interrupted wipe resumes.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add namespaces and --dry-run."""
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem wipe --dry-run"
        parser.add_argument(
            "--namespace", action="append", metavar="NAME|UUID", help="this one (may be repeated; default: all dirty)"
        )
        parser.add_argument("--dry-run", action="store_true", help="only list what would be wiped")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        """Wipe."""
        pool = commands.app(self).pool()
        wanted = parsed_args.namespace
        uuids = None if wanted is None else [pool.find(name) for name in wanted]
        if parsed_args.dry_run:
            return commands.rows(pool.wipeable(uuids))
        with commands.wipe_progress(self) as on_progress:
            results = pool.wipe(uuids, on_progress=on_progress)
        wipes.raise_for(results)
        done = {result.uuid for result in results}
        return commands.rows(record for record in pool.records() if record.uuid in done)
