"""Overrides of the methods that start a guest: no guest starts on a device that its instance does not hold."""

import contextlib
import threading
import typing
from collections.abc import Iterator

from nova import exception as nova_exception
from nova import objects
from nova.compute import task_states

from vpmem_driver import guestxml
from vpmem_driver.nova import request_specs
from vpmem_driver.nova.decisions import REBUILDING
from vpmem_driver.nova.host import HostPool, failures_logged

if typing.TYPE_CHECKING:
    from nova.virt.libvirt.driver import LibvirtDriver as _Driver
else:
    _Driver = object  # the next class in the bases of the driver


class StartsMixin(_Driver):
    """Overrides of the methods of LibvirtDriver that start a guest. All of them call ``_create_guest``."""

    _vpmem: HostPool | None
    _vpmem_host: str

    def __init__(self, *args: typing.Any, **kwargs: typing.Any) -> None:
        # The uuid of the instance in a hard reboot, of which cleanup() is a part. Per thread, because Nova runs the
        # operation of an instance in one thread.
        self._vpmem_rebooting = threading.local()
        super().__init__(*args, **kwargs)

    def spawn(self, context: typing.Any, instance: objects.Instance, *args: typing.Any, **kwargs: typing.Any) -> None:
        """Start a guest on a host that it has not been on, or after a rebuild; then with what the ledger has for it."""
        with self._releasing_on_failure(instance), self._starting(instance):
            if not (instance.task_state in REBUILDING and instance.host == self._vpmem_host):
                request_specs.require_flavor(instance, self._get_vpmem_resources(self._get_resources(instance)))
            super().spawn(context, instance, *args, **kwargs)

    def resume(self, context: typing.Any, instance: objects.Instance, *args: typing.Any, **kwargs: typing.Any) -> None:
        with self._starting(instance):
            super().resume(context, instance, *args, **kwargs)

    def rescue(self, context: typing.Any, instance: objects.Instance, *args: typing.Any, **kwargs: typing.Any) -> None:
        with self._starting(instance):
            super().rescue(context, instance, *args, **kwargs)

    def unrescue(self, context: typing.Any, instance: objects.Instance) -> None:
        with self._starting(instance):
            super().unrescue(context, instance)

    def finish_migration(
        self,
        context: typing.Any,
        migration: typing.Any,
        instance: objects.Instance,
        *args: typing.Any,
        **kwargs: typing.Any,
    ) -> None:
        with self._starting(instance):
            super().finish_migration(context, migration, instance, *args, **kwargs)

    def finish_revert_migration(
        self, context: typing.Any, instance: objects.Instance, *args: typing.Any, **kwargs: typing.Any
    ) -> None:
        with self._starting(instance):
            super().finish_revert_migration(context, instance, *args, **kwargs)

    def _hard_reboot(
        self, context: typing.Any, instance: objects.Instance, *args: typing.Any, **kwargs: typing.Any
    ) -> typing.Any:
        with self._rebooting(instance), self._starting(instance):
            return super()._hard_reboot(context, instance, *args, **kwargs)

    def _create_guest(
        self, context: typing.Any, xml: str, instance: objects.Instance, *args: typing.Any, **kwargs: typing.Any
    ) -> typing.Any:
        """Define and start the guest if the instance holds all of its namespaces. Stop it if that is no longer true."""
        paths = [] if self._vpmem is None else [path for path in guestxml.memory_paths(xml) if path is not None]
        self._require_claims(instance, paths)
        guest = super()._create_guest(context, xml, instance, *args, **kwargs)
        try:
            self._require_claims(instance, paths)
        except nova_exception.InstancePowerOnFailure:
            self._destroy(instance)
            raise
        return guest

    @contextlib.contextmanager
    def _starting(self, instance: objects.Instance) -> Iterator[None]:
        if self._vpmem is None:
            yield
            return
        with self._vpmem.starts.start(instance.uuid):
            try:
                yield
            finally:
                if self._vpmem.starts.is_postponed(instance.uuid):
                    # The thread that deletes the instance may have searched for its guest before it existed.
                    self._destroy(instance)

    @contextlib.contextmanager
    def _releasing_on_failure(self, instance: objects.Instance) -> Iterator[None]:
        """Release new namespaces if a spawn fails: Nova does not clean up after a failed evacuation or unshelve.

        What a copy from another cell has brought is new, too.
        """
        if self._vpmem is None:
            yield
            return
        arrives = instance.task_state == task_states.RESIZE_FINISH
        before = frozenset() if arrives else self._vpmem.held(instance)
        try:
            yield
        except BaseException:
            with failures_logged(instance.uuid, "it keeps the persistent memory that was claimed for this start"):
                self._vpmem.release(instance, self._vpmem.held(instance) - before)
            raise

    @contextlib.contextmanager
    def _rebooting(self, instance: objects.Instance) -> Iterator[None]:
        self._vpmem_rebooting.uuid = instance.uuid
        try:
            yield
        finally:
            self._vpmem_rebooting.uuid = None

    def _is_rebooting(self, instance: objects.Instance) -> bool:
        """Whether this thread is in a hard reboot of the instance."""
        return getattr(self._vpmem_rebooting, "uuid", None) == instance.uuid

    def _require_claims(self, instance: objects.Instance, paths: list[str]) -> None:
        """Verify that the instance holds every device of its guest.

        :raises InstancePowerOnFailure: it does not hold one, or it is being deleted
        """
        if self._vpmem is None or not paths:
            return
        if self._vpmem.starts.is_postponed(instance.uuid):
            raise nova_exception.InstancePowerOnFailure(reason=f"instance {instance.uuid} is being deleted")
        lost = self._vpmem.not_held(instance, paths)
        if lost:
            reason = (
                f"instance {instance.uuid} does not hold {', '.join(lost)}, which its guest would use. "
                "Reboot it hard to claim its namespaces again"
            )
            raise nova_exception.InstancePowerOnFailure(reason=reason)
