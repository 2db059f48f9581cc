"""The command ``vpmem namespace list``."""

import argparse

from vpmem_driver.cli import common, listing


class NamespaceList(listing.NamespaceLister):
    """List the namespaces of this host with label, size, state and owner.

    Without --all, list only namespaces that have a label in the configuration or an owner. With --all, list the others
    too, with the reason why they cannot be given to a guest.

    The table is for people: it fits the terminal, shows owners by the name of their domain, and shows the speed of
    wipes. In programs, use -f json, csv, value or yaml: sizes are then bytes, and owners are uuids.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--all", action="store_true", help="include namespaces without a label and unusable ones")
        parser.add_argument("--by", choices=sorted(listing.GROUPS), help="group the namespaces")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        records = common.app(self).pool().records()
        shown = [record for record in records if parsed_args.all or record.label is not None]
        if not shown and records:
            self.app.LOG.warning(
                "None of the %d namespaces of this host has a label. Set [libvirt] pmem_namespaces, or use --all.",
                len(records),
            )
        if parsed_args.by is not None:
            shown.sort(key=lambda record: _order(getattr(record, listing.GROUPS[parsed_args.by])))
        return common.rows(shown)


def _order(key: str | int | None) -> tuple[bool, str | int]:
    """Sort what has no key last."""
    return key is None, key or 0
