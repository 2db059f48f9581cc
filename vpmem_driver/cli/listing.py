"""Listings: for people the format ``table``, which fits the terminal, and raw values in all other formats.

The raw values, which ``-c`` selects from in any format, never change silently (doc/listings.md).
"""

import argparse
import dataclasses
import typing
from collections.abc import Callable, Iterable, Sequence

from cliff import lister
from cliff.formatters import base

from vpmem_driver import model, sizes
from vpmem_driver.cli import common, owners, tables, wipe_speed
from vpmem_driver.pool import Row, progress_of

#: Colours of the states. A state that is not here has none.
COLOURS = {
    "clean": "green",
    "claimed": "cyan",
    "receiving": "blue",
    "dirty": "yellow",
    "unknown": "magenta",
    "quarantined": "red",
    "missing": "red",
}

_SHORT = (
    tables.Column("NAME"),
    tables.Column("LABEL"),
    tables.Column("SIZE", is_number=True),
    tables.Column("NODE", is_number=True),
    tables.Column("KIND"),
    tables.Column("STATE", is_cut_last=True),
    tables.Column("OWNER"),
    tables.Column("REASON", takes_rest=True),
)
_LONG = (
    tables.Column("NAME"),
    tables.Column("UUID"),
    tables.Column("LABEL"),
    tables.Column("RESOURCE CLASS"),
    tables.Column("SIZE", is_number=True),
    tables.Column("ALIGN", is_number=True),
    tables.Column("NODE", is_number=True),
    tables.Column("DEVICE"),
    tables.Column("KIND"),
    tables.Column("PROVIDER"),
    tables.Column("DOMAIN"),
    tables.Column("MEMDEV"),
    tables.Column("SERIAL"),
    tables.Column("STATE"),
    tables.Column("OWNER"),
    tables.Column("MODEL"),
    tables.Column("LABEL AREA", is_number=True),
    tables.Column("GUEST SEES", is_number=True),
    tables.Column("REASON"),
)

#: What --by groups by: the key in a row of the listing.
GROUPS = {"node": "numa_node", "label": "label", "owner": "owner", "state": "state"}


@dataclasses.dataclass(frozen=True, slots=True)
class People:
    """What a listing for people needs in addition to the raw values.

    :ivar rows: rows of the ledger by uuid
    :ivar running: wipes and copies that make progress, by uuid
    """

    owners: owners.Owners
    rows: dict[str, Row]
    running: dict[str, wipe_speed.Speed]

    def state(self, record: model.Record) -> tables.Cell:
        """Return the state, with percent, speed and the remaining time of a wipe or copy."""
        parts = [record.state]
        row = self.rows.get(record.uuid or "")
        if row is not None and (progress := progress_of(row)) is not None:
            parts.append(f"{progress.percent}% {progress.verb}")
            if speed := self.running.get(row.uuid):
                parts.append(f"{sizes.speed_text(speed.bytes_per_second)}, {duration(speed.seconds_left)} left")
        return tables.Cell(", ".join(parts), COLOURS.get(record.state))

    def reason(self, record: model.Record) -> str:
        """Return the reason in a few words: without what state and owner already say."""
        row = self.rows.get(record.uuid or "")
        if row is None or record.state in {"missing", "unusable"}:
            return record.reason or ""
        if row.reason is None and row.owner is not None and row.state in {model.State.DIRTY, model.State.CLEAN}:
            return "reserved by a claim"
        return row.reason or ""

    @classmethod
    def of(cls, cmd: common.Command, owner_uuids: Iterable[str | None], screen: tables.Screen) -> "People":
        """Collect it. The speed of wipes is for a terminal only, because measuring it takes up to a second."""
        pool, domains = common.app(cmd).opened
        names = owners.Owners({uuid for uuid in owner_uuids if uuid is not None}, domains)
        rows, running = wipe_speed.measure(pool.rows) if screen.width is not None else (pool.rows(), {})
        return cls(names, {row.uuid: row for row in rows}, running)

    def heading(self, group: str, key: object, members: Sequence[model.Record]) -> str:
        """Return the heading of a group: its number of namespaces and their size."""
        shown = self.owners.full(key) if group == "owner" and isinstance(key, str) else key
        title = f"no {group}" if shown is None else f"{group} {shown}"
        count = f"{len(members)} namespace{'s' if len(members) > 1 else ''}"
        return f"{title}: {count}, {sizes.text(sum(record.size for record in members))}"

    def short(self, record: model.Record) -> tables.Row:
        """Return the cells of the usual listing."""
        return (
            record.name or record.uuid or "",
            record.label or "",
            sizes.text(record.size),
            "" if record.numa_node is None else str(record.numa_node),
            kind(record),
            self.state(record),
            self.owners.short(record.owner),
            self.reason(record),
        )

    def long(self, record: model.Record) -> tables.Row:
        """Return the cells of the listing with everything."""
        return (
            record.name or "",
            record.uuid or "",
            record.label or "",
            record.resource_class or "",
            sizes.long_text(record.size),
            str(record.align),
            "" if record.numa_node is None else str(record.numa_node),
            record.device or "",
            kind(record),
            record.provider or "",
            record.persistence_domain or "",
            record.memdev or "",
            record.serial or "",
            self.state(record),
            self.owners.full(record.owner),
            record.device_model or "",
            "" if record.label_size is None else str(record.label_size),
            "" if record.guest_size is None else sizes.long_text(record.guest_size),
            record.reason or "",
        )


