"""The command ``vpmem status``."""

import argparse
import collections
import json
import os
from collections.abc import Sequence

from vpmem_driver import model, sizes
from vpmem_driver.checkup import Finding, namespaces
from vpmem_driver.cli import common, findings, listing, tables
from vpmem_driver.pool import snapshot

#: The states of a listing, in the order of the columns.
_STATES = (*(state.value for state in model.State), "missing", "unusable")
_INDENT = "  "
_COLUMNS = (
    tables.Column("LABEL"),
    tables.Column("STATE", is_cut_last=True),
    tables.Column("NAMESPACES", is_number=True),
    tables.Column("SIZE", is_number=True),
)


class Status(common.Command):
    """Show on one screen whether the namespaces of this host are well.

    It shows namespaces and bytes by label and state, wipes and copies that run, and faults with their remedies. It
    takes no lock, changes nothing, and waits for no wipe, claim or libvirt.

    With -x, print one line, and exit with 8 if anything needs a person.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "-x", action="store_true", dest="only_faults", help="one line; exit with 8 if there are faults"
        )
        findings.add_format_argument(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        now = snapshot.read(common.app(self).configuration())
        faults = namespaces.check(now)
        if parsed_args.format == "json":
            self.app.stdout.write(json.dumps(_as_json(now, faults), indent=2) + "\n")
        elif parsed_args.only_faults:
            self.app.stdout.write(_one_line(now, faults) + "\n")
        else:
            self.app.stdout.write(_Page(now, faults, tables.Screen.of(self.app.stdout)).text())
        return findings.EXIT_CODE if parsed_args.only_faults and faults else 0


def _one_line(now: snapshot.Snapshot, faults: Sequence[Finding]) -> str:
    if not faults:
        return f"{_count(len(now.records))}, no faults"
    named = ", ".join(dict.fromkeys(f"{fault.check} ({fault.id})" for fault in faults[:3]))
    more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""  # noqa: PLR2004
    return f"{len(faults)} fault{'s' if len(faults) > 1 else ''}: {named}{more}"


def _as_json(now: snapshot.Snapshot, faults: Sequence[Finding]) -> dict[str, object]:
    groups = collections.Counter((record.label, record.state) for record in now.records)
    totals: collections.Counter[tuple[str | None, str]] = collections.Counter()
    for record in now.records:
        totals[record.label, record.state] += record.size
    work = [(record, progress) for record in now.records if (progress := now.progress(record.uuid)) is not None]
    return {
        "namespaces": [
            {"label": label, "state": state, "count": count, "size": totals[label, state]}
            for (label, state), count in sorted(groups.items(), key=str)
        ],
        "work": [
            {
                "uuid": record.uuid,
                "name": record.name,
                "state": record.state,
                "done": progress.done,
                "total": progress.total,
                "active": record.uuid in now.active,
            }
            for record, progress in work
        ],
        "faults": findings.as_json(faults),
    }


class _Page:
    """The screen for people."""

    def __init__(self, now: snapshot.Snapshot, faults: Sequence[Finding], screen: tables.Screen) -> None:
        self._now = now
        self._faults = faults
        self._screen = screen

    def text(self) -> str:
        """Return the whole page."""
        return "\n".join([self._summary(), *filter(None, [self._labels(), self._work(), self._problems()])])

    def _summary(self) -> str:
        total = sizes.text(sum(record.size for record in self._now.records))
        verdict = (
            self._screen.paint("no faults", "green")
            if not self._faults
            else self._screen.paint(f"{len(self._faults)} fault{'s' if len(self._faults) > 1 else ''}", "red")
        )
        ledger = str(self._now.ledger) if self._now.has_ledger else f"{self._now.ledger} (not read)"
        return tables.fields(
            [
                ("host", os.uname().nodename),
                ("namespaces", f"{_count(len(self._now.records))}, {total}"),
                ("ledger", ledger),
                ("service", "retired: no owner gets a namespace" if self._now.is_retired else ""),
                ("state", verdict),
            ],
            tables.Screen(None, coloured=False),
        )

    def _labels(self) -> str:
        """Return a table with a row for each label and state, and one for each label with several states."""
        rows: list[tables.Row] = []
        records = self._now.records
        for label in sorted({record.label for record in records}, key=lambda label: (label is None, label or "")):
            members = [record for record in records if record.label == label]
            states = [state for state in _STATES if any(record.state == state for record in members)]
            shown = label or "(none)"
            for state in states:
                chosen = [record for record in members if record.state == state]
                rows.append((shown, tables.Cell(state, listing.COLOURS.get(state)), *_amount(chosen)))
                shown = ""
            if len(states) > 1:
                rows.append(("", "total", *_amount(members)))
        return tables.render(_COLUMNS, rows, self._screen) if rows else ""

    def _work(self) -> str:
        """Return the wipes and copies that have begun."""
        lines = []
        for record in self._now.records:
            progress = self._now.progress(record.uuid)
            if progress is not None:
                active = "" if record.uuid in self._now.active else ", no progress now"
                lines.append(f"{_INDENT}{record.name or record.uuid}: {progress.percent}% {progress.verb}{active}\n")
        return "wipes and copies:\n" + "".join(lines) if lines else ""

    def _problems(self) -> str:
        if not self._faults:
            return ""
        return "faults:\n" + "".join(findings.paragraphs(self._faults, self._screen, _INDENT))


def _amount(records: Sequence[model.Record]) -> tuple[str, str]:
    """Return number and bytes."""
    return str(len(records)), sizes.text(sum(record.size for record in records))


def _count(number: int) -> str:
    return f"{number} namespace{'' if number == 1 else 's'}"
