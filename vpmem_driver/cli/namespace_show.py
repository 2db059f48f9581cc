"""The command ``vpmem namespace show``."""

import argparse

from cliff import show

from vpmem_driver.cli import common


class NamespaceShow(common.Command, show.ShowOne):
    """Show one namespace with label, size, state, owner and reason."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "namespace", metavar="NAME|UUID", help="name, or uuid if several namespaces have the same name"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[object, ...]]:
        return common.COLUMNS, common.row(common.app(self).pool().record(parsed_args.namespace))
