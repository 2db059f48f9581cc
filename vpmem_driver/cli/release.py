"""vpmem release."""

import argparse

from cliff import lister

from vpmem_driver.cli import commands


class Release(commands.Command, lister.Lister):
    """Take back what an owner holds. Its bytes are lost: the namespaces are wiped at once, in the background.

    Stop the guest first: what a guest still uses is not wiped, and so not given to anybody else, until it is stopped.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add owner and namespaces."""
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem release $(virsh domuuid db1) --namespace ns0 --wait"
        parser.add_argument("owner", metavar="OWNER", help="uuid of the domain or instance that holds them")
        parser.add_argument(
            "--namespace", action="append", metavar="NAME|UUID", help="only this one (may be repeated; default: all)"
        )
        commands.add_release_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        """Release."""
        pool = commands.app(self).pool()
        wanted = parsed_args.namespace
        uuids = None if wanted is None else [pool.find(name) for name in wanted]
        return commands.release(self, parsed_args, pool, parsed_args.owner, uuids)
