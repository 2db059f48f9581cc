"""vpmem adopt."""

import argparse

from cliff import lister

from vpmem_driver.cli import commands


class Adopt(commands.Command, lister.Lister):
    """Give an owner the namespaces that its guest has already, as they are: nothing is wiped.

    For guests that had persistent memory before this ledger was there. What another owner holds or has left its bytes
    in is refused, and so is a clean namespace: it was wiped, so that nothing is left to adopt.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add owner and namespaces."""
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem adopt $(virsh domuuid db1) ns0 ns1"
        parser.add_argument("owner", metavar="OWNER", help="uuid of the domain or instance")
        parser.add_argument("namespaces", metavar="NAME|UUID", nargs="+", help="in the order of the guest's devices")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        """Adopt."""
        pool = commands.app(self).pool()
        uuids = list(dict.fromkeys(pool.find(name) for name in parsed_args.namespaces))
        pool.adopt(parsed_args.owner, uuids, why="the operator said so")
        return commands.rows(record for record in pool.records() if record.uuid in uuids)
