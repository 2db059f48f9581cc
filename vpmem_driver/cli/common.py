"""Code that several commands share: listing columns, arguments, and progress bars."""

import argparse
import contextlib
import dataclasses
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence

from cliff import columns, command

from vpmem_driver import exception, model, sizes
from vpmem_driver.cli import detached
from vpmem_driver.pool import Pool, wipes

if typing.TYPE_CHECKING:
    from vpmem_driver.cli import main

#: A row of a listing for cliff. The types of its cells depend on the column.
Row = tuple[typing.Any, ...]

COLUMNS = tuple(field.name for field in dataclasses.fields(model.Record))


def app(cmd: command.Command) -> "main.VPMEMApp":
    """Return the application of a command, which has the pool."""
    return typing.cast("main.VPMEMApp", cmd.app)


class Command(command.Command):
    """Base of all commands. Place it before cliff's own classes."""

    #: columns of the command's listing
    column_names: tuple[str, ...] = COLUMNS

    def __init__(self, app: "main.VPMEMApp", app_args: argparse.Namespace | None, cmd_name: str | None = None) -> None:
        # With a command name, cliff searches all installed packages for plug-ins.
        super().__init__(app, app_args)
        self.cmd_name = cmd_name

    def get_epilog(self) -> str:
        """Return no epilog. cliff would search all installed packages for the plug-in of the command."""
        return ""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser. cliff reads defaults from the environment.

        :raises InvalidRequest: a default is not a number
        """
        try:
            return super().get_parser(prog_name)
        except ValueError as error:
            raise exception.InvalidRequest(
                what="environment variable CLIFF_MAX_TERM_WIDTH or CLIFF_FIT_WIDTH",
                value=error,
                reason="it is not a number",
                remedy="Unset it",
            ) from error

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run the command, but first refuse unknown columns, which cliff does only at the end.

        :raises InvalidRequest: a column does not exist
        """
        for name in getattr(parsed_args, "columns", ()):
            if name.lower().strip().replace(" ", "_") not in self.column_names:
                raise exception.InvalidRequest(
                    what="column",
                    value=name,
                    reason="it does not exist",
                    remedy=f"The columns are: {', '.join(self.column_names)}",
                )
        return super().run(parsed_args)


class EmptyCell(columns.FormattableColumn[None]):
    """The value None: null in JSON, an empty cell in a table."""

    def __init__(self) -> None:
        super().__init__(None)

    def human_readable(self) -> str:
        return ""


_EMPTY_CELL = EmptyCell()


def row(value: typing.Any) -> tuple[object, ...]:
    """Convert a frozen dataclass to a row for cliff."""
    cells = [getattr(value, name) for name in value.__slots__]  # dataclasses.astuple() is ten times slower
    return tuple([_EMPTY_CELL if cell is None else cell for cell in cells])


def raw(cell: object) -> typing.Any:
    """Return the raw value of a cell."""
    return cell.machine_readable() if isinstance(cell, columns.FormattableColumn) else cell


def rows(records: Iterable[model.Record]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Convert records to a listing for cliff: column names, and a tuple for each row."""
    return COLUMNS, [row(record) for record in records]


def labels(text: str) -> list[str]:
    """Parse the argument ``LABEL[,LABEL…]``.

    :raises InvalidRequest: a label is empty
    """
    found = [label.strip() for label in text.split(",")]
    if not all(found):
        raise exception.InvalidRequest(
            what="labels", value=text, reason="a label is empty", remedy="Write LABEL[,LABEL…], for example 4GB,SMALL"
        )
    return found


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of numbers between `low` and `high` for argparse."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(
                f"'{exception.shorten(text)}' is not a whole number between {low} and {high}"
            )
        return number

    return read


def size(low: int, high: int, *, unit: int = 1) -> Callable[[str], int]:
    """Return a parser of sizes between `low` and `high` bytes for argparse: ``4G``, ``512MiB``.

    :param unit: bytes that a plain number counts
    """

    def read(text: str) -> int:
        try:
            found = sizes.parse(text, unit)
            if not low <= found <= high:
                raise ValueError(f"it is not between {low} and {high} bytes")
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"'{exception.shorten(text)}': {error}") from error
        return found

    return read


def add_claim_arguments(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add the labels and the NUMA node of a claim."""
    parser.add_argument(
        "labels",
        metavar="LABEL[,LABEL…]",
        nargs="?" if optional else None,
        help="one label for each device, in the order of the devices",
    )
    parser.add_argument(
        "--numa-node", type=int, metavar="N", help="preferred NUMA node of the host (default: use the fewest nodes)"
    )


def add_connect_argument(parser: argparse.ArgumentParser) -> None:
    """Add the URI of libvirt."""
    parser.add_argument(
        "--connect", metavar="URI", help="libvirt URI (default: [vpmem] connection_uri, or the host's own daemon)"
    )


def add_domain_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a domain and its libvirt."""
    parser.add_argument("domain", metavar="DOMAIN", help="name or uuid")
    add_connect_argument(parser)


def add_release_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a release."""
    parser.add_argument("--wait", action="store_true", help="wait until the namespaces are wiped")
    parser.add_argument(
        "--dry-run", action="store_true", help="only list the namespaces that would be released and erased"
    )


def release(
    cmd: command.Command,
    parsed_args: argparse.Namespace,
    pool: Pool,
    owner: str,
    uuids: Sequence[str] | None,
    *,
    why: str = "released",
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Release namespaces, wipe them (in the background without ``--wait``), and list the result.

    :param why: reason for the history
    """
    if parsed_args.dry_run:
        return rows(pool.releasable(owner, uuids))
    released = [record.uuid for record in pool.release(owner, uuids, why=why) if record.uuid is not None]
    if parsed_args.wait:
        with wipe_progress(cmd) as on_progress:
            wipes.raise_for(pool.wipe(released, on_progress=on_progress))
        prune_history(cmd, pool)
    else:
        detached.start_wipe(cmd.app.options.config_file or (), released)
    return rows(record for record in pool.records() if record.uuid in released)


def prune_history(cmd: command.Command, pool: Pool) -> None:
    """Remove old lines of the history. Never raises; see :meth:`vpmem_driver.pool.Pool.prune_history`."""
    pool.prune_history(app(cmd).configuration().vpmem.history_days)


@contextlib.contextmanager
def wipe_progress(cmd: command.Command) -> Iterator[wipes.OnProgress]:
    """Show the progress of a wipe: bars on a terminal, otherwise a line for each quarter with --verbose."""
    stream = typing.cast("typing.TextIO", cmd.app.stderr)
    if not stream.isatty():
        yield wipes.ProgressLog()
        return
    from rich import console, progress  # noqa: PLC0415  slow to import, and rarely needed

    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),  # a name such as "a[/b]" is not markup
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=console.Console(file=stream),
    ) as bars:
        tasks: dict[tuple[str, str], progress.TaskID] = {}

        def show(event: wipes.WipeProgress) -> None:
            key = (event.uuid, event.phase)
            if key not in tasks:
                tasks[key] = bars.add_task(f"{wipes.VERBS[event.phase]} {event.name}", total=event.size)
            bars.update(tasks[key], completed=event.done)

        yield show
