"""What guests have on this host, though its ledger gives it to nobody: claimed for them before anything is handed out.

Nova's record is believed once: when this driver takes over from the in-tree driver, or starts with a new ledger. Later
it may name what the instance was never given here: during a resize, and after one that failed, it has the destination's
namespaces. Then only a domain of the instance that has the device shows that the bytes are the instance's.
"""

import contextlib
import logging
import typing
from collections.abc import Collection, Iterator

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.compute import vm_states

from vpmem_driver import exception, hostpaths
from vpmem_driver.model import State
from vpmem_driver.nova.guests import HostGuests
from vpmem_driver.nova.host import HostPool
from vpmem_driver.pool import Pool, Row

LOG = logging.getLogger(__name__)

#: The ledger's mark for: what guests of the in-tree driver had on this host was adopted.
_TAKEN_OVER = "nova: taken over from the in-tree driver"

#: The ledger is out of date, then, and not only in what it has of one instance.
_INTERLUDE_REMEDY = (
    "If the in-tree driver has run on this host since, move the ledger away: what guests have is then adopted anew."
)

#: An instance in one of these has never had a guest here, or has none that owns anything.
_NO_GUEST = (vm_states.BUILDING, vm_states.SHELVED_OFFLOADED)


def take_over(host_pool: HostPool, host: str, guests: HostGuests) -> None:
    """Adopt what instances have on `host` and do not hold in its ledger.

    :raises GetPMEMNamespacesFailed: the ledger fails, or to start would put the memory of an instance at risk
    """
    context, pool = nova_context.get_admin_context(), host_pool.pool
    try:
        nodes = objects.ComputeNodeList.get_all_by_host(context, host)
    except nova_exception.ComputeHostNotFound:
        if not guests.uuids():
            pool.mark(_TAKEN_OVER)  # the first start of a new host: no instance has ever been here
        return
    first = not pool.marked(_TAKEN_OVER)
    recorded = list(_on_record(context, host, nodes))
    instances = {instance.uuid for instance, _ in recorded}
    for instance, resources in recorded:
        # With a migration, failed or not, the record may be of what no guest has had yet.
        trusted = first and instance.migration_context is None
        for resource in host_pool.without_claim(instance, resources):
            try:
                _adopt(pool, instance, resource, guests, trusted=trusted, instances=instances)
            except exception.VPMEMError as error:
                reason = (
                    f"instance {instance.uuid} has {resource.identifier} on record here, but: {error} "
                    "This service does not start, because it could give the memory of the instance to another one"
                )
                raise nova_exception.GetPMEMNamespacesFailed(reason=reason) from error
    if first:
        pool.mark(_TAKEN_OVER)


def _adopt(
    pool: Pool,
    instance: objects.Instance,
    resource: objects.Resource,
    guests: HostGuests,
    *,
    trusted: bool,
    instances: Collection[str],
) -> None:
    """Claim a namespace of the instance's record for it, as it is, if its guest has it; else say what becomes of it.

    :param trusted: the record alone shows that the guest has it
    :param instances: those that Nova has on this host
    :raises VPMEMError: the ledger fails, or memory that is in use is at risk
    """
    owner, name = instance.uuid, resource.identifier
    try:
        uuid = pool.find(name)
    except exception.ConfigurationError as error:
        if trusted:
            raise
        LOG.error("Instance %s has %s on record here: %s Its guest cannot start without it.", owner, name, error)
        return
    (row,) = (row for row in pool.rows() if row.uuid == uuid)
    device = hostpaths.Wanted([row.device or ""])
    has_it = any(device.reached_from(path) for path in guests.memory_paths(instance))
    if not (has_it or trusted or row.owner is not None or row.state is State.QUARANTINED):
        LOG.warning("Instance %s has %s on record here, but no domain with it: its start wipes it", owner, name)
        return
    why = "its guest has it" if has_it else "Nova has it on record for this instance"
    try:
        pool.adopt(owner, [uuid], why=why, label_of={uuid: resource.metadata.label}, in_domain=has_it)
    except (exception.NotOwner, exception.NamespaceUnavailable) as error:
        is_known = row.state in {State.QUARANTINED, State.CLEAN} or row.begun
        if has_it and not is_known and row.owner not in instances:
            raise exception.LedgerError(path=pool.ledger_path, reason=str(error), remedy=_INTERLUDE_REMEDY) from error
        LOG.error("Instance %s has %s on record here. %s %s", owner, name, error, _remedy(row))


def _remedy(row: Row) -> str:
    """What lets an instance start whose record names a namespace that it cannot have as it is."""
    name = row.name or row.uuid
    if row.owner is not None:
        return f"Migrate it, or 'vpmem release {row.owner} --namespace {name}', then reboot it hard."
    return f"Stop it, wipe {name} ('vpmem wipe {name}') and start it: it gets {name} empty."


def _on_record(
    context: typing.Any, host: str, nodes: objects.ComputeNodeList
) -> Iterator[tuple[objects.Instance, list[objects.Resource]]]:
    """The instances that may have a guest on `host`, with what Nova has on record for them there."""
    providers = {node.uuid for node in nodes}
    here = objects.InstanceList.get_by_host(context, host, expected_attrs=["resources", "flavor", "migration_context"])
    for instance in here:
        if instance.vm_state not in _NO_GUEST and instance.launched_at is not None:
            yield instance, _of_providers(providers, instance.resources, _old(instance))
    for node in nodes:
        # Resized to another host and not confirmed yet: the guest is shut off here, and comes back if that is reverted.
        for migration in objects.MigrationList.get_in_progress_by_host_and_node(
            context, host, node.hypervisor_hostname
        ):
            with contextlib.suppress(nova_exception.InstanceNotFound):  # deleted
                if migration.source_compute == host and migration.instance.host != host:
                    yield migration.instance, _of_providers(providers, _old(migration.instance))


def _old(instance: objects.Instance) -> objects.ResourceList | None:
    """What the instance had before its migration."""
    migration = instance.migration_context
    return migration.old_resources if migration is not None and "old_resources" in migration else None


def _of_providers(
    providers: typing.AbstractSet[str], *resources: objects.ResourceList | None
) -> list[objects.Resource]:
    """The namespaces of this host, each once. During a resize the other host's may have the same names."""
    named = {
        resource.identifier: resource
        for some in resources
        for resource in some or ()
        if resource.provider_uuid in providers
        and "metadata" in resource
        and isinstance(resource.metadata, objects.LibvirtVPMEMDevice)
    }
    return list(named.values())
