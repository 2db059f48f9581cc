"""The command ``vpmem namespace show``."""

import argparse
import typing
from collections.abc import Sequence

from cliff import show

from vpmem_driver import model, sizes
from vpmem_driver.cli import common, listing, tables


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

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Sequence[typing.Any]
    ) -> int:
        if parsed_args.formatter != "table" or parsed_args.columns:
            return super().produce_output(parsed_args, column_names, data)
        record = model.Record(**dict(zip(column_names, map(common.raw, data), strict=True)))
        screen = tables.Screen.of(self.app.stdout)
        people = listing.People.of(self, [record.owner], screen)
        pairs: list[tuple[str, str | tables.Cell]] = [
            ("name", record.name or ""),
            ("uuid", record.uuid or ""),
            ("label", record.label or ""),
            ("resource class", record.resource_class or ""),
            ("size", sizes.long_text(record.size)),
            ("align", sizes.long_text(record.align)),
            ("NUMA node", "" if record.numa_node is None else str(record.numa_node)),
            ("device", record.device or ""),
            ("kind", listing.kind(record)),
            ("provider", record.provider or ""),
            ("persistence domain", record.persistence_domain or ""),
            ("memory device", record.memdev or ""),
            ("serial number", record.serial or ""),
            ("state", people.state(record)),
            ("owner", people.owners.full(record.owner)),
            ("device model", record.device_model or ""),
            ("label area", "" if record.label_size is None else sizes.long_text(record.label_size)),
            ("guest sees", "" if record.guest_size is None else sizes.long_text(record.guest_size)),
            ("reason", record.reason or ""),
        ]
        self.app.stdout.write(tables.fields(pairs, screen))
        return 0
