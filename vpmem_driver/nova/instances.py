"""The instances on a host or migrating to or from it, and the namespaces that Nova's database records for them."""

import dataclasses
from collections.abc import Iterator, Mapping

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.compute import task_states, vm_states
from nova.virt import hardware

#: In one of these states, and without a task, an instance needs nothing on a host that it has left.
_SETTLED = (vm_states.ACTIVE, vm_states.STOPPED)
#: Types of migrations whose destination starts the guest after the source has powered it off.
_COLD = ("migration", "resize")


def find(uuid: str, *expected_attrs: str) -> objects.Instance | None:
    """Return the instance with that uuid, deleted or not; None if Nova does not know it."""
    context = nova_context.get_admin_context(read_deleted="yes")
    try:
        return objects.Instance.get_by_uuid(context, uuid, expected_attrs=list(expected_attrs))
    except nova_exception.InstanceNotFound:
        return None


def is_settled(instance: objects.Instance) -> bool:
    """Whether the instance is active or stopped, without a task."""
    return instance.vm_state in _SETTLED and instance.task_state is None and not instance.deleted


def is_offloaded(instance: objects.Instance) -> bool:
    """Whether the instance is shelved and on no host, without a task: it has no guest anywhere."""
    offloaded = instance.vm_state == vm_states.SHELVED_OFFLOADED and instance.host is None
    return offloaded and instance.task_state is None and not instance.deleted


def _is_under_way(instance: objects.Instance) -> bool:
    return instance.task_state is not None or instance.vm_state == vm_states.BUILDING


@dataclasses.dataclass(frozen=True, slots=True)
class HostInstances:
    """A snapshot of Nova's database for one host.

    :ivar host: the compute host
    :ivar here: the instances on it, by uuid
    :ivar moving: the migrations in progress to or from it, by the uuid of their instance
    :ivar providers: uuids of its compute nodes, which are its resource providers in Placement
    """

    host: str
    here: Mapping[str, objects.Instance]
    moving: Mapping[str, objects.Migration]
    providers: frozenset[str]

    @classmethod
    def read(cls, host: str) -> "HostInstances":
        """Read the instances and migrations of `host` from Nova's database."""
        context = nova_context.get_admin_context()
        try:
            nodes = list(objects.ComputeNodeList.get_all_by_host(context, host))
        except nova_exception.ComputeHostNotFound:
            nodes = []  # the host's first start
        instances = objects.InstanceList.get_by_host(context, host, expected_attrs=["resources", "flavor"])
        moving = {
            migration.instance_uuid: migration
            for node in nodes
            for migration in objects.MigrationList.get_in_progress_by_host_and_node(
                context, host, node.hypervisor_hostname
            )
        }
        return cls(
            host=host,
            here={instance.uuid: instance for instance in instances},
            moving=moving,
            providers=frozenset(node.uuid for node in nodes),
        )

    def names(self, uuid: str) -> list[str] | None:
        """Return the namespaces of this host that are recorded for an instance; an empty list if it is not here.

        None if the instance is being built, migrates or has another task: its record may be about to change.
        """
        if uuid in self.moving and not self._has_stayed(self.moving[uuid]):
            return None
        instance = self.here.get(uuid)
        if instance is None:
            return []
        return None if _is_under_way(instance) else self._names(instance.resources)

    def recorded(self, uuid: str) -> list[str]:
        """Return the namespaces of this host that are recorded for an instance on it, whatever its task."""
        instance = self.here.get(uuid)
        return [] if instance is None else self._names(instance.resources)

    def all_names(self) -> frozenset[str]:
        """Return the namespaces of this host that are recorded for any instance on it."""
        return frozenset(name for instance in self.here.values() for name in self._names(instance.resources))

    def arriving(self) -> frozenset[str]:
        """Return the namespaces of this host that are recorded for migrations in progress to it."""
        return frozenset(name for migration in self.moving.values() for name in self._arriving(migration))

    def starting(self) -> Iterator[str]:
        """Yield the instances that request persistent memory and are being built or unshelved here.

        Nova records their namespaces later.
        """
        for instance in self.here.values():
            starts = instance.vm_state == vm_states.BUILDING or instance.task_state == task_states.SPAWNING
            if starts and hardware.get_vpmems(instance.flavor):
                yield instance.uuid

    def _has_stayed(self, migration: objects.Migration) -> bool:
        """Whether the instance will not start from what this host, the destination of a cold migration, has of it.

        Its source was killed while it copied, and has not recorded since that the migration failed. Without a task, no
        guest starts here: before that, the source changes the task from RESIZE_MIGRATING to RESIZE_MIGRATED, and fails
        if it has another (compute/manager.py, _resize_instance; Nova 31 to 34).
        """
        if migration.dest_compute != self.host or migration.migration_type not in _COLD:
            return False
        instance = find(migration.instance_uuid)
        return instance is not None and is_settled(instance) and instance.host not in {None, self.host}

    def _arriving(self, migration: objects.Migration) -> list[str]:
        if migration.dest_compute != self.host:
            return []
        instance = find(migration.instance_uuid, "migration_context")
        # Without a task the migration has ended, and its host has not recorded that.
        if instance is None or instance.task_state is None:
            return []
        recorded = instance.migration_context
        if recorded is None or recorded.migration_id != migration.id:
            return []
        return self._names(recorded.new_resources)

    def _names(self, resources: objects.ResourceList | None) -> list[str]:
        return [
            resource.identifier
            for resource in resources or ()
            if resource.provider_uuid in self.providers and isinstance(resource.metadata, objects.LibvirtVPMEMDevice)
        ]
