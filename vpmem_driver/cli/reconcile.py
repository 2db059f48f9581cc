"""The command ``vpmem reconcile``."""

import argparse
import contextlib
import dataclasses
import json
import subprocess
from collections.abc import Iterator, Sequence

import msgspec

from vpmem_driver import exception, interpreter, sizes
from vpmem_driver.checkup import Finding, Level, agreement, nova_records
from vpmem_driver.checkup.agreement import Disagreement
from vpmem_driver.checkup.finding import of_error
from vpmem_driver.checkup.nova_records import NovaRecords
from vpmem_driver.cli import common, domain_refresh, findings, listing, tables
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import Pool, comparison, snapshot
from vpmem_driver.pool.comparison import Compared, Comparison

_COLUMNS: tuple[tables.Column, ...] = (
    tables.Column("NAME"),
    tables.Column("SIZE", is_number=True),
    tables.Column("LEDGER", is_cut_last=True),
    tables.Column("OWNER"),
    tables.Column("DEVICE"),
    tables.Column("DOMAINS", takes_rest=True),
    tables.Column("PROCESS"),
)
_NOVA_COLUMNS = (tables.Column("NOVA"), tables.Column("PLACEMENT"))
#: Nova's conductor and Placement have 60 seconds each, by default, before a client gives up.
_NOVA_LIMIT_SECONDS = 180.0


