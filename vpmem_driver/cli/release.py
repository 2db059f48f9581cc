"""The command ``vpmem release``."""

import argparse

from vpmem_driver.cli import common, listing


class Release(listing.NamespaceLister):
    """Release the namespaces of an owner and wipe them in the background. Their content is lost.

    Stop the guest first. A namespace that a guest still uses is not wiped, and no other owner gets it, until the guest
    stops.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem release $(virsh domuuid db1) --namespace ns0 --wait"
        parser.add_argument("owner", metavar="OWNER", help="uuid of the domain or instance that holds the namespaces")
        parser.add_argument(
            "--namespace",
            action="append",
            metavar="NAME|UUID",
            help="only this namespace (may be repeated; default: all)",
        )
        common.add_release_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        pool = common.app(self).pool()
        wanted = parsed_args.namespace
        uuids = None if wanted is None else [pool.find(name) for name in wanted]
        return common.release(self, parsed_args, pool, parsed_args.owner, uuids)
