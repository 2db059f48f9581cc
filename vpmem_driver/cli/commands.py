"""What several commands share: the columns of a listing, label arguments, and the bars of a running wipe."""

import argparse
import contextlib
import dataclasses
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence

from cliff import columns, command

from vpmem_driver import exception, model
from vpmem_driver.cli import detached
from vpmem_driver.pool import Pool, wipes

if typing.TYPE_CHECKING:
    from vpmem_driver.cli import main

COLUMNS = tuple(field.name for field in dataclasses.fields(model.Record))


def app(cmd: command.Command) -> "main.VPMEMApp":
    """The application of a command, which has the pool."""
    return typing.cast("main.VPMEMApp", cmd.app)


class Command(command.Command):
    """A command of this program: put before cliff's own classes."""

    #: what a listing of it has
    column_names: tuple[str, ...] = COLUMNS

    def __init__(self, app: "main.VPMEMApp", app_args: argparse.Namespace | None, cmd_name: str | None = None) -> None:
        # For a command that has a name cliff looks for plug-ins, in what all installed packages contain.
        super().__init__(app, app_args)
        self.cmd_name = cmd_name

    def get_epilog(self) -> str:
        """Return nothing. To tell which plug-in a command is from, cliff reads what all installed packages contain."""
        return ""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser; cliff reads defaults from the environment meanwhile.

        :raises InvalidRequest: one is no number
        """
        try:
            return super().get_parser(prog_name)
        except ValueError as error:
            raise exception.InvalidRequest(
                what="CLIFF_MAX_TERM_WIDTH or CLIFF_FIT_WIDTH in the environment",
                value=error,
                reason="it is not a number",
                remedy="Unset it.",
            ) from error

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run; but refuse a column that there is not now, for cliff does so only after all has been done.

        :raises InvalidRequest: there is no such column
        """
        for name in getattr(parsed_args, "columns", ()):
            if name.lower().strip().replace(" ", "_") not in self.column_names:
                raise exception.InvalidRequest(
                    what="column",
                    value=name,
                    reason="there is no such column",
                    remedy=f"There are: {', '.join(self.column_names)}.",
                )
        return super().run(parsed_args)


class Nothing(columns.FormattableColumn[None]):
    """None: null for programs, an empty cell for people."""

    def __init__(self) -> None:
        super().__init__(None)

    def human_readable(self) -> str:
        """Return the empty cell."""
        return ""


_NOTHING = Nothing()


def row(value: typing.Any) -> tuple[object, ...]:
    """A frozen dataclass as cliff wants a row."""
    cells = [getattr(value, name) for name in value.__slots__]  # dataclasses.astuple() takes ten times as long
    return tuple([_NOTHING if cell is None else cell for cell in cells])


def rows(records: Iterable[model.Record]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Records as cliff wants a listing: column names, and a tuple per row."""
    return COLUMNS, [row(record) for record in records]


def labels(text: str) -> list[str]:
    """The argument ``LABEL[,LABEL…]``.

    :raises InvalidRequest: a label is empty
    """
    found = [label.strip() for label in text.split(",")]
    if not all(found):
        raise exception.InvalidRequest(
            what="labels", value=text, reason="a label is empty", remedy="Write LABEL[,LABEL…], for example 4GB,SMALL."
        )
    return found


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """What argparse is to read a number from `low` to `high` with."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"'{exception.shorten(text)}' is not a whole number from {low} to {high}")
        return number

    return read


def add_claim_arguments(parser: argparse.ArgumentParser) -> None:
    """The labels and the NUMA node of a claim."""
    parser.add_argument("labels", metavar="LABEL[,LABEL…]", help="one label per device, in the order of the devices")
    parser.add_argument(
        "--numa-node", type=int, metavar="N", help="host NUMA node to prefer (default: as few nodes as possible)"
    )


def add_connect_argument(parser: argparse.ArgumentParser) -> None:
    """Which libvirt."""
    parser.add_argument("--connect", metavar="URI", help="libvirt to use (default: the host's own daemon)")


def add_release_arguments(parser: argparse.ArgumentParser) -> None:
    """How to release."""
    parser.add_argument("--wait", action="store_true", help="return when they are wiped")
    parser.add_argument("--dry-run", action="store_true", help="only list what would be released, and so be lost")


def release(
    cmd: command.Command, parsed_args: argparse.Namespace, pool: Pool, owner: str, uuids: Sequence[str] | None
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Release, and wipe: here and now with ``--wait``, else in the background. What `release` returns is listed."""
    if parsed_args.dry_run:
        return rows(pool.releasable(owner, uuids))
    released = [record.uuid for record in pool.release(owner, uuids) if record.uuid is not None]
    if parsed_args.wait:
        with wipe_progress(cmd) as on_progress:
            wipes.raise_for(pool.wipe(released, on_progress=on_progress))
    else:
        detached.start_wipe(cmd.app.options.config_file or (), released)
    return rows(record for record in pool.records() if record.uuid in released)


@contextlib.contextmanager
def wipe_progress(cmd: command.Command) -> Iterator[wipes.OnProgress]:
    """What to hand to a wipe: bars where standard error is a terminal, elsewhere a line per quarter with --verbose."""
    stream = typing.cast("typing.TextIO", cmd.app.stderr)
    if not stream.isatty():
        yield wipes.ProgressLog()
        return
    from rich import console, progress  # noqa: PLC0415  slow to import, and seldom needed

    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),  # a namespace may be called "a[/b]"
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
