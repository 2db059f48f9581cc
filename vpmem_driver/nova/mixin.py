"""Overrides of LibvirtDriver's methods that handle persistent memory. Decisions and the pool do the work.

Every public method here overrides a method of LibvirtDriver with the same name and signature in Nova 31 to 34.
"""

import logging
import typing
from collections.abc import Sequence

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.conf import CONF
from nova.virt import hardware
from nova.virt.libvirt import config as vconfig

from vpmem_driver import exception, guestxml, model
from vpmem_driver.nova import installation, request_specs, takeover
from vpmem_driver.nova.cells_mixin import CellsMixin
from vpmem_driver.nova.decisions import REBUILDING, Action, Cleanup, on_cleanup
from vpmem_driver.nova.exports import Exports
from vpmem_driver.nova.guest_config import GuestMemoryDevice
from vpmem_driver.nova.guests import HostGuests
from vpmem_driver.nova.host import HostPool, failures_logged
from vpmem_driver.nova.instances import HostInstances
from vpmem_driver.nova.leftovers import Leftovers
from vpmem_driver.nova.moves_mixin import MovesMixin
from vpmem_driver.nova.shelving_mixin import ShelvingMixin
from vpmem_driver.nova.starts_mixin import StartsMixin

LOG = logging.getLogger(__name__)


