"""What guests have on this host, though its ledger gives it to nobody: claimed for them before anything is handed out.

Nova's record is believed once: when this driver takes over from the in-tree driver, or starts with a new ledger. Later
it may name what the instance was never given here: during a resize, and after one that failed, it has the destination's
namespaces. Then only a domain of the instance that has the device shows that the bytes are the instance's.
"""

import contextlib
import typing
from collections.abc import Iterator

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.compute import vm_states

from vpmem_driver import exception
from vpmem_driver.nova.guests import HostGuests
from vpmem_driver.nova.host import HostPool

#: An instance in one of these has never had a guest here, or has none that owns anything.
_NO_GUEST = (vm_states.BUILDING, vm_states.SHELVED_OFFLOADED)


def take_over(pool: HostPool, host: str, guests: HostGuests) -> None:
    """Adopt what instances have on `host` and do not hold in its ledger.

    :raises GetPMEMNamespacesFailed: the ledger fails, or what is on record at the take-over is not on the host
    """
    context = nova_context.get_admin_context()
    try:
        nodes = objects.ComputeNodeList.get_all_by_host(context, host)
    except nova_exception.ComputeHostNotFound:
        if not guests.uuids():
            pool.end_take_over()  # the first start of a new host: no instance has ever been here
        return
    first = not pool.is_taken_over()
    for instance, resources in _on_record(context, host, nodes):
        # With a migration, failed or not, the record may be of what no guest has had yet.
        trusted = first and instance.migration_context is None
        for resource in pool.without_claim(instance, resources):
            try:
                pool.adopt(instance, resource, guests.memory_paths(instance), trusted=trusted)
            except exception.VPMEMError as error:
                reason = (
                    f"instance {instance.uuid} has {resource.identifier} on record here, but: {error} "
                    "This service does not start, because it could give the memory of the instance to another one"
                )
                raise nova_exception.GetPMEMNamespacesFailed(reason=reason) from error
    if first:
        pool.end_take_over()


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
