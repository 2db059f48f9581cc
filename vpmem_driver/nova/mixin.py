"""What the driver does where Nova's own handles persistent memory. Thin: decisions and the pool do the work.

Every method here overrides one of LibvirtDriver that has the same name and signature in Nova 31 to 34.
"""

import contextlib
import logging
import threading
import typing
from collections.abc import Iterator, Sequence

from lxml import etree
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.compute import task_states
from nova.conf import CONF
from nova.virt import hardware
from nova.virt.libvirt import config as vconfig

from vpmem_driver import exception, guestxml, model
from vpmem_driver.nova import installation, takeover
from vpmem_driver.nova.decisions import REBUILDING, Action, Cleanup, on_cleanup
from vpmem_driver.nova.guests import HostGuests
from vpmem_driver.nova.host import HostPool, failures_logged
from vpmem_driver.nova.instances import HostInstances
from vpmem_driver.nova.leftovers import Leftovers
from vpmem_driver.nova.starts_mixin import StartsMixin

LOG = logging.getLogger(__name__)


class VPMEMDriverMixin(StartsMixin):
    """To be put before LibvirtDriver."""

    #: set by _discover_vpmems, which LibvirtDriver.__init__ calls; None while there is no persistent memory
    _vpmem: HostPool | None = None

    def __init__(self, *args: typing.Any, **kwargs: typing.Any) -> None:
        # Whose guest is being made anew right now: destroy() is a part of that. Per thread, as Nova handles one
        # instance's operation in one thread.
        self._vpmem_rebooting = threading.local()
        self._vpmem_host = CONF.host
        #: owners that Nova did not know when they were last looked for
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
        """Asked for by each periodic run, and not under the resource tracker's lock: the time to look for leftovers."""
        if self._vpmem is not None:
            self._release_deleted(self._vpmem)
            self._vpmem_leftovers.settle(self._vpmem_host)
            self._vpmem.background.start()
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
        """In the order of the flavor; labels are compared by resource class, not by spelling.

        What the record has and the flavor does not ask for comes last: after a resize that failed at its end the flavor
        is the old one, and the resources are the new ones.
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
        """Asked for whenever the guest is about to be defined: here it gets what it is to have."""
        resources = self._get_ordered_vpmem_resources(self._get_resources(instance), flavor)
        if self._vpmem is None or not resources:
            return ()
        return self._vpmem.claim(
            instance,
            [resource.identifier for resource in resources],
            rebuilding=instance.task_state in REBUILDING and instance.host == self._vpmem_host,
        )

    def _get_vpmems(self, instance: objects.Instance, prefix: str | None = None) -> list:
        """In-tree this is asked for what to erase, and whether there is any. Nothing is erased by name here."""
        return self._get_vpmem_resources(self._get_resources(instance, prefix=prefix))

    def _cleanup_vpmems(self, vpmems: typing.Any) -> None:
        """Nothing: in-tree this erases, on paths where the guest comes back too. See :meth:`cleanup`."""

    def _guest_add_vpmems(self, guest: vconfig.LibvirtConfigGuest, vpmems: Sequence[model.Grant]) -> None:
        guest.max_memory_size = guest.memory
        guest.max_memory_slots = 0
        for grant in vpmems:
            try:
                device = guestxml.device_for(grant, node=_guest_node(guest, grant.numa_node))
            except exception.VPMEMError as error:
                raise nova_exception.InternalError(str(error)) from error
            config = vconfig.LibvirtConfigGuestVPMEM()
            config.source_path = device.path
            config.align_size = (device.align or 0) // guestxml.KIB
            config.pmem = device.pmem
            config.target_size = device.size // guestxml.KIB
            config.target_node = device.node
            config.label_size = (device.label_size or 0) // guestxml.KIB
            guest.max_memory_size += config.target_size
            guest.max_memory_slots += 1
            guest.add_device(config)

    # The paths of an instance

    def spawn(  # noqa: PLR0917  as Nova has it
        self,
        context: typing.Any,
        instance: objects.Instance,
        image_meta: typing.Any,
        injected_files: typing.Any,
        admin_password: typing.Any,
        allocations: typing.Any,
        network_info: typing.Any = None,
        block_device_info: typing.Any = None,
        power_on: bool = True,
        accel_info: typing.Any = None,
    ) -> None:
        with self._giving_back_what_fails(context, instance):
            super().spawn(
                context,
                instance,
                image_meta,
                injected_files,
                admin_password,
                allocations,
                network_info=network_info,
                block_device_info=block_device_info,
                power_on=power_on,
                accel_info=accel_info,
            )

    def _hard_reboot(
        self, context: typing.Any, instance: objects.Instance, *args: typing.Any, **kwargs: typing.Any
    ) -> typing.Any:
        with self._rebooting(instance):
            return super()._hard_reboot(context, instance, *args, **kwargs)

    def cleanup(  # noqa: PLR0917  as Nova has it
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
            # Also when that failed: the guest is gone, and Nova may never ask again.
            with failures_logged(instance.uuid, "its persistent memory stays as it is"):
                self._after_cleanup(instance, destroy_disks=destroy_disks, migrate_data=migrate_data is not None)

    def confirm_migration(
        self, context: typing.Any, migration: typing.Any, instance: objects.Instance, network_info: typing.Any
    ) -> None:
        super().confirm_migration(context, migration, instance, network_info)
        if self._vpmem is not None:
            with failures_logged(instance.uuid, "its old persistent memory stays as it is"):
                here = instance.host == self._vpmem_host
                kept = self._get_vpmem_resources(self._get_resources(instance)) if here else ()
                self._vpmem.release_others(instance, [resource.identifier for resource in kept])

    def pre_live_migration(  # noqa: PLR0917  as Nova has it
        self,
        context: typing.Any,
        instance: objects.Instance,
        block_device_info: typing.Any,
        network_info: typing.Any,
        disk_info: typing.Any,
        migrate_data: typing.Any,
    ) -> typing.Any:
        if self._vpmem is not None:
            new = self._get_ordered_vpmem_resources(self._get_resources(instance, prefix="new_"), instance.flavor)
            if new:
                self._vpmem.starts.arrives(instance.uuid)
                self._vpmem.claim(instance, [resource.identifier for resource in new], rebuilding=False)
        return super().pre_live_migration(context, instance, block_device_info, network_info, disk_info, migrate_data)

    def _sorted_migrating_resources(self, instance: objects.Instance, flavor: objects.Flavor) -> typing.Any:
        """What takes the place of each memory device of the guest's XML on the destination of a live migration.

        In-tree the list is used by position among *all* memory devices (migration._update_vpmems_xml), so it is made
        that way here: each device is found by its path, and one that is not ours gets a place that Nova does not use.
        """
        new = self._get_ordered_vpmem_resources(self._get_resources(instance, prefix="new_"), flavor)
        if not new or self._vpmem is None:
            return None
        old = self._get_ordered_vpmem_resources(self._get_resources(instance), flavor)
        replacement: dict[str | None, objects.Resource] = {}
        for before, after in zip(old, new, strict=True):
            _require_same_device(instance, before, after)
            replacement |= dict.fromkeys(self._vpmem.paths(instance, before.identifier), after)
        domain = etree.fromstring(self._host.get_guest(instance).get_xml_desc())
        memory = [device.findtext("source/path") for device in domain.iterfind("devices/memory")]
        if left := set(replacement.values()) - {replacement.get(path) for path in memory}:
            names = ", ".join(resource.identifier for resource in left)
            reason = f"the guest of instance {instance.uuid} has no device that {names} could take the place of"
            raise nova_exception.MigrationError(reason=reason)
        return objects.ResourceList(objects=[replacement.get(path, new[0]) for path in memory])

    # Inside

    @contextlib.contextmanager
    def _giving_back_what_fails(self, context: typing.Any, instance: objects.Instance) -> Iterator[None]:
        """Evacuation and unshelving do not clean up after a spawn that failed: what is new to it goes back here."""
        if self._vpmem is None:
            yield
            return
        before = self._vpmem.held(instance)
        try:
            _complete(context, instance)
            yield
        except BaseException:
            with failures_logged(instance.uuid, "what it was given for this start stays with it"):
                self._vpmem.release(instance, self._vpmem.held(instance) - before)
            raise

    @contextlib.contextmanager
    def _rebooting(self, instance: objects.Instance) -> Iterator[None]:
        self._vpmem_rebooting.uuid = instance.uuid
        try:
            yield
        finally:
            self._vpmem_rebooting.uuid = None

    def _after_cleanup(self, instance: objects.Instance, *, destroy_disks: bool, migrate_data: bool) -> None:
        if self._vpmem is None:
            return
        action = on_cleanup(
            Cleanup(
                hard_reboot=getattr(self._vpmem_rebooting, "uuid", None) == instance.uuid,
                migrate_data=migrate_data,
                task_state=instance.task_state,
                destroy_disks=destroy_disks,
                here=instance.host in {self._vpmem_host, None},
            )
        )
        LOG.debug("Instance %s: persistent memory after clean-up: %s", instance.uuid, action.value)
        if action is Action.RENEW and instance.migration_context is not None:
            # A migration that failed has left it; Nova would take the instance's resources from it, twice.
            LOG.warning("Instance %s: a stale migration context is dropped", instance.uuid)
            instance.drop_migration_context()
        # Only where it matters: without Nova's database what is held can be released all the same.
        names = self._vpmem_names(instance) if action in {Action.RENEW, Action.RELEASE_NAMED} else []
        if action is Action.RELEASE_NAMED:
            names += self._vpmem_names(instance, prefix="new_")  # between cells the record itself is empty
        self._vpmem.carry_out(action, instance, names)

    def _release_deleted(self, pool: HostPool) -> None:
        """Release what instances hold that Nova has deleted without asking this host.

        Unless their domain is still here: Nova's reaper ends it, and asks. It happens while this host is down, and when
        a migration that involves it goes wrong on the other host.
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
        """Log each owner that Nova does not know, once while it stays so.

        It is not released: the database may be restored from a backup, or this may be a domain that is not Nova's.
        """
        for owner in unknown - self._vpmem_unknown:
            LOG.error(
                "Nova does not know instance %s, which holds %s on this host. They are kept. If it is gone for good, "
                "release them: 'vpmem release %s'",
                *(owner, ", ".join(pool.names(owner)), owner),
            )
        self._vpmem_unknown = unknown

    @staticmethod
    def _is_deleted(uuid: str) -> bool | None:
        """Whether Nova's database says that the instance is deleted; None when it does not have the instance."""
        context = nova_context.get_admin_context().elevated(read_deleted="yes")
        try:
            return bool(objects.Instance.get_by_uuid(context, uuid, expected_attrs=[]).deleted)
        except nova_exception.InstanceNotFound:
            return None

    def _vpmem_names(self, instance: objects.Instance, prefix: str | None = None) -> list[str]:
        """The namespaces that the instance's record names; none when it has no record any more.

        :param prefix: ``new_`` for the record of its migration
        """
        try:
            resources = self._get_vpmem_resources(self._get_resources(instance, prefix=prefix))
            return [resource.identifier for resource in resources]
        except (nova_exception.InstanceNotFound, nova_exception.OrphanedObjectError):
            return []