class VPMEMDriverMixin(CellsMixin, StartsMixin, ShelvingMixin, MovesMixin):
    """Overrides of LibvirtDriver, which must follow this class in the bases of the driver."""

    #: set by _discover_vpmems, which LibvirtDriver.__init__ calls; None if the host has no persistent memory
    _vpmem: HostPool | None = None

    def __init__(self, *args: typing.Any, **kwargs: typing.Any) -> None:
        self._vpmem_host = CONF.host
        #: owners that Nova did not know at the last periodic task
        self._vpmem_unknown: set[str] = set()
        installation.warn_of_an_untested_nova()
        super().__init__(*args, **kwargs)

    # Discovery and inventory

    def _discover_vpmems(self, vpmem_conf: list[str] | None = None) -> tuple[dict, dict]:  # noqa: ARG002
        guests = HostGuests(self._host)
        self._vpmem = HostPool.open(CONF, guests)
        if self._vpmem is None:
            return {}, {}
        self._vpmem_leftovers = Leftovers(self._vpmem, guests)
        self._vpmem_exports = Exports(self._vpmem.pool, CONF.vpmem.export_path)
        by_class: dict[str, list[objects.LibvirtVPMEMDevice]] = {}
        by_name = self._vpmem.devices()
        for device in by_name.values():
            by_class.setdefault(model.resource_class(device.label), []).append(device)
        return by_name, by_class

    def _update_provider_tree_for_vpmems(
        self, provider_tree: typing.Any, nodename: str, inventory: dict, resources: dict
    ) -> None:
        if self._vpmem is not None:
            self._vpmem.settle_picks(lambda: HostInstances.read(self._vpmem_host))
            inventory.update(self._vpmem.inventories())
            resources.update(self._vpmem.resources(provider_tree.data(nodename).uuid))

    def get_available_resource(self, nodename: str) -> dict:
        """Check for deleted instances and leftovers: each periodic task calls this, without the tracker's lock."""
        if self._vpmem is not None:
            self._release_deleted(self._vpmem)
            self._vpmem_leftovers.release_unneeded(self._vpmem_host)
            self._vpmem.background.start()
            self._vpmem_exports.remove_unneeded(self._vpmem_host)
            self._vpmem.pool.prune_history(CONF.vpmem.history_days)
        return super().get_available_resource(nodename)

    def init_host(self, host: str) -> None:
        super().init_host(host)
        self._vpmem_host = host
        if self._vpmem is not None:
            self._vpmem.background.stop.clear()
            takeover.take_over(self._vpmem, host, HostGuests(self._host))
            self._release_deleted(self._vpmem)
            self._vpmem.background.start()

    def cleanup_host(self, host: str) -> None:
        if self._vpmem is not None:
            self._vpmem.background.stop.set()
        super().cleanup_host(host)

    # The guest

    def _get_ordered_vpmem_resources(self, resources: typing.Any, flavor: objects.Flavor) -> list[objects.Resource]:
        """Sort resources in the order of the flavor. Labels are compared by resource class, not by spelling.

        Resources that the flavor does not request come last: after a resize that failed at its end, the flavor is the
        old one but the resources are the new ones.
        """
        left = self._get_vpmem_resources(resources)
        ordered = []
        for label in hardware.get_vpmems(flavor):
            wanted = model.resource_class(label)
            for resource in left:
                if resource.resource_class == wanted:
                    ordered.append(resource)
                    left.remove(resource)
                    break
        return [*ordered, *left]

    def _get_ordered_vpmems(self, instance: objects.Instance, flavor: objects.Flavor) -> Sequence[model.Grant]:
        """Claim the guest's namespaces: Nova calls this whenever it is about to define the guest."""
        resources = self._get_ordered_vpmem_resources(self._get_resources(instance), flavor)
        if self._vpmem is None or not resources:
            return ()
        names = [resource.identifier for resource in resources]
        self._stay_in_cell(instance)
        self._bring_back(instance, names)
        return self._vpmem.claim(
            instance,
            names,
            rebuilding=instance.task_state in REBUILDING and instance.host == self._vpmem_host,
        )

    def _get_vpmems(self, instance: objects.Instance, prefix: str | None = None) -> list:
        """Return the recorded namespaces. In-tree they are erased by name; see :meth:`_cleanup_vpmems`."""
        return self._get_vpmem_resources(self._get_resources(instance, prefix=prefix))

    def _cleanup_vpmems(self, vpmems: typing.Any) -> None:
        """Do nothing. In-tree this erases, even on paths where the guest returns. See :meth:`cleanup`."""

    def _guest_add_vpmems(self, guest: vconfig.LibvirtConfigGuest, vpmems: Sequence[model.Grant]) -> None:
        guest.max_memory_size = guest.memory
        guest.max_memory_slots = 0
        for grant in vpmems:
            try:
                device = guestxml.device_for(grant, node=_guest_node(guest, grant.numa_node))
            except exception.VPMEMError as error:
                raise nova_exception.InternalError(str(error)) from error
            config = GuestMemoryDevice(device)
            guest.max_memory_size += config.target_size
            guest.max_memory_slots += 1
            guest.add_device(config)

    # Operations on an instance

    def cleanup(  # noqa: PLR0917  the signature in Nova
        self,
        context: typing.Any,
        instance: objects.Instance,
        network_info: typing.Any,
        block_device_info: typing.Any = None,
        destroy_disks: bool = True,
        migrate_data: typing.Any = None,
        destroy_vifs: bool = True,
        destroy_secrets: bool = True,
    ) -> None:
        try:
            super().cleanup(
                context,
                instance,
                network_info,
                block_device_info=block_device_info,
                destroy_disks=destroy_disks,
                migrate_data=migrate_data,
                destroy_vifs=destroy_vifs,
                destroy_secrets=destroy_secrets,
            )
        finally:
            # Even if that failed: the guest is gone, and Nova may never call this again.
            with failures_logged(instance.uuid, "its persistent memory is unchanged"):
                self._after_cleanup(instance, destroy_disks=destroy_disks, migrate_data=migrate_data is not None)

    def confirm_migration(
        self, context: typing.Any, migration: typing.Any, instance: objects.Instance, network_info: typing.Any
    ) -> None:
        super().confirm_migration(context, migration, instance, network_info)
        if self._vpmem is not None:
            with failures_logged(instance.uuid, "its old persistent memory is not released"):
                here = instance.host == self._vpmem_host
                kept = self._get_vpmem_resources(self._get_resources(instance)) if here else ()
                self._vpmem.release_others(instance, [resource.identifier for resource in kept])

    def pre_live_migration(  # noqa: PLR0917  the signature in Nova
        self,
        context: typing.Any,
        instance: objects.Instance,
        block_device_info: typing.Any,
        network_info: typing.Any,
        disk_info: typing.Any,
        migrate_data: typing.Any,
    ) -> typing.Any:
        new = self._get_ordered_vpmem_resources(self._get_resources(instance, prefix="new_"), instance.flavor)
        _require_same_labels(instance, self._get_vpmem_resources(self._get_resources(instance)), new)
        if self._vpmem is not None and new:
            self._vpmem.starts.arrival_begins(instance.uuid)
            # The guest keeps its hardware; the source refuses to send any other.
            names = [resource.identifier for resource in new]
            self._vpmem.claim(instance, names, rebuilding=False, hardware=model.IN_TREE)
        return super().pre_live_migration(context, instance, block_device_info, network_info, disk_info, migrate_data)

    def _sorted_migrating_resources(self, instance: objects.Instance, flavor: objects.Flavor) -> typing.Any:
        """Return the replacement for each memory device of the guest's XML on the destination of a live migration.

        Nova indexes the list by position among *all* memory devices (migration._update_vpmems_xml). So each device is
        looked up by its path here, and a device of another kind gets a placeholder that Nova does not use.
        """
        if self._vpmem is None:
            return None
        new = self._get_ordered_vpmem_resources(self._get_resources(instance, prefix="new_"), flavor)
        old = self._get_ordered_vpmem_resources(self._get_resources(instance), flavor)
        _require_same_labels(instance, old, new)
        if not new:
            return None
        replacement: dict[str | None, objects.Resource] = {}
        for before, after in zip(old, new, strict=True):
            _require_same_device(instance, before, after)
            replacement |= dict.fromkeys(self._vpmem.paths(instance, before.identifier), after)
        memory = guestxml.memory_paths(self._host.get_guest(instance).get_xml_desc())
        if left := set(replacement.values()) - {replacement.get(path) for path in memory}:
            names = ", ".join(resource.identifier for resource in left)
            reason = f"the guest of instance {instance.uuid} has no device that {names} could replace"
            raise nova_exception.MigrationError(reason=reason)
        return objects.ResourceList(objects=[replacement.get(path, new[0]) for path in memory])

    # Helpers

    def _after_cleanup(self, instance: objects.Instance, *, destroy_disks: bool, migrate_data: bool) -> None:
        if self._vpmem is None:
            return
        action = on_cleanup(
            Cleanup(
                hard_reboot=self._is_rebooting(instance),
                migrate_data=migrate_data,
                task_state=instance.task_state,
                destroy_disks=destroy_disks,
                here=instance.host in {self._vpmem_host, None},
            )
        )
        LOG.debug("Instance %s: persistent memory after cleanup: %s", instance.uuid, action.value)
        if action in {Action.RELEASE, Action.RENEW}:
            self._stay_in_cell(instance)
        if action is Action.RENEW and instance.migration_context is not None:
            # A failed migration has left it, and Nova would use its resources as well as those of the instance.
            LOG.warning("Instance %s: dropping a stale migration context", instance.uuid)
            instance.drop_migration_context()
        # Read the record only if it matters: a release must work without Nova's database.
        names = self._vpmem_names(instance) if action in {Action.RENEW, Action.RELEASE_NAMED} else []
        if action is Action.RELEASE_NAMED:
            names += self._vpmem_names(instance, prefix="new_")  # between cells only the migration has a record
        self._vpmem.carry_out(action, instance, names)

    def _release_deleted(self, pool: HostPool) -> None:
        """Release what deleted instances hold that Nova deleted without calling this host.

        That happens while this host is down, and if a migration fails on the other host. An instance that still has a
        domain here is skipped: Nova's periodic task for deleted instances stops it, and then calls :meth:`cleanup`.
        """
        context = nova_context.get_admin_context()
        unknown = set()
        if owners := pool.owners():
            here = objects.InstanceList.get_by_host(context, self._vpmem_host, expected_attrs=[])
            for owner in owners - {instance.uuid for instance in here}:
                deleted = self._is_deleted(owner)
                if deleted is None:
                    unknown.add(owner)
                elif deleted:
                    pool.starts.release_absent(owner, HostGuests(self._host).uuids)
        self._report_unknown(pool, unknown)

    def _report_unknown(self, pool: HostPool, unknown: set[str]) -> None:
        """Log each owner that Nova does not know, once while that lasts.

        Nothing is released: the database may come from an old backup, or the owner may be a domain outside Nova.
        """
        for owner in unknown - self._vpmem_unknown:
            LOG.error(
                "Nova does not know instance %s, which holds %s on this host. They are kept. If the instance no longer "
                "exists, run 'vpmem release %s'",
                *(owner, ", ".join(pool.names(owner)), owner),
            )
        self._vpmem_unknown = unknown

    @staticmethod
    def _is_deleted(uuid: str) -> bool | None:
        """Whether the instance is deleted in Nova's database; None if the database does not contain it."""
        context = nova_context.get_admin_context().elevated(read_deleted="yes")
        try:
            return bool(objects.Instance.get_by_uuid(context, uuid, expected_attrs=[]).deleted)
        except nova_exception.InstanceNotFound:
            return None

    def _vpmem_names(self, instance: objects.Instance, prefix: str | None = None) -> list[str]:
        """Return the namespaces that Nova records for the instance; none if the record no longer exists.

        :param prefix: ``new_`` for the record of its migration
        """
        try:
            resources = self._get_vpmem_resources(self._get_resources(instance, prefix=prefix))
            return [resource.identifier for resource in resources]
        except (nova_exception.InstanceNotFound, nova_exception.OrphanedObjectError):
            return []