def kind(record: model.Record) -> str:
    """Return what sets a namespace apart from persistent memory."""
    return "volatile" if record.volatile else ""


def duration(seconds: float) -> str:
    """Return a duration with its two largest units: ``45s``, ``3m20s``, ``2h05m``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


class Lister(common.Command, lister.Lister):
    """Base of the commands that list something."""

    def for_people(self, parsed_args: argparse.Namespace, rows: list[common.Row], screen: tables.Screen) -> str:
        """Return the listing for people.

        :param rows: the rows of :meth:`take_action`, with raw values
        """
        raise NotImplementedError

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Sequence[typing.Any]]
    ) -> int:
        if parsed_args.formatter == "table" and not parsed_args.columns:
            self.formatter = _ForPeople(self.for_people)
        return super().produce_output(parsed_args, column_names, data)


class _ForPeople(base.ListFormatter):
    """Lets a command print its rows, which cliff has sorted."""

    def __init__(self, text_of: Callable[[argparse.Namespace, list[common.Row], tables.Screen], str]) -> None:
        self._text_of = text_of

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        """Add nothing."""

    def emit_list(
        self,
        column_names: Sequence[str],  # noqa: ARG002
        data: Iterable[Sequence[typing.Any]],
        stdout: typing.TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        rows = [tuple(map(common.raw, row)) for row in data]
        if rows or parsed_args.print_empty:
            screen = tables.Screen.of(stdout)
            if parsed_args.max_width > 0:
                screen = dataclasses.replace(screen, width=parsed_args.max_width)
            stdout.write(self._text_of(parsed_args, rows, screen))


class NamespaceLister(Lister):
    """Base of the commands that list namespaces. A command returns :func:`.common.rows`."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--long", action="store_true", help="show everything, and do not cut it")
        return parser

    def for_people(self, parsed_args: argparse.Namespace, rows: list[common.Row], screen: tables.Screen) -> str:
        records = [model.Record(**dict(zip(common.COLUMNS, row, strict=True))) for row in rows]
        people = People.of(self, [record.owner for record in records], screen)
        screen = dataclasses.replace(screen, width=None) if parsed_args.long else screen
        columns, cells = (_LONG, people.long) if parsed_args.long else (_SHORT, people.short)

        def table(members: Sequence[model.Record]) -> str:
            return tables.render(columns, [cells(record) for record in members], screen)

        group = getattr(parsed_args, "by", None)
        if group is None:
            return table(records)
        groups: dict[object, list[model.Record]] = {}
        for record in records:
            groups.setdefault(getattr(record, GROUPS[group]), []).append(record)
        return "\n".join(
            screen.paint(people.heading(group, key, members), "bold") + "\n" + table(members)
            for key, members in groups.items()
        )
