"""The command ``vpmem wipe``."""

import argparse

from vpmem_driver.cli import common, listing
from vpmem_driver.pool import wipes


class Wipe(listing.NamespaceLister):
    """Wipe unowned namespaces: overwrite every byte with zeros, verify it, and wait for the end.

    Without --namespace, wipe all dirty namespaces. A named namespace may also be unknown (never claimed or wiped here)
    or quarantined (a wipe failed). A claimed namespace, or one in use, is refused. An interrupted wipe resumes.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem wipe --dry-run"
        parser.add_argument(
            "--namespace",
            action="append",
            metavar="NAME|UUID",
            help="only this namespace (may be repeated; default: all dirty)",
        )
        parser.add_argument("--dry-run", action="store_true", help="only list the namespaces that would be wiped")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        pool = common.app(self).pool()
        wanted = parsed_args.namespace
        uuids = None if wanted is None else [pool.find(name) for name in wanted]
        if parsed_args.dry_run:
            return common.rows(pool.maintenance.wipeable(uuids))
        with common.wipe_progress(self) as on_progress:
            results = pool.wipe(uuids, on_progress=on_progress)
        common.prune_history(self, pool)  # each release starts this command
        wipes.raise_for(results)
        done = {result.uuid for result in results}
        return common.rows(record for record in pool.records() if record.uuid in done)