def _require_same_labels(
    instance: objects.Instance, old: Sequence[objects.Resource], new: Sequence[objects.Resource]
) -> None:
    """Verify that Nova has chosen a namespace on the destination for each device of the guest, with its label.

    After a resize that failed, Nova claims for a live migration by the flavor of that resize. A device without a
    replacement would keep its path, which is another instance's namespace on the destination.

    :raises MigrationError: it has not
    """
    request_specs.require_labels(instance, request_specs.labels_of(old), new, nova_exception.MigrationError)


def _require_same_device(instance: objects.Instance, before: objects.Resource, after: objects.Resource) -> None:
    """Verify that size and alignment are equal: otherwise libvirt refuses the migration, with a less clear message.

    :raises MigrationError: they differ
    """
    old, new = before.metadata, after.metadata
    if (old.size, old.align) != (new.size, new.align):
        reason = (
            f"namespace {old.name} of instance {instance.uuid} has {old.size} bytes and alignment {old.align}, but "
            f"{new.name} on the destination has {new.size} bytes and alignment {new.align}"
        )
        raise nova_exception.MigrationError(reason=reason)


def _guest_node(guest: vconfig.LibvirtConfigGuest, host_node: int | None) -> int:
    """Return the guest cell that is pinned to the namespace's host node; 0 if none is."""
    pinned = [
        (len(memnode.nodeset), memnode.cellid)
        for memnode in getattr(guest.numatune, "memnodes", ())
        if host_node in memnode.nodeset
    ]
    return min(pinned)[1] if pinned else 0
