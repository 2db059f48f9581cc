"""vpmem history."""

import argparse
import dataclasses

from cliff import lister

from vpmem_driver import ledger
from vpmem_driver.cli import base

_COLUMNS = tuple(field.name for field in dataclasses.fields(ledger.Move))


class History(base.Ours, lister.Lister):
    """Show what has happened to this host's namespaces: when, which, from which state to which, for whom, and why."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add what to show."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--namespace", metavar="NAME|UUID", help="only of this one")
        parser.add_argument("--owner", metavar="OWNER", help="only of this instance or domain")
        parser.add_argument("--last", type=int, metavar="N", help="only the newest N lines")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        """Show, oldest first."""
        pool = base.app(self).pool()
        moves = pool.ledger.history(
            uuid=None if parsed_args.namespace is None else pool.find(parsed_args.namespace),
            owner=parsed_args.owner,
            limit=parsed_args.last,
        )
        return _COLUMNS, [base.row(move) for move in moves]
