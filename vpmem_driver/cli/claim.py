"""vpmem claim."""

import argparse

from cliff import lister

from vpmem_driver.cli import commands


class Claim(commands.Command, lister.Lister):
    """Claim one namespace for each label, all or nothing.

    Clean namespaces are given at once. Where only dirty or unknown ones are left, this waits until they are wiped.
    What the owner holds already stays with it.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add owner and labels."""
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem claim $(virsh domuuid db1) 4GB,SMALL --numa-node 0"
        parser.add_argument("owner", metavar="OWNER", help="uuid of the domain or instance")
        commands.add_claim_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        """Claim."""
        wanted = commands.labels(parsed_args.labels)
        pool = commands.app(self).pool()
        with commands.wipe_progress(self) as on_progress:
            grants = pool.claim(parsed_args.owner, wanted, numa_node=parsed_args.numa_node, on_progress=on_progress)
        records = {record.uuid: record for record in pool.records()}
        return commands.rows(records[grant.uuid] for grant in grants)