def _complete(context: typing.Any, instance: objects.Instance) -> None:
    """Give an instance that comes from another cell what was claimed for it here: Nova leaves that out."""
    if instance.task_state != task_states.RESIZE_FINISH or instance.resources is not None:
        return
    try:
        migration = objects.MigrationContext.get_by_instance_uuid(context, instance.uuid)
    except nova_exception.MigrationContextNotFound:
        return
    instance.resources = migration.new_resources


def _require_same_device(instance: objects.Instance, before: objects.Resource, after: objects.Resource) -> None:
    """Libvirt refuses to migrate to a device of another size or alignment, and says less about it."""
    old, new = before.metadata, after.metadata
    if (old.size, old.align) != (new.size, new.align):
        reason = (
            f"instance {instance.uuid} has {old.name}, of {old.size} bytes aligned to {old.align}; the destination's "
            f"{new.name} has {new.size} bytes aligned to {new.align}"
        )
        raise nova_exception.MigrationError(reason=reason)


def _guest_node(guest: vconfig.LibvirtConfigGuest, host_node: int | None) -> int:
    """The guest cell that is pinned to the namespace's host node; 0 when none is."""
    pinned = [
        (len(memnode.nodeset), memnode.cellid)
        for memnode in getattr(guest.numatune, "memnodes", ())
        if host_node in memnode.nodeset
    ]
    return min(pinned)[1] if pinned else 0
