"""vpmem history."""

import argparse
import dataclasses
import json
import typing
from collections.abc import Iterable, Sequence

from cliff import columns, lister
from cliff.formatters import json_format

from vpmem_driver.cli import commands
from vpmem_driver.pool import Move

_COLUMNS = tuple(field.name for field in dataclasses.fields(Move))

#: What is shown to people who do not say how much: cliff makes a table in memory, and a screen holds no more.
_SCREENFUL = 50
#: The most that SQLite takes as a number.
_MOST = (1 << 63) - 1


class History(commands.Command, lister.Lister):
    """Show what has happened to this host's namespaces: when, which, from which state to which, for whom, and why.

    Oldest first. A table, or anything on a terminal, has the newest 50 lines unless --last or --all says otherwise;
    -f json, csv or value into a file or a pipe has all lines.
    """

    column_names = _COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add what to show."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--namespace", metavar="NAME|UUID", help="only of this one")
        parser.add_argument("--owner", metavar="OWNER", help="only of this instance or domain, by its uuid")
        count = parser.add_mutually_exclusive_group()
        count.add_argument("--last", type=commands.whole_number(0, _MOST), metavar="N", help="only the newest N lines")
        count.add_argument("--all", action="store_true", help="all lines")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[tuple[object, ...]]]:
        """Show, oldest first."""
        pool = commands.app(self).pool()
        uuid = None if parsed_args.namespace is None else pool.find(parsed_args.namespace)
        everything = parsed_args.all or not (parsed_args.formatter == "table" or self.app.stdout.isatty())
        if parsed_args.last is not None or everything:
            moves = pool.history(uuid=uuid, owner=parsed_args.owner, limit=parsed_args.last)
            return _COLUMNS, map(commands.row, moves)
        newest = list(pool.history(uuid=uuid, owner=parsed_args.owner, limit=_SCREENFUL))
        if len(newest) == _SCREENFUL:
            self.app.LOG.warning("these are the newest %d lines; --all shows all", _SCREENFUL)
        return _COLUMNS, map(commands.row, newest)

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Sequence[typing.Any]]
    ) -> int:
        """Print; JSON line by line."""
        if parsed_args.formatter == "json":
            self.formatter = _StreamedJSON()
        return super().produce_output(parsed_args, column_names, data)


class _StreamedJSON(json_format.JSONFormatter):
    """Prints what cliff's own does, but holds no more than one line in memory."""

    def emit_list(
        self,
        column_names: Sequence[str],
        data: Iterable[Sequence[typing.Any]],
        stdout: typing.TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        """Print."""
        indent, newline, comma = (None, "", ", ") if parsed_args.noindent else (2, "\n  ", ",\n  ")
        lead = f"[{newline}"
        for line in data:
            cells = (cell.machine_readable() if isinstance(cell, columns.FormattableColumn) else cell for cell in line)
            text = json.dumps(dict(zip(column_names, cells, strict=True)), indent=indent)
            stdout.write(lead + text.replace("\n", newline))
            lead = comma
        stdout.write("[]\n" if lead != comma else f"{newline.rstrip(' ')}]\n")
