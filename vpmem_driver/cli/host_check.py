"""The command ``vpmem host check``."""

import argparse
import collections
import json

from vpmem_driver.checkup import Level, run
from vpmem_driver.cli import common, findings, tables
from vpmem_driver.libvirt_domains import Domains

_COLUMNS = (
    tables.Column("RESULT", is_cut_last=True),
    tables.Column("CHECK", is_cut_last=True),
    tables.Column("FOUND", takes_rest=True),
)


class HostCheck(common.Command):
    """Check everything that this host needs for persistent memory, and change nothing.

    Each line is ok, warning, failure, or unseen: this user cannot see it. Below the lines are the remedies of warnings
    and failures. Exit with 8 if there is a failure.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        common.add_connect_argument(parser)
        findings.add_format_argument(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        conf = common.app(self).configuration()
        found = run.run(run.Subject.of(conf, domains=Domains(parsed_args.connect or conf.vpmem.connection_uri)))
        if parsed_args.format == "json":
            self.app.stdout.write(json.dumps(findings.as_json(found), indent=2) + "\n")
        else:
            screen = tables.Screen.of(self.app.stdout)
            rows = [(tables.Cell(line.level, findings.COLOURS[line.level]), line.check, line.message) for line in found]
            self.app.stdout.write(tables.render(_COLUMNS, rows, screen))
            problems = [line for line in found if line.level in {Level.WARNING, Level.FAILURE}]
            self.app.stdout.write("".join(f"\n{text}" for text in findings.paragraphs(problems, screen)))
            counts = collections.Counter(line.level for line in found)
            self.app.stdout.write("\n" + ", ".join(f"{counts[level]} {level}" for level in Level) + "\n")
        return findings.EXIT_CODE if run.worst(found) is Level.FAILURE else 0
