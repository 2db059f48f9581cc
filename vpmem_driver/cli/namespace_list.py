"""vpmem namespace list."""

import argparse

from cliff import lister

from vpmem_driver.cli import commands


class NamespaceList(commands.Command, lister.Lister):
    """List this host's namespaces: label, size, state and owner of each.

    Shows those that the configuration gives to guests and those that somebody holds. With --all also the others, each
    with the reason why it cannot be given to a guest. Sizes are bytes; -f json, csv, value or yaml for programs.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --all."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--all", action="store_true", help="also those without a label, and those of no use")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        """List."""
        records = commands.app(self).pool().records()
        shown = [record for record in records if parsed_args.all or record.label is not None]
        if not shown and records:
            self.app.LOG.warning(
                "none of this host's %d namespaces has a label; set [libvirt] pmem_namespaces, or see --all",
                len(records),
            )
        return commands.rows(shown)
