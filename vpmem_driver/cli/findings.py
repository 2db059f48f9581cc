"""Findings as people and programs read them."""

import argparse
import dataclasses
import textwrap
from collections.abc import Iterable

from vpmem_driver.checkup import Finding, Level
from vpmem_driver.cli import tables

#: Exit code of a command that found something that needs a person.
EXIT_CODE = 8

COLOURS = {Level.OK: "green", Level.UNSEEN: "magenta", Level.WARNING: "yellow", Level.FAILURE: "red"}

_WIDTH = 100


def add_format_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``-f``."""
    parser.add_argument("-f", "--format", choices=("text", "json"), default="text", help="output format (%(default)s)")


def as_json(found: Iterable[Finding]) -> list[dict[str, object]]:
    """Return the findings for programs. The keys are those of doc/listings.md."""
    return [dataclasses.asdict(finding) for finding in found]


def paragraph(finding: Finding, screen: tables.Screen, indent: str = "") -> str:
    """Return a finding that needs a person: id, what was found, and the remedy below."""
    width = min(screen.width or _WIDTH, _WIDTH)
    head = f"{finding.id + ' ' if finding.id else ''}{finding.check}: "
    first = _fill(head + finding.message, width, indent, indent + "    ")
    painted = screen.paint(head.rstrip(), COLOURS[finding.level]) + " "
    first = first.replace(head, painted, 1) if head in first else first
    remedy = "" if finding.remedy is None else _fill(finding.remedy, width, f"{indent}    ", f"{indent}    ") + "\n"
    return f"{first}\n{remedy}"


def _fill(text: str, width: int, first: str, rest: str) -> str:
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
