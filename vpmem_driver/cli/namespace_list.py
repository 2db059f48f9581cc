"""The command ``vpmem namespace list``."""

import argparse

from cliff import lister

from vpmem_driver.cli import common


class NamespaceList(common.Command, lister.Lister):
    """List the namespaces of this host with label, size, state and owner.

    Without --all, list only namespaces that have a label in the configuration or an owner. With --all, list the others
    too, with the reason why they cannot be given to a guest. Sizes are bytes. In programs, use -f json, csv, value or
    yaml.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--all", action="store_true", help="include namespaces without a label and unusable ones")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        records = common.app(self).pool().records()
        shown = [record for record in records if parsed_args.all or record.label is not None]
        if not shown and records:
            self.app.LOG.warning(
                "None of the %d namespaces of this host has a label. Set [libvirt] pmem_namespaces, or use --all.",
                len(records),
            )
        return common.rows(shown)
