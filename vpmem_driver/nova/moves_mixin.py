"""Overrides of the methods that take a guest away from this host: its memory goes with it, or they are refused."""

import contextlib
import functools
import logging
import shlex
import threading
import typing
from collections.abc import Iterator, Sequence

from nova import exception as nova_exception
from nova import objects
from nova.conf import CONF
from nova.virt.libvirt import utils as libvirt_utils
from oslo_concurrency import processutils

from vpmem_driver import exception
from vpmem_driver.nova import eventlet_poll, guests, moves, request_specs
from vpmem_driver.nova.host import HostPool
from vpmem_driver.transfer.connection import Connection, ProcessConnection, ssh_command

if typing.TYPE_CHECKING:
    from nova.virt.libvirt.driver import LibvirtDriver as _Driver
else:
    _Driver = object  # the next class in the bases of the driver

LOG = logging.getLogger(__name__)


class MovesMixin(_Driver):
    """Overrides of LibvirtDriver."""

    _vpmem: HostPool | None
    _vpmem_host: str

    def __init__(self, *args: typing.Any, **kwargs: typing.Any) -> None:
        # The move that the thread is in, of which power_off() is a part.
        self._vpmem_moving = threading.local()
        super().__init__(*args, **kwargs)

    def migrate_disk_and_power_off(  # noqa: PLR0917  the signature in Nova
        self,
        context: typing.Any,
        instance: objects.Instance,
        dest: str,
        flavor: objects.Flavor,
        network_info: typing.Any,
        block_device_info: typing.Any = None,
        timeout: int = 0,
        retry_interval: int = 0,
    ) -> typing.Any:
        """Copy the memory too, in :meth:`power_off`.

        Nova's method checks first, then powers the guest off, and only then renames the instance's directory and copies
        disks. So a copy at the end of its power_off() comes after all checks, while the guest cannot write, and if it
        fails, nothing has been renamed or unplugged.
        """
        migrate = functools.partial(
            super().migrate_disk_and_power_off,
            *(context, instance, dest, flavor, network_info),
            block_device_info=block_device_info,
            timeout=timeout,
            retry_interval=retry_interval,
        )
        with request_specs.restoring(instance, flavor):
            move = self._vpmem_move(context, instance, dest, flavor)
            if move is None:
                return migrate()
            was_running = False
            try:
                was_running = guests.is_running(self, instance)
                with self._moving(move):
                    return migrate()
            except nova_exception.InstanceFaultRollback:
                self._vpmem_cancel(move, dest)
                raise
            except Exception as error:
                LOG.exception("Instance %s: its migration failed; it stays here", instance.uuid)
                self._vpmem_cancel(move, dest)
                if was_running:
                    self.power_on(context, instance, network_info, block_device_info)
                raise nova_exception.InstanceFaultRollback(inner_exception=_for_nova(instance, error)) from error

    def check_can_live_migrate_source(
        self,
        context: typing.Any,
        instance: objects.Instance,
        dest_check_data: typing.Any,
        block_device_info: typing.Any = None,
    ) -> typing.Any:
        """Refuse what QEMU does not carry, before anything is changed on either host."""
        if self._vpmem is not None:
            moves.require_live_migratable(instance, self._vpmem.pool.held(instance.uuid))
        return super().check_can_live_migrate_source(context, instance, dest_check_data, block_device_info)

    def finish_migration(
        self,
        context: typing.Any,
        migration: typing.Any,
        instance: objects.Instance,
        *args: typing.Any,
        **kwargs: typing.Any,
    ) -> None:
        if self._get_vpmem_resources(self._get_resources(instance, prefix="old_")):
            new = self._get_vpmem_resources(self._get_resources(instance, prefix="new_"))
            self._warn_of_lost_content(instance, migration.source_compute, new)
        super().finish_migration(context, migration, instance, *args, **kwargs)

    def power_off(self, instance: objects.Instance, timeout: int = 0, retry_interval: int = 0) -> None:
        super().power_off(instance, timeout, retry_interval)
        move: moves.Move | None = getattr(self._vpmem_moving, "move", None)
        if move is not None and move.instance.uuid == instance.uuid:
            move.copy()

    def _vpmem_move(
        self, context: typing.Any, instance: objects.Instance, dest: str, flavor: objects.Flavor
    ) -> moves.Move | None:
        """Prepare the copy of the instance's memory. None if it has none, or its content is to be discarded.

        :raises InstanceFaultRollback: the content cannot be moved, and must not be lost; nothing was changed
        """
        if self._vpmem is None:
            return None
        old = self._get_ordered_vpmem_resources(self._get_resources(instance), instance.flavor)
        decision = moves.on_move(flavor)
        if not old:
            return None
        if decision == moves.DISCARD:
            LOG.info(
                "Instance %s moves without the content of its persistent memory, as its flavor or [vpmem] on_move says",
                instance.uuid,
            )
            return None
        if not self._vpmem.held(instance):
            LOG.warning("Instance %s holds no persistent memory on this host: there is nothing to copy", instance.uuid)
            return None
        try:
            if decision == moves.REFUSE:
                raise moves.refused(instance, "a server with persistent memory is not moved")
            new = self._get_ordered_vpmem_resources(self._get_resources(instance, prefix="new_"), flavor)
            migration = objects.Migration.get_by_id(context, instance.migration_context.migration_id)
            connect = None
            if migration.dest_compute != self._vpmem_host:
                connect = functools.partial(self._vpmem_connect, dest)
            move = moves.Move(self._vpmem.pool, instance, moves.pairs(instance, old, new), connect)
            move.prepare()
        except exception.VPMEMError as error:
            raise nova_exception.InstanceFaultRollback(inner_exception=moves.refused(instance, str(error))) from error
        except nova_exception.MigrationPreCheckError as error:
            raise nova_exception.InstanceFaultRollback(inner_exception=error) from error
        return move

    def _vpmem_connect(self, dest: str) -> Connection:
        """Connect to the destination of a migration, as Nova's own copies of disks do."""
        words = shlex.split(CONF.vpmem.receive_command)
        return ProcessConnection(
            dest, ssh_command(CONF.vpmem.ssh_command, dest, *words), wait=eventlet_poll.wait_here()
        )

    def _vpmem_cancel(self, move: moves.Move, dest: str) -> None:
        """Cancel a move, and remove the empty directory that Nova has made at the destination. Never raises.

        Nova removes it only if a disk could not be copied. On shared storage it is the instance's own.
        """
        move.cancel()
        path = libvirt_utils.get_instance_path(move.instance)
        try:
            if move.is_remote and not self._is_path_shared_with(dest, path):
                # rmdir fails if there is anything in it.
                processutils.execute(*ssh_command(CONF.vpmem.ssh_command, dest, "rmdir", shlex.quote(path)))
        except Exception as error:  # noqa: BLE001  the next migration to that host finds and uses it
            LOG.debug("Instance %s: %s on %s is not removed: %s", move.instance.uuid, path, dest, error)

    def _warn_of_lost_content(self, instance: objects.Instance, source: str, new: Sequence[objects.Resource]) -> None:
        """Log that content has not arrived although it should.

        :param source: the host that the instance, which had persistent memory there, comes from
        :param new: the namespaces that Nova has claimed here
        """
        if self._vpmem is None or moves.on_move(instance.flavor) == moves.DISCARD:
            return
        if self._vpmem.without_claim(instance, new):
            LOG.warning(
                "Instance %s: the content of its persistent memory has not arrived from %s, which may not run this "
                "driver. It starts with empty memory. To return to the content, revert the migration",
                *(instance.uuid, source),
            )

    @contextlib.contextmanager
    def _moving(self, move: moves.Move) -> Iterator[None]:
        self._vpmem_moving.move = move
        try:
            yield
        finally:
            self._vpmem_moving.move = None


def _for_nova(instance: objects.Instance, error: Exception) -> Exception:
    """Return the fault of the server: an error of Nova's, whose text its user sees."""
    if isinstance(error, exception.VPMEMError):
        return nova_exception.MigrationError(reason=f"instance {instance.uuid}: {error}")
    return error
