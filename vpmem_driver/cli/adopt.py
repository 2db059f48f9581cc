"""The command ``vpmem adopt``."""

import argparse

from vpmem_driver.cli import common, listing


class Adopt(listing.NamespaceLister):
    """Record an owner for namespaces that its guest already uses, and keep their content.

    Use it for guests that had persistent memory before this ledger existed. A namespace that another owner holds, or
    that contains another owner's data, is refused. So is a clean namespace: it was wiped and has no content.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem adopt $(virsh domuuid db1) ns0 ns1"
        parser.add_argument("owner", metavar="OWNER", help="uuid of the domain or instance")
        parser.add_argument(
            "namespaces", metavar="NAME|UUID", nargs="+", help="namespaces, in the order of the guest's devices"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        pool = common.app(self).pool()
        uuids = list(dict.fromkeys(pool.find(name) for name in parsed_args.namespaces))
        pool.adopt(parsed_args.owner, uuids, why="adopted by the operator")
        return common.rows(record for record in pool.records() if record.uuid in uuids)
