"""The command ``vpmem host retire``."""

import argparse
import datetime
import json
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from vpmem_driver import __version__, exception, model, sizes
from vpmem_driver.cli import common, findings, tables
from vpmem_driver.engine import Outcome, Result
from vpmem_driver.pool import Pool, wipes

_METHOD = (
    "Every byte of the namespace that a guest can reach was overwritten with zeros. The zeros were made durable, and "
    "then every byte was read back from the medium and compared with zero."
)
_LIMITS = (
    "Free capacity of regions, labels and info blocks were not overwritten, nor what a medium keeps where no program "
    "can reach it, such as spare blocks."
)
_WIDTH = 100
_FOR_PEOPLE = (
    tables.Column("NAME"),
    tables.Column("UUID", is_cut_last=True),
    tables.Column("SIZE", is_number=True),
    tables.Column("RESULT", is_cut_last=True),
    tables.Column("TIME (UTC)", is_cut_last=True),
    tables.Column("REASON", takes_rest=True),
)
_COLOURS = {"verified": "green", "planned": "yellow", "left": "magenta", "failed": "red"}


class HostRetire(common.Command):
    """Wipe and verify all namespaces before the hardware leaves the house, and print a report to keep.

    Clean namespaces are wiped again, so that everything in the report was verified from the medium now. It is refused
    while an owner holds a namespace. From then on, no owner gets a namespace of this host; --cancel ends that. On a
    compute host, disable the compute service first.

    Without --yes, only show what would be wiped, and what is left alone: namespaces that no guest could have, and
    namespaces without a label that were never claimed or wiped here. Exit with 8 if any namespace was left alone, and
    with the code of the failure if one could not be wiped. The report says so too.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem host retire --yes -f json > /root/$(hostname)-retired.json"
        findings.add_format_argument(parser)
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--yes", action="store_true", help="wipe (default: only show what would be wiped)")
        what.add_argument("--cancel", action="store_true", help="put the host into service again; nothing is restored")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        pool = common.app(self).pool()
        if parsed_args.cancel:
            return self._cancel(pool)
        planned = [record.uuid for record in pool.maintenance.retirable() if record.uuid is not None]
        begun = _now()
        results: list[Result] = []
        if parsed_args.yes:
            with common.wipe_progress(self) as on_progress:
                results = pool.maintenance.retire(on_progress=on_progress)
        report = _report(pool, planned, results, begun, is_done=parsed_args.yes)
        if parsed_args.format == "json":
            self.app.stdout.write(json.dumps(report, indent=2) + "\n")
        else:
            self.app.stdout.write(_page(report, tables.Screen.of(self.app.stdout)))
        wipes.raise_for(results)
        return 0 if report["complete"] or not parsed_args.yes else findings.EXIT_CODE

    def _cancel(self, pool: Pool) -> int:
        if not pool.maintenance.return_to_service():
            raise exception.InvalidRequest(
                what="option", value="--cancel", reason="the host is not retired", remedy="Nothing was changed"
            )
        self.app.LOG.warning("Owners can have namespaces of this host again")
        return 0


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _report(
    pool: Pool, planned: Sequence[str], results: Iterable[Result], begun: str, *, is_done: bool
) -> dict[str, object]:
    by_uuid = {result.uuid: result for result in results}
    items = [_item(pool, record, planned, by_uuid) for record in pool.records()]
    return {
        "host": os.uname().nodename,
        "version": __version__,
        "ledger": str(pool.ledger_path),
        "begun": begun if is_done else None,
        "ended": _now() if is_done else None,
        "complete": is_done and all(item["result"] == "verified" for item in items),
        "method": _METHOD,
        "limits": _LIMITS,
        "namespaces": items,
    }


def _item(pool: Pool, record: model.Record, planned: Sequence[str], results: Mapping[str, Result]) -> dict[str, object]:
    uuid = record.uuid or ""
    result = results.get(uuid)
    verified_at = None
    reason = record.reason
    if result is not None and result.outcome is Outcome.WIPED:
        outcome, verified_at = "verified", next(move.at for move in pool.history(uuid=uuid, limit=1))
    elif result is not None:
        outcome, reason = "failed", result.reason or "the wipe was stopped"
    elif uuid in planned:
        outcome = "planned"
    else:
        outcome, reason = "left", reason or "it has no label in pmem_namespaces, and was never claimed or wiped here"
    return {
        "uuid": record.uuid,
        "name": record.name,
        "size": record.size,
        "numa_node": record.numa_node,
        "device": record.device,
        "result": outcome,
        "verified_at": verified_at,
        "reason": reason,
    }


def _page(report: Mapping[str, object], screen: tables.Screen) -> str:
    names = ("host", "version", "ledger", "begun", "ended")
    pairs: list[tuple[str, str | tables.Cell]] = [(name, str(report[name] or "")) for name in names]
    complete = tables.Cell("yes", "green") if report["complete"] else tables.Cell("no", "red")
    items = report["namespaces"]
    assert isinstance(items, list)  # noqa: S101
    rows = [
        (
            item["name"] or "",
            item["uuid"] or "",
            sizes.text(item["size"]),
            tables.Cell(item["result"], _COLOURS[item["result"]]),
            (item["verified_at"] or "")[:19].replace("T", " "),
            item["reason"] or "",
        )
        for item in items
    ]
    width = min(screen.width or _WIDTH, _WIDTH)
    parts = [tables.fields([*pairs, ("complete", complete)], screen)]
    parts += [tables.render(_FOR_PEOPLE, rows, screen)] if rows else []
    texts = (_METHOD, _LIMITS) if report["ended"] else ("Nothing was changed. With --yes, the planned ones are wiped.",)
    parts += [textwrap.fill(text, width) + "\n" for text in texts]
    return "\n".join(parts)
