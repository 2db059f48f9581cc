"""The command ``vpmem claim``."""

import argparse

from vpmem_driver.cli import common, listing


class Claim(listing.NamespaceLister):
    """Claim one namespace for each label, all or nothing.

    Clean namespaces are claimed at once. If only dirty or unknown ones are free, the command wipes them first and
    waits. The owner keeps the namespaces that it already holds.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem claim $(virsh domuuid db1) 4GB,SMALL --numa-node 0"
        parser.add_argument("owner", metavar="OWNER", help="uuid of the domain or instance")
        common.add_claim_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        wanted = common.labels(parsed_args.labels)
        pool = common.app(self).pool()
        with common.wipe_progress(self) as on_progress:
            grants = pool.claim(parsed_args.owner, wanted, numa_node=parsed_args.numa_node, on_progress=on_progress)
        records = {record.uuid: record for record in pool.records()}
        return common.rows(records[grant.uuid] for grant in grants)
