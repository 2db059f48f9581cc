"""vpmem namespace show."""

import argparse

from cliff import show

from vpmem_driver.cli import commands


class NamespaceShow(commands.Command, show.ShowOne):
    """Show one namespace."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the namespace."""
        parser = super().get_parser(prog_name)
        parser.add_argument("namespace", metavar="NAME|UUID", help="its uuid where several have one name")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[object, ...]]:
        """Show."""
        return commands.COLUMNS, commands.row(commands.app(self).pool().record(parsed_args.namespace))
