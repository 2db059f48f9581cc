"""The command ``vpmem history``."""

import argparse
import dataclasses
import json
import typing
from collections.abc import Iterable, Sequence

from cliff.formatters import json_format

from vpmem_driver.cli import common, listing, owners, tables
from vpmem_driver.pool import Move

_COLUMNS = tuple(field.name for field in dataclasses.fields(Move))

_FOR_PEOPLE = (
    tables.Column("TIME (UTC)", is_cut_last=True),
    tables.Column("NAME"),
    tables.Column("CHANGE", is_cut_last=True),
    tables.Column("OWNER"),
    tables.Column("REASON", takes_rest=True),
)

#: Default number of lines in a table, which cliff builds in memory.
_DEFAULT_LINES = 50
#: Maximum integer in SQLite.
_MAX_INTEGER = (1 << 63) - 1


class History(listing.Lister):
    """Show the changes of state of this host's namespaces, oldest first, with time, owner and reason.

    A table, and any output to a terminal, shows the newest 50 lines unless --last or --all is given. With -f json, csv
    or value, a file or pipe gets all lines.
    """

    column_names = _COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--namespace", metavar="NAME|UUID", help="only this namespace")
        parser.add_argument("--owner", metavar="OWNER", help="only this instance or domain (uuid)")
        count = parser.add_mutually_exclusive_group()
        count.add_argument(
            "--last", type=common.whole_number(0, _MAX_INTEGER), metavar="N", help="only the newest N lines"
        )
        count.add_argument("--all", action="store_true", help="all lines")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[tuple[object, ...]]]:
        pool = common.app(self).pool()
        uuid = None if parsed_args.namespace is None else pool.find(parsed_args.namespace)
        everything = parsed_args.all or not (parsed_args.formatter == "table" or self.app.stdout.isatty())
        if parsed_args.last is not None or everything:
            moves = pool.history(uuid=uuid, owner=parsed_args.owner, limit=parsed_args.last)
            return _COLUMNS, map(common.row, moves)
        newest = list(pool.history(uuid=uuid, owner=parsed_args.owner, limit=_DEFAULT_LINES))
        if len(newest) == _DEFAULT_LINES:
            self.app.LOG.warning("Only the newest %d lines are shown. Use --all to show all.", _DEFAULT_LINES)
        return _COLUMNS, map(common.row, newest)

    def for_people(self, parsed_args: argparse.Namespace, rows: list[common.Row], screen: tables.Screen) -> str:  # noqa: ARG002
        moves = [Move(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]
        _, domains = common.app(self).opened
        names = owners.Owners({move.owner for move in moves if move.owner is not None}, domains)
        return tables.render(_FOR_PEOPLE, [_cells(move, names) for move in moves], screen)

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Sequence[typing.Any]]
    ) -> int:
        if parsed_args.formatter == "json":
            self.formatter = _StreamedJSON()
        return super().produce_output(parsed_args, column_names, data)


def _cells(move: Move, names: owners.Owners) -> tables.Row:
    time = move.at[:19].replace("T", " ")  # 2026-01-31 12:00:00
    change = move.to_state if move.from_state is None else f"{move.from_state} -> {move.to_state}"
    return time, move.name or move.uuid, change, names.short(move.owner), move.reason


class _StreamedJSON(json_format.JSONFormatter):
    """Prints the same as cliff's formatter, with only one line in memory."""

    def emit_list(
        self,
        column_names: Sequence[str],
        data: Iterable[Sequence[typing.Any]],
        stdout: typing.TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        indent, newline, comma = (None, "", ", ") if parsed_args.noindent else (2, "\n  ", ",\n  ")
        lead = f"[{newline}"
        for line in data:
            text = json.dumps(dict(zip(column_names, map(common.raw, line), strict=True)), indent=indent)
            stdout.write(lead + text.replace("\n", newline))
            lead = comma
        stdout.write("[]\n" if lead != comma else f"{newline.rstrip(' ')}]\n")
