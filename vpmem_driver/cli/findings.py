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


def paragraphs(found: Iterable[Finding], screen: tables.Screen, indent: str = "") -> list[str]:
    """Return a paragraph for each kind of fault: id and what was found, once for each, and the remedy below."""
    width = min(screen.width or _WIDTH, _WIDTH)
    groups: dict[tuple[str | None, str | None], list[Finding]] = {}
    for finding in found:
        groups.setdefault((finding.id, finding.remedy), []).append(finding)
    texts = []
    for (_, remedy), members in groups.items():
        lines = [_head(finding, screen, width, indent) for finding in members]
        if remedy is not None:
            lines.append(_fill(remedy, width, f"{indent}    ", f"{indent}    "))
        texts.append("".join(f"{line}\n" for line in lines))
    return texts


def _head(finding: Finding, screen: tables.Screen, width: int, indent: str) -> str:
    head = f"{finding.id + ' ' if finding.id else ''}{finding.check}:"
    text = _fill(f"{head} {finding.message}", width, indent, indent + "    ")
    return text.replace(head, screen.paint(head, COLOURS[finding.level]), 1)


def _fill(text: str, width: int, first: str, rest: str) -> str:
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
