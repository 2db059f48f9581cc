"""Overrides of the methods that move a guest to another cell: its memory goes with it, or the move is refused.

Nova moves a guest to another cell with other methods than within one. The source powers it off, takes a snapshot of its
disk and destroys it, but keeps its disks (compute/manager.py, _prep_snapshot_based_resize_at_source). Then the
destination spawns it. Each cell has its own record of the instance. If that fails, Nova deletes the record of the
destination's cell without asking the destination, which cannot know then that its copy is of no use. So the source
tells it so.
"""

import contextlib
import functools
import typing

from nova import exception as nova_exception
from nova import objects
from nova.compute import task_states, vm_states
from nova.virt import hardware

from vpmem_driver.nova import guests, moves
from vpmem_driver.nova.host import failures_logged
from vpmem_driver.nova.moves_mixin import MovesMixin


class CellsMixin(MovesMixin):
    """Overrides of LibvirtDriver."""

    # The source

    def power_off(self, instance: objects.Instance, timeout: int = 0, retry_interval: int = 0) -> None:
        """Copy the memory of a guest that moves to another cell, after it is off.

        If this raises, Nova ends the migration: the server is as before, and nothing was unplugged.
        """
        move = self._vpmem_cell_move(instance)
        if move is None:
            super().power_off(instance, timeout, retry_interval)
            return
        was_running = False
        try:
            was_running = guests.is_running(self, instance)
            super().power_off(instance, timeout, retry_interval)
            move.copy()
        except BaseException:
            move.cancel()
            if was_running:
                self._launch_again(instance)
            raise

    def snapshot(
        self, context: typing.Any, instance: objects.Instance, image_id: str, update_task_state: typing.Any
    ) -> None:
        """Take back the memory of a guest that moves to another cell if its disk cannot be copied."""
        try:
            super().snapshot(context, instance, image_id, update_task_state)
        except BaseException:
            if instance.task_state == task_states.RESIZE_MIGRATING and self._vpmem_departs(instance):
                self._stay_in_cell(instance)
                if instance.system_metadata.get("old_vm_state") == vm_states.ACTIVE:
                    self._launch_again(instance)
            raise

    def _vpmem_cell_move(self, instance: objects.Instance) -> moves.Move | None:
        """Prepare the copy to another cell. None if the instance does not move there, or its content is not copied.

        :raises MigrationPreCheckError: the content cannot be moved, and must not be lost; nothing was changed
        """
        if instance.task_state != task_states.RESIZE_MIGRATING or self._vpmem is None:
            return None
        migration = _cell_migration(instance)
        if migration is None:
            return None
        try:
            return self._vpmem_move(_context(instance), instance, migration.dest_host, instance.new_flavor)
        except nova_exception.InstanceFaultRollback as error:
            raise error.inner_exception from error

    def _launch_again(self, instance: objects.Instance) -> None:
        if not guests.is_running(self, instance):
            self._host.get_guest(instance).launch()

    def _vpmem_departs(self, instance: objects.Instance) -> set[str]:
        """Return the copies that take the content of the instance's memory away."""
        held = [] if self._vpmem is None else self._vpmem.pool.held(instance.uuid)
        return {row.departure for row in held if row.departure is not None}

    def _stay_in_cell(self, instance: objects.Instance) -> None:
        """End a move to another cell: the instance starts or ends here. Never raises.

        Do nothing if the instance is at the destination, or was brought back from it by Nova.
        """
        if self._vpmem is None or instance.task_state == task_states.RESIZE_REVERTING:
            return
        if instance.hidden or instance.host != self._vpmem_host:
            return
        with failures_logged(instance.uuid, "its destination in another cell may still hold a copy of its memory"):
            copies = self._vpmem_departs(instance)
            migration = _cell_migration(instance) if copies else None
            if migration is None:
                return
            connect = functools.partial(self._vpmem_connect, migration.dest_host)
            for copy in copies:
                sender = moves.sender(self._vpmem.pool, instance.uuid, copy, connect)
                moves.abandon(instance.uuid, sender.abandon)
            self._vpmem.pool.copies.stay(instance.uuid)

    # The destination

    def spawn(self, context: typing.Any, instance: objects.Instance, *args: typing.Any, **kwargs: typing.Any) -> None:
        """Set the resources of a guest that arrives from another cell, which Nova does not do."""
        if instance.task_state == task_states.RESIZE_FINISH:
            _set_resources(context, instance)
            if hardware.get_vpmems(instance.old_flavor):
                new = self._get_vpmem_resources(self._get_resources(instance))
                self._warn_of_lost_content(instance, instance.host, new)
        super().spawn(context, instance, *args, **kwargs)


def _set_resources(context: typing.Any, instance: objects.Instance) -> None:
    if instance.resources is None:
        with contextlib.suppress(nova_exception.MigrationContextNotFound):
            recorded = objects.MigrationContext.get_by_instance_uuid(context, instance.uuid)
            instance.resources = recorded.new_resources


def _cell_migration(instance: objects.Instance) -> objects.Migration | None:
    """Return the migration of the instance's migration context if its destination is in another cell."""
    if instance.migration_context is None:
        return None
    migration = objects.Migration.get_by_id(_context(instance), instance.migration_context.migration_id)
    return migration if migration.cross_cell_move else None


def _context(instance: objects.Instance) -> typing.Any:
    """Return the context of the request that the instance is part of, for methods that do not get it from Nova."""
    return instance._context  # noqa: SLF001  as Nova does
