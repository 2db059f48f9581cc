"""What Nova and Placement record of this host, and whether the ledger agrees. Only findings: a person decides.

An instance that is being built, moves or has another task is not compared: its records are about to change.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from vpmem_driver import exception, model
from vpmem_driver.checkup import finding
from vpmem_driver.checkup.finding import Finding
from vpmem_driver.faults import namespaces as faults
from vpmem_driver.pool.comparison import Compared


class Instance(msgspec.Struct, frozen=True):
    """An instance that Nova has on this host, or that moves to or from it.

    :ivar name: its display name
    :ivar namespaces: identifiers in Nova of the namespaces that are recorded for it here
    :ivar is_settled: it has no task, and does not move
    """

    uuid: str
    name: str
    namespaces: tuple[str, ...]
    is_settled: bool


class NovaRecords(msgspec.Struct, frozen=True):
    """What Nova and Placement record.

    :ivar allocations: number of namespaces by consumer and resource class. The consumer is an instance or a migration
    :ivar migrations: instance by migration
    """

    host: str
    instances: tuple[Instance, ...]
    allocations: dict[str, dict[str, int]]
    migrations: dict[str, str]

    def knows(self, owner: str) -> bool:
        """Whether Nova has the owner on this host, or Placement has an allocation for it."""
        consumers = {self.migrations.get(consumer, consumer) for consumer in self.allocations}
        return owner in consumers or any(instance.uuid == owner for instance in self.instances)

    def users(self, identifier: str) -> list[Instance]:
        """Return the instances that a namespace is recorded for."""
        return [instance for instance in self.instances if identifier in instance.namespaces]


def identifiers(namespaces: Sequence[Compared]) -> dict[str, Compared]:
    """Return the namespaces that have a label by their identifier in Nova: the name, or the uuid if names repeat."""
    labelled = [each for each in namespaces if each.record.uuid is not None and each.record.label is not None]
    count = collections.Counter(each.record.name for each in labelled)
    return {
        each.record.name if each.record.name is not None and count[each.record.name] == 1 else each.record.uuid: each
        for each in labelled
        if each.record.uuid is not None
    }


def check(namespaces: Sequence[Compared], records: NovaRecords) -> Iterator[tuple[str | None, Finding]]:
    """Yield what is wrong, with the uuid of the namespace."""
    known = identifiers(namespaces)
    for identifier, namespace in known.items():
        yield from _of_namespace(namespace, records.users(identifier), records)
    for instance in records.instances:
        for identifier in instance.namespaces:
            if identifier not in known:
                message = f"Nova records it for instance {instance.uuid}; this host and its ledger do not have it"
                yield None, finding.failure(f"namespace {identifier}", faults.MISSING, message)
    yield from _allocated(namespaces, records)


def _of_namespace(
    namespace: Compared, users: Sequence[Instance], records: NovaRecords
) -> Iterator[tuple[str | None, Finding]]:
    uuid, check = namespace.record.uuid, f"namespace {namespace.record.name or namespace.record.uuid}"
    owner = None if namespace.row is None else namespace.row.owner
    for instance in users:
        if instance.is_settled and instance.uuid != owner:
            holder = "unowned" if owner is None else f"owned by {owner}"
            message = (
                f"Nova records it for instance {instance.uuid} ({exception.shorten(instance.name)}); it is {holder}"
            )
            yield uuid, finding.failure(check, faults.NOVA_DISAGREES, message)
    if owner is None or any(instance.uuid == owner for instance in users):
        return
    if not records.knows(owner):
        message = f"it belongs to {owner}, which neither Nova nor Placement has on this host"
        yield uuid, finding.warning(check, faults.NOVA_DISAGREES, message)
    elif any(instance.uuid == owner and instance.is_settled for instance in records.instances):
        message = f"it belongs to instance {owner}, for which Nova does not record it"
        yield uuid, finding.warning(check, faults.NOVA_DISAGREES, message)


def _allocated(namespaces: Sequence[Compared], records: NovaRecords) -> Iterator[tuple[str | None, Finding]]:
    """Compare the numbers of Placement with those of the ledger."""
    held: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for namespace in namespaces:
        record = namespace.record
        if record.owner is not None and record.label is not None:
            held[record.owner][model.resource_class(record.label)] += 1
    unsettled = {instance.uuid for instance in records.instances if not instance.is_settled}
    for consumer in sorted({*held, *records.allocations} - unsettled - {*records.migrations}):
        allocated = records.allocations.get(consumer, {})
        if allocated != held[consumer] and records.knows(consumer):
            message = f"Placement has allocated {_numbers(allocated)} for it; the ledger has {_numbers(held[consumer])}"
            yield None, finding.warning(f"instance {consumer}", faults.NOVA_DISAGREES, message)


def _numbers(of_classes: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(of_classes.items())) or "nothing"
