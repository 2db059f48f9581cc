"""Whether ledger, devices, processes and domains agree about each namespace, and what to do where they do not.

Only what keeps content is ever proposed: to adopt a namespace whose content can only be the domain's, and to update
paths. Everything else is for a person to decide.
"""

import dataclasses
import typing
from collections.abc import Iterator

from vpmem_driver import exception, model
from vpmem_driver.checkup import finding, nova_records
from vpmem_driver.checkup.finding import Finding, Level
from vpmem_driver.checkup.nova_records import NovaRecords
from vpmem_driver.faults import namespaces as faults
from vpmem_driver.model import State
from vpmem_driver.pool import requests
from vpmem_driver.pool.comparison import Compared, Comparison, Use

Action = typing.Literal["adopt", "refresh"]


@dataclasses.dataclass(frozen=True, slots=True)
class Disagreement:
    """Something that is wrong, and what ``vpmem reconcile --yes`` does about it.

    :ivar namespace: uuid
    :ivar action: None: a person must decide
    :ivar owner: uuid of the domain that the action is for
    :ivar position: order among the devices of the domain
    :ivar hardware: what the device of the domain is, for an adoption
    """

    finding: Finding
    namespace: str | None
    action: Action | None = None
    owner: str | None = None
    position: int = 0
    hardware: model.Hardware | None = None


def check(comparison: Comparison) -> list[Disagreement]:
    """Return what is wrong, in the order of the namespaces."""
    found = [wrong for namespace in comparison.namespaces for wrong in _of_namespace(namespace, comparison.libvirt)]
    for uuid, use in comparison.strangers:
        message = f"{use.user} has it at {use.path}; neither this host nor its ledger knows it"
        found.append(Disagreement(finding.failure(f"namespace {uuid}", faults.MISSING, message), uuid))
    return found


def with_nova(wrong: list[Disagreement], comparison: Comparison, records: NovaRecords) -> list[Disagreement]:
    """Return `wrong` and what Nova and Placement disagree with.

    Nothing is proposed for a namespace that Nova records for another one, and no release of what Nova or Placement has.
    """
    found = [Disagreement(each, uuid) for uuid, each in nova_records.check(comparison.namespaces, records)]
    disputed = {each.namespace for each in found if each.finding.level is Level.FAILURE}
    owners = {each.record.uuid: each.record.owner for each in comparison.namespaces}
    kept = [
        dataclasses.replace(each, finding=_kept(each.finding))
        if each.finding.id == faults.NO_DOMAIN.id and records.knows(owners[each.namespace] or "")
        else each
        for each in wrong
    ]
    return [dataclasses.replace(each, action=None) if each.namespace in disputed else each for each in kept] + found


def _kept(found: Finding) -> Finding:
    remedy = "Nova or Placement still has this owner: do not release it. 'openstack server show OWNER' shows its state."
    return dataclasses.replace(found, remedy=remedy)


def _of_namespace(namespace: Compared, libvirt: str | None) -> Iterator[Disagreement]:
    row = namespace.row
    if row is not None and row.owner is not None:
        yield from _of_owned(namespace, row.owner)
        yield from _of_abandoned(namespace, libvirt)
        return
    owners = dict.fromkeys(use.owner for use in namespace.uses)
    if len(owners) > 1:
        users = exception.listed(dict.fromkeys(use.user for use in namespace.uses))
        yield _wrong(namespace, finding.failure(_check(namespace), faults.SHARED, f"in use by {users}"))
    elif owners:
        yield from _of_one_user(namespace)
    elif namespace.process is not None:
        yield _wrong(namespace, finding.failure(_check(namespace), faults.USED_BY_PROCESS, namespace.process))


def _of_owned(namespace: Compared, owner: str) -> Iterator[Disagreement]:
    foreign = sorted((use for use in namespace.uses if use.owner != owner), key=_weight)
    for use in {use.owner: use for use in reversed(foreign)}.values():
        message = f"{use.user} ({use.owner}) has it as {use.kind} at {use.path}, but it belongs to {owner}"
        yield _wrong(namespace, finding.failure(_check(namespace), faults.FOREIGN, message))
    for use in namespace.uses:
        if use.owner == owner and use.is_outdated:
            yield _outdated(namespace, use)


def _of_abandoned(namespace: Compared, libvirt: str | None) -> Iterator[Disagreement]:
    """Yield a claimed namespace that nobody has. During a copy to another host that is as it should be."""
    row = namespace.row
    is_settled = row is not None and row.state is State.CLAIMED and row.departure is None
    if row is None or libvirt is None or not is_settled or namespace.uses or namespace.process is not None:
        return
    message = f"it belongs to {row.owner}, and no domain of {libvirt} has it"
    yield _wrong(namespace, finding.warning(_check(namespace), faults.NO_DOMAIN, message))


def _of_one_user(namespace: Compared) -> Iterator[Disagreement]:
    """Yield what to do with an unowned namespace that one domain has."""
    use = min(namespace.uses, key=_weight)
    obstacle = _obstacle(namespace, use)
    state = namespace.row.state if namespace.row is not None else "not in the ledger"
    message = f"{use.user} ({use.owner}) has it as {use.kind} at {use.path}; it is {state} and unowned"
    if obstacle is not None:
        found = finding.failure(_check(namespace), faults.NOT_ADOPTED, f"{message}. Not adopted: {obstacle}")
        yield _wrong(namespace, found)
        return
    name = namespace.record.name or namespace.record.uuid
    remedy = f"'vpmem reconcile --yes' or 'vpmem adopt {use.owner} {name}' records the domain as its owner"
    found = finding.failure(_check(namespace), faults.NOT_ADOPTED, message, f"{remedy}, and keeps the content.")
    yield Disagreement(found, namespace.record.uuid, "adopt", use.owner, use.position, use.hardware)
    if use.is_outdated:
        yield _outdated(namespace, use)


def _obstacle(namespace: Compared, use: Use) -> str | None:
    """Return why the namespace cannot be adopted without a person; None if the content can only be the domain's."""
    if use.kind != "memory" or use.hardware is None:
        return "it is not a memory device that vpmem can make"
    if not (use.is_running or use.is_marked):
        return "only its path identifies it, which may have led to another namespace before a reboot"
    if namespace.record.state == "unusable" or (namespace.row is None and namespace.record.device is None):
        return namespace.record.reason or "it is not on this host now"
    if namespace.row is not None:
        try:
            requests.require_adoptable(use.owner, namespace.row, in_domain=True)
        except exception.Refused as error:
            return str(error)
    return None


def _weight(use: Use) -> tuple[bool, bool, bool]:
    """Return the order of the places where one domain has a namespace: the one that says most first."""
    return use.kind != "memory", not use.is_running, not use.is_marked


def _outdated(namespace: Compared, use: Use) -> Disagreement:
    now = namespace.record.device
    message = f"{use.user} has it at {use.path}; it is now at {now or 'no path'}"
    found = finding.failure(_check(namespace), faults.OUTDATED, message)
    return Disagreement(found, namespace.record.uuid, None if now is None else "refresh", use.owner, use.position)


def _check(namespace: Compared) -> str:
    return f"namespace {namespace.record.name or namespace.record.uuid}"


def _wrong(namespace: Compared, found: Finding) -> Disagreement:
    return Disagreement(found, namespace.record.uuid)
