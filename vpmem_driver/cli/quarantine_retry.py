"""The command ``vpmem quarantine retry``."""

import argparse

from vpmem_driver import exception
from vpmem_driver.cli import common, listing
from vpmem_driver.model import State
from vpmem_driver.pool import wipes


class QuarantineRetry(listing.NamespaceLister):
    """Wipe quarantined namespaces again, and wait for the end.

    One is clean if every byte is overwritten and then read back as zero. Otherwise it stays quarantined, and the
    command exits with 6. Look for errors of the medium first: 'ndctl list --media-errors'.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem quarantine retry ns0"
        parser.add_argument("namespaces", metavar="NAME|UUID", nargs="*", help="only these (default: all quarantined)")
        parser.add_argument("--dry-run", action="store_true", help="only list the namespaces that would be wiped")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[common.Row]]:
        pool = common.app(self).pool()
        wanted = {pool.find(name) for name in parsed_args.namespaces}
        for record in pool.records():
            if record.uuid in wanted and record.state != State.QUARANTINED:
                raise exception.InvalidRequest(
                    what="namespace",
                    value=record.name,
                    reason=f"it is {record.state}, not quarantined",
                    remedy="'vpmem quarantine list' lists those that are; 'vpmem wipe' wipes others",
                )
        chosen = [
            record
            for record in pool.records()
            if record.state == State.QUARANTINED and (record.uuid in wanted or not wanted)
        ]
        uuids = [record.uuid for record in chosen if record.uuid is not None]
        if parsed_args.dry_run or not uuids:
            return common.rows(chosen)
        with common.wipe_progress(self) as on_progress:
            wipes.raise_for(pool.wipe(uuids, on_progress=on_progress))
        return common.rows(record for record in pool.records() if record.uuid in uuids)
