"""The command ``vpmem explain``."""

import argparse
import textwrap

from vpmem_driver import exception, faults
from vpmem_driver.cli import common, tables

_WIDTH = 100
_COLUMNS = (tables.Column("ID", is_cut_last=True), tables.Column("FAULT", takes_rest=True))


class Explain(common.Command):
    """Explain a fault: what it means, and what to do. Without an id, list all faults."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem explain VPMEM-E12"
        parser.add_argument("id", metavar="ID", nargs="?", help="id of the fault, such as VPMEM-E12 or E12")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        screen = tables.Screen.of(self.app.stdout)
        if parsed_args.id is None:
            self.app.stdout.write(tables.render(_COLUMNS, [(fault.id, fault.title) for fault in faults.ALL], screen))
            return
        fault = faults.find(parsed_args.id)
        if fault is None:
            raise exception.InvalidRequest(
                what="id", value=parsed_args.id, reason="no fault has it", remedy="'vpmem explain' lists the faults"
            )
        width = min(_WIDTH, screen.width or _WIDTH)
        paragraphs = (f"{fault.id}: {fault.title}", fault.meaning, f"What to do: {fault.remedy}", f"See {fault.anchor}")
        self.app.stdout.write("\n\n".join(textwrap.fill(text, width, break_on_hyphens=False) for text in paragraphs))
        self.app.stdout.write("\n")
