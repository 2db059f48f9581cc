"""The command ``vpmem host show``."""

import argparse
import io
import os
import pathlib

from rich import console

from vpmem_driver import exception
from vpmem_driver.checkup.host import Host
from vpmem_driver.cli import common, hostmap, owners, tables
from vpmem_driver.pool import snapshot

_WIDTH = 100


class HostShow(common.Command):
    """Show a map of this host: NUMA nodes, and their namespaces to scale, with state and owner.

    Below each node, it says what guests get, and what labels, alignment and info blocks take. Like 'vpmem status', it
    takes no lock and changes nothing.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        common.add_connect_argument(parser)
        parser.add_argument("--svg", metavar="FILE", help="write the map to this file as a picture instead")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        app = common.app(self)
        now = snapshot.read(app.configuration())
        names = owners.Owners(now.owners, app.domains(parsed_args.connect))
        shown = hostmap.HostMap(now, hostmap.memory_of(Host()), names)
        if parsed_args.svg is not None:
            _write(pathlib.Path(parsed_args.svg), shown)
            return
        target = make_console(tables.Screen.of(self.app.stdout), self.app.stdout)
        target.print(shown)


def make_console(screen: tables.Screen, stream: object) -> console.Console:
    """Return a console of rich that prints as the tables do."""
    return console.Console(
        file=stream,  # type: ignore[arg-type]  # cliff's stdout is a text stream
        width=screen.width or _WIDTH,
        no_color=not screen.coloured,
        color_system="standard" if screen.coloured else None,
        force_terminal=screen.coloured,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def _write(path: pathlib.Path, shown: hostmap.HostMap) -> None:
    """Write the picture in one step.

    :raises HostToolError: the file cannot be written; an older one is unchanged
    """
    recorder = console.Console(file=io.StringIO(), record=True, width=_WIDTH, highlight=False, force_terminal=True)
    recorder.print(shown)
    draft = path.with_name(f".{path.name}.{os.getpid()}") if path.name else path
    try:
        draft.write_text(recorder.export_svg(title="vpmem host show"), encoding="utf-8")
        draft.replace(path)
    except (OSError, ValueError) as error:
        draft.unlink(missing_ok=True) if draft.is_file() and draft != path else None
        raise exception.HostToolError(
            what=f"Writing {exception.shorten(path)}",
            reason=getattr(error, "strerror", None) or str(error),
            remedy="Give the name of a file in a directory that this user may write to",
        ) from error
