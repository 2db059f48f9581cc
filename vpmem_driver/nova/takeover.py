"""Take over from the in-tree driver: claim the namespaces that guests use but the ledger records as unowned.

This happens before any namespace is offered. Nova's record alone is trusted only once: when this driver replaces the
in-tree driver, or starts with a new ledger. Later the record may name namespaces that the instance never had here:
during a resize, and after a failed one, it contains those of the destination. Then only a domain of the instance that
uses the device proves that the data is the instance's.
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

#: The ledger's mark that the namespaces of the in-tree driver's guests were adopted.
_TAKEN_OVER = "nova: taken over from the in-tree driver"

#: The in-tree driver makes the whole ledger outdated, not only the rows of one instance.
_OUTDATED_REMEDY = (
    "If the in-tree driver has run on this host since, move the ledger away: namespaces that guests use are then "
    "adopted again"
)

#: An instance in one of these states has never had a guest here, or has no guest that owns a namespace.
_NO_GUEST = (vm_states.BUILDING, vm_states.SHELVED_OFFLOADED)


def take_over(host_pool: HostPool, host: str, guests: HostGuests) -> None:
    """Adopt the namespaces that instances use on `host` but do not hold in its ledger.

    :raises GetPMEMNamespacesFailed: the ledger failed, or starting would put an instance's data at risk
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
        # With a migration, failed or not, the record may contain namespaces that no guest has used yet.
        trusted = first and instance.migration_context is None
        for resource in host_pool.without_claim(instance, resources):
            try:
                _adopt(pool, instance, resource, guests, trusted=trusted, instances=instances)
            except exception.VPMEMError as error:
                reason = (
                    f"Nova records {resource.identifier} for instance {instance.uuid} on this host, but: {error} "
                    "The service does not start, because it could give the instance's data to another one"
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
    """Adopt a recorded namespace for its instance if the guest uses it; otherwise log what happens to it.

    :param trusted: the record alone proves that the guest uses it
    :param instances: uuids of the instances that Nova has on this host
    :raises VPMEMError: the ledger failed, or data in use is at risk
    """
    owner, name = instance.uuid, resource.identifier
    try:
        uuid = pool.find(name)
    except exception.ConfigurationError as error:
        if trusted:
            raise
        LOG.error("Nova records %s for instance %s, but its guest cannot start with it: %s", name, owner, error)
        return
    (row,) = (row for row in pool.rows() if row.uuid == uuid)
    device = hostpaths.Wanted([row.device or ""])
    in_use = any(device.reached_from(path) for path in guests.memory_paths(instance))
    if not (in_use or trusted or row.owner is not None or row.state is State.QUARANTINED):
        LOG.warning("Nova records %s for instance %s, but no domain uses it; the next start wipes it", name, owner)
        return
    why = "its guest uses it" if in_use else "Nova records it for this instance"
    try:
        label_of = {uuid: resource.metadata.label}
        found = [each for path, each in guests.hardware(instance).items() if device.reached_from(path)]
        hardware_of = dict.fromkeys([uuid], found[0]) if found else {}
        pool.adopt(owner, [uuid], why=why, label_of=label_of, in_domain=in_use, hardware_of=hardware_of)
    except (exception.NotOwner, exception.NamespaceUnavailable) as error:
        is_known = row.state in {State.QUARANTINED, State.CLEAN} or row.begun
        if in_use and not is_known and row.owner not in instances:
            raise exception.LedgerError(path=pool.ledger_path, reason=str(error), remedy=_OUTDATED_REMEDY) from error
        LOG.error("Nova records %s for instance %s. %s %s", name, owner, error, _remedy(row))


def _remedy(row: Row) -> str:
    """Return how to start an instance whose recorded namespace cannot be adopted."""
    name = row.name or row.uuid
    if row.owner is not None:
        return f"Migrate it, or run 'vpmem release {row.owner} --namespace {name}'; then reboot the instance hard."
    return f"Stop the instance, run 'vpmem wipe --namespace {name}' and start it: it gets {name} empty."


def _on_record(
    context: typing.Any, host: str, nodes: objects.ComputeNodeList
) -> Iterator[tuple[objects.Instance, list[objects.Resource]]]:
    """Yield the instances that may have a guest on `host`, with the namespaces that Nova records for them there."""
    providers = {node.uuid for node in nodes}
    here = objects.InstanceList.get_by_host(context, host, expected_attrs=["resources", "flavor", "migration_context"])
    for instance in here:
        if instance.vm_state not in _NO_GUEST and instance.launched_at is not None:
            yield instance, _of_providers(providers, instance.resources, _old(instance))
    for node in nodes:
        # After an unconfirmed resize to another host, the guest is shut off here and returns if the resize is reverted.
        for migration in objects.MigrationList.get_in_progress_by_host_and_node(
            context, host, node.hypervisor_hostname
        ):
            with contextlib.suppress(nova_exception.InstanceNotFound):  # deleted
                if migration.source_compute == host and migration.instance.host != host:
                    yield migration.instance, _of_providers(providers, _old(migration.instance))


def _old(instance: objects.Instance) -> objects.ResourceList | None:
    """Return the resources that the instance had before its migration."""
    migration = instance.migration_context
    return migration.old_resources if migration is not None and "old_resources" in migration else None


def _of_providers(
    providers: typing.AbstractSet[str], *resources: objects.ResourceList | None
) -> list[objects.Resource]:
    """Return the namespaces of this host, each once. In a resize, those of the other host may have the same names."""
    named = {
        resource.identifier: resource
        for some in resources
        for resource in some or ()
        if resource.provider_uuid in providers
        and "metadata" in resource
        and isinstance(resource.metadata, objects.LibvirtVPMEMDevice)
    }
    return list(named.values())
