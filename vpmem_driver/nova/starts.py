"""The guests that are being started on this host: what they hold is not released meanwhile.

Nova deletes an instance while it is started: terminate_instance takes a lock that start_instance and finish_resize do
not, and a server whose host is down is deleted without its destination (compute/manager.py, compute/api.py; Nova 31 to
34). Released between its claim and its start, a namespace would be wiped and given to another guest as well.
"""

import collections
import contextlib
import logging
import threading
import typing
from collections.abc import Callable, Collection, Iterator

from nova import exception as nova_exception
from nova import objects

from vpmem_driver.nova import guests

if typing.TYPE_CHECKING:
    from nova.virt.libvirt.driver import LibvirtDriver as _Driver

    from vpmem_driver.nova.host import HostPool
else:
    _Driver = object  # whatever comes next in the class's bases

LOG = logging.getLogger(__name__)


class Starts:
    """The owners whose guests are being started, and those whose release waits for the end of that."""

    def __init__(self, release: Callable[[str], None]) -> None:
        """`release` releases all that an owner holds. It is called under a lock, so that no start begins meanwhile."""
        self._release = release
        self._lock = threading.Lock()
        self._starts: collections.Counter[str] = collections.Counter()
        self._arriving: set[str] = set()
        self._postponed: set[str] = set()

    @contextlib.contextmanager
    def start(self, owner: str) -> Iterator[None]:
        """A guest of `owner` is started inside. A release that is postponed meanwhile happens at the end."""
        with self._lock:
            self._starts[owner] += 1
        try:
            yield
        finally:
            with self._lock:
                self._starts[owner] -= 1
                if not self._starts[owner]:
                    del self._starts[owner]
                    if owner in self._postponed:
                        self._postponed.discard(owner)
                        self._release(owner)

    def arrives(self, owner: str) -> None:
        """A live migration brings a guest of `owner`. Ends with :meth:`leaves`, or with the service."""
        with self._lock:
            self._arriving.add(owner)

    def leaves(self, owner: str) -> None:
        """Nova has cleaned up after the guest of `owner`, whether it arrived or not."""
        with self._lock:
            self._arriving.discard(owner)

    def release(self, owner: str) -> None:
        """Release what `owner` holds; at the end of its start if it is being started."""
        with self._lock:
            if owner in self._starts:
                LOG.warning("Instance %s is being started: its namespaces are released when that has ended", owner)
                self._postponed.add(owner)
            else:
                self._release(owner)

    def release_absent(self, owner: str, domains: Callable[[], Collection[str]]) -> None:
        """Release what `owner` holds, unless its guest is here, is being started or is on its way here.

        :param domains: returns the owners whose domain is here
        """
        with self._lock:
            if owner not in self._starts and owner not in self._arriving and owner not in domains():
                LOG.warning("Instance %s is deleted: what it still has on this host is released", owner)
                self._release(owner)

    def is_postponed(self, owner: str) -> bool:
        """Whether a release waits for the end of the start."""
        with self._lock:
            return owner in self._postponed


class StartsMixin(_Driver):
    """The methods of LibvirtDriver that start a guest. All of them do it with ``_create_guest``."""

    _vpmem: "HostPool | None"

    def spawn(self, context: typing.Any, instance: objects.Instance, *args: typing.Any, **kwargs: typing.Any) -> None:
        with self._starting(instance):
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
        with self._starting(instance):
            return super()._hard_reboot(context, instance, *args, **kwargs)

    def _create_guest(
        self, context: typing.Any, xml: str, instance: objects.Instance, *args: typing.Any, **kwargs: typing.Any
    ) -> typing.Any:
        """Define and start the guest, if the instance holds all of its namespaces before and after."""
        paths = [] if self._vpmem is None else guests.memory_paths(xml)
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
                    # The thread that deletes the instance may have looked for its guest before there was one.
                    self._destroy(instance)

    def _require_claims(self, instance: objects.Instance, paths: list[str]) -> None:
        """Refuse to start a guest on a device that the instance does not hold.

        :raises InstancePowerOnFailure: it does not
        """
        if self._vpmem is None or not paths:
            return
        if self._vpmem.starts.is_postponed(instance.uuid):
            raise nova_exception.InstancePowerOnFailure(reason=f"instance {instance.uuid} is being deleted")
        lost = self._vpmem.not_held(instance, paths)
        if lost:
            reason = (
                f"instance {instance.uuid} does not hold {', '.join(lost)}, which its guest would use; "
                "a hard reboot claims its namespaces again"
            )
            raise nova_exception.InstancePowerOnFailure(reason=reason)