class Reconcile(common.Command):
    """Compare what ledger, devices, processes and libvirt say of each namespace.

    Show what is wrong, and what to do. With --yes, do what certainly keeps all content: adopt namespaces whose content
    can only be that of the domain that has them, and update the device paths in definitions. Everything else is for a
    person to decide. Nothing is ever released or wiped.

    With --nova, also ask Nova and Placement, as nova-compute does: give nova.conf with --config-file, and run this with
    the Python of nova-compute, as root or Nova's user. What they disagree with is for a person to decide.

    Exit with 8 if anything remains that is wrong.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        common.add_connect_argument(parser)
        findings.add_format_argument(parser)
        parser.add_argument("--nova", action="store_true", help="ask Nova and Placement, too")
        parser.add_argument("--yes", action="store_true", help="do what is proposed (default: only show it)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        app = common.app(self)
        conf, domains = app.configuration(), app.domains(parsed_args.connect)
        now = snapshot.read(conf)
        if parsed_args.yes and now.errors:
            raise now.errors[0]
        records = _ask_nova(app.options.config_file or ()) if parsed_args.nova else None
        compared = comparison.compare(now, domains)
        errors = [of_error("configuration and ledger", error) for error in now.errors]
        wrong = agreement.check(compared)
        if records is not None and not errors:
            wrong = agreement.with_nova(wrong, compared, records)
        if errors:  # what the ledger says is not known, so nothing is proposed
            wrong = [dataclasses.replace(each, action=None) for each in wrong]
        failed: list[exception.VPMEMError] = []
        done: list[Disagreement] = []
        if parsed_args.yes and any(each.action for each in wrong):
            doer = _Doer(app.pool(parsed_args.connect), domains)
            done = list(doer.do(wrong, failed))
        result = _Result(compared, records, errors, wrong, done)
        if parsed_args.format == "json":
            self.app.stdout.write(json.dumps(_as_json(result), indent=2) + "\n")
        else:
            self.app.stdout.write(_page(result, tables.Screen.of(self.app.stdout)))
        for error in failed:
            self.app.LOG.error("%s", error.with_id())
        left = [*errors, *(each.finding for each in wrong if each not in done)]
        return findings.EXIT_CODE if any(found.level is Level.FAILURE for found in left) else 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Result:
    """What was compared, found and done.

    :ivar nova: None if Nova was not asked
    """

    compared: Comparison
    nova: NovaRecords | None
    errors: Sequence[Finding]
    wrong: Sequence[Disagreement]
    done: Sequence[Disagreement]


class _Doer:
    """Does what is proposed. One domain that fails does not keep the others from it."""

    def __init__(self, pool: Pool, domains: Domains) -> None:
        self._pool = pool
        self._domains = domains

    def do(self, wrong: Sequence[Disagreement], failed: list[exception.VPMEMError]) -> Iterator[Disagreement]:
        """Yield what is done, and add the errors of the rest to `failed`."""
        owners = dict.fromkeys(each.owner for each in wrong if each.action is not None and each.owner is not None)
        for owner in owners:
            mine = [each for each in wrong if each.owner == owner]
            try:
                adopted = sorted((each for each in mine if each.action == "adopt"), key=lambda each: each.position)
                self._adopt(owner, adopted)
                yield from adopted
                outdated = [each for each in mine if each.action == "refresh"]
                if outdated:
                    self._refresh(owner)
                    yield from outdated
            except exception.VPMEMError as error:
                failed.append(error)

    def _adopt(self, owner: str, adopted: Sequence[Disagreement]) -> None:
        uuids = list(dict.fromkeys(each.namespace for each in adopted if each.namespace is not None))
        if uuids:
            hardware_of = {
                each.namespace: each.hardware
                for each in adopted
                if each.namespace is not None and each.hardware is not None
            }
            why = "a domain has it (reconcile)"
            self._pool.adopt(owner, uuids, why=why, in_domain=True, hardware_of=hardware_of)

    def _refresh(self, owner: str) -> None:
        with self._domains.connection() as connection:
            domain = self._domains.find(connection, owner)
            domain_refresh.refresh(self._pool, self._domains, connection, domain)


def _ask_nova(config_files: Sequence[str]) -> NovaRecords:
    """Ask Nova and Placement, in a process of its own.

    :raises HostToolError: they do not answer, or this Python has no Nova
    """
    options = [word for file in config_files for word in ("--config-file", file)]
    reason = f"no answer within {_NOVA_LIMIT_SECONDS:g} seconds"
    try:
        done = subprocess.run(
            interpreter.command("vpmem_driver.nova.records", *options),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_NOVA_LIMIT_SECONDS,
            env=interpreter.environment(),
        )
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=NovaRecords)
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = exception.printable(said[-1]) if said else f"exit code {done.returncode}"
    except (OSError, ValueError) as error:
        reason = str(error)
    except subprocess.TimeoutExpired:
        pass
    raise exception.HostToolError(
        what="Asking Nova and Placement",
        reason=reason,
        remedy="Check that nova-compute of this host works with the same configuration files. Nothing was changed",
    )


def _as_json(result: _Result) -> dict[str, object]:
    unknown = [Disagreement(error, None) for error in result.errors]
    return {
        "libvirt": result.compared.libvirt,
        "nova": None if result.nova is None else msgspec.to_builtins(result.nova),
        "namespaces": [_namespace_as_json(namespace) for namespace in result.compared.namespaces],
        "findings": [
            dataclasses.asdict(each.finding)
            | {"namespace": each.namespace, "action": each.action, "owner": each.owner, "done": each in result.done}
            for each in (*unknown, *result.wrong)
        ],
    }


def _namespace_as_json(namespace: Compared) -> dict[str, object]:
    record, row = namespace.record, namespace.row
    return {
        "uuid": record.uuid,
        "name": record.name,
        "size": record.size,
        "state": None if row is None else row.state.value,
        "owner": record.owner,
        "device": record.device,
        "process": namespace.process,
        "domains": [
            {
                "uuid": use.owner,
                "name": use.domain,
                "running": use.is_running,
                "kind": use.kind,
                "path": use.path,
                "outdated": use.is_outdated,
            }
            for use in namespace.uses
        ],
    }


def _page(result: _Result, screen: tables.Screen) -> str:
    namespaces = result.compared.namespaces
    names = {use.owner: use.domain for namespace in namespaces for use in namespace.uses}
    columns, rows = _COLUMNS, [_row(namespace, names) for namespace in namespaces]
    if result.nova is not None:
        columns += _NOVA_COLUMNS
        known = {each.record.uuid: name for name, each in nova_records.identifiers(namespaces).items()}
        cells = [_of_nova(known.get(each.record.uuid, ""), each, result.nova) for each in namespaces]
        rows = [(*row, *more) for row, more in zip(rows, cells, strict=True)]
    parts = [tables.render(columns, rows, screen)] if rows else []
    left = (each.finding for each in result.wrong if each not in result.done)
    parts += findings.paragraphs([*result.errors, *left], screen)
    if result.compared.libvirt is None:
        parts.append("No libvirt was asked: none has a socket on this host, and connection_uri is not set.\n")
    parts.append("".join(f"{line}\n" for line in _ending(result, names)))
    return "\n".join(filter(None, parts))


def _ending(result: _Result, names: dict[str, str]) -> Iterator[str]:
    """Yield what was done, or is proposed."""
    wrong, done = result.wrong, result.done
    for each in done:
        verb = "Adopted" if each.action == "adopt" else "Updated the path of"
        yield f"{verb} {each.finding.check} for domain {names.get(each.owner or '', each.owner)}."
    proposed = [each for each in wrong if each.action is not None and each not in done]
    for each in proposed:
        verb = "adopt" if each.action == "adopt" else "update the path of"
        yield f"Proposed: {verb} {each.finding.check} for domain {names.get(each.owner or '', each.owner)}."
    if proposed and not done:
        yield "Nothing was changed. 'vpmem reconcile --yes' does what is proposed."
    if not wrong:
        asked = "processes and domains" if result.nova is None else "processes, domains, Nova and Placement"
        yield f"Ledger, devices, {asked} agree."


def _of_nova(identifier: str, namespace: Compared, records: NovaRecords) -> tuple[str, str]:
    """Return the instances that a namespace is recorded for, and what Placement has allocated for them or its owner."""
    users = records.users(identifier)
    resource_class = namespace.record.resource_class or ""
    consumers = dict.fromkeys([*(user.uuid for user in users), namespace.record.owner or ""])
    numbers = [records.allocations.get(consumer, {}).get(resource_class, 0) for consumer in consumers]
    allocated = f"{sum(numbers)} allocated" if any(numbers) else ""
    return ", ".join(exception.printable(user.name or user.uuid) for user in users), allocated


def _users(namespace: Compared) -> Iterator[str]:
    """Yield each domain that has the namespace, and how it has it."""
    for owner, name in {use.owner: use.domain for use in namespace.uses}.items():
        ways = {use.is_running for use in namespace.uses if use.owner == owner}
        yield f"{name} ({'defined' if True not in ways else 'running' if False in ways else 'running only'})"


def _row(namespace: Compared, names: dict[str, str]) -> tables.Row:
    record, row = namespace.record, namespace.row
    state = row.state.value if row is not None else record.state if record.state == "unusable" else "-"
    owner = record.owner
    with contextlib.suppress(KeyError):
        owner = names[owner or ""]
    return (
        record.name or record.uuid or "",
        sizes.text(record.size),
        tables.Cell(state, listing.COLOURS.get(state)),
        owner or "",
        record.device or "missing",
        ", ".join(exception.printable(user) for user in _users(namespace)),
        namespace.process or "",
    )
