"""Overrides of the methods that shelve a server and bring it back: the content of its memory, or a refusal."""

import enum
import logging
import typing

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.conf import CONF

from vpmem_driver import exception
from vpmem_driver.nova import exports, guests
from vpmem_driver.nova.host import HostPool

if typing.TYPE_CHECKING:
    from nova.virt.libvirt.driver import LibvirtDriver as _Driver
else:
    _Driver = object  # the next class in the bases of the driver

LOG = logging.getLogger(__name__)

ON_SHELVE = "vpmem:on_shelve"
DISCARD, EXPORT = "discard", "export"

_SHELVING = (task_states.SHELVING, task_states.SHELVING_OFFLOADING)


class Offloading(enum.Enum):
    """When Nova destroys a guest that it powers off to shelve it."""

    NOW = "now"
    #: it powers it off again before that
    AFTER_SNAPSHOT = "after the snapshot"


class ShelvingMixin(_Driver):
    """Overrides of LibvirtDriver."""

    _vpmem: HostPool | None
    _vpmem_exports: exports.Exports

    def power_off(self, instance: objects.Instance, timeout: int = 0, retry_interval: int = 0) -> None:
        """Refuse to offload a server whose memory has content, unless it is discarded, or exported here.

        Nova powers a server off before it takes a snapshot of it, and again before it offloads it. It destroys the
        guest and its memory only after the latter has succeeded. If this raises, Nova restores the state of the server.
        """
        offloading = self._vpmem_offloading(instance)
        if offloading is None:
            super().power_off(instance, timeout, retry_interval)
            return
        decision = self._vpmem_on_shelve(instance)
        if decision == EXPORT:
            self._require_room_to_export(instance)
        elif offloading is Offloading.NOW:
            self._vpmem_exports.forget(instance)
        was_running = guests.is_running(self, instance)
        super().power_off(instance, timeout, retry_interval)
        if offloading is Offloading.NOW and decision == EXPORT:
            self._export(instance, was_running=was_running)

    def _vpmem_offloading(self, instance: objects.Instance) -> "Offloading | None":
        """Return when Nova destroys the guest that it powers off; None if it does not, or it has no memory here.

        Nova takes no snapshot of a volume-backed server: it offloads it at once, also with task SHELVING
        (compute/api.py, shelve; Nova 31 to 34).
        """
        if instance.task_state not in _SHELVING or self._vpmem is None or not self._vpmem.held(instance):
            return None
        if instance.task_state == task_states.SHELVING_OFFLOADING:
            return Offloading.NOW
        if compute_utils.is_volume_backed_instance(nova_context.get_admin_context(), instance):
            return Offloading.NOW
        return Offloading.AFTER_SNAPSHOT if CONF.shelved_offload_time == 0 else None

    @staticmethod
    def _vpmem_on_shelve(instance: objects.Instance) -> str:
        """Return what offloading does with the content: discard or export.

        :raises InstancePowerOffFailure: it is refused
        """
        decision = str(instance.flavor.extra_specs.get(ON_SHELVE) or CONF.vpmem.on_shelve)
        if decision not in {DISCARD, EXPORT}:
            reason = (
                f"instance {instance.uuid} has persistent memory on this host, whose content would be lost. To shelve "
                f"it without that content, set the extra spec {ON_SHELVE}=discard of its flavor, or [vpmem] "
                f"on_shelve = discard. To keep the content in files, use export instead of discard"
            )
            raise nova_exception.InstancePowerOffFailure(reason=reason)
        return decision

    def _require_room_to_export(self, instance: objects.Instance) -> None:
        """Verify that the content can be exported. :raises InstancePowerOffFailure: it cannot."""
        try:
            self._vpmem_exports.require_room(instance)
        except exception.VPMEMError as error:
            raise nova_exception.InstancePowerOffFailure(reason=f"instance {instance.uuid}: {error}") from error

    def _export(self, instance: objects.Instance, *, was_running: bool) -> None:
        """Export the content. :raises InstancePowerOffFailure: that failed; the guest runs again if it ran."""
        try:
            self._vpmem_exports.export(instance)
        except Exception as error:
            LOG.exception("Instance %s: cannot export the content of its memory; it stays here", instance.uuid)
            if was_running and not guests.is_running(self, instance):
                self._host.get_guest(instance).launch()
            raise nova_exception.InstancePowerOffFailure(reason=f"instance {instance.uuid}: {error}") from error

    def _bring_back(self, instance: objects.Instance, names: list[str]) -> None:
        """Fill the namespaces of a server that is unshelved. :raises InternalError: that failed; its export is kept."""
        try:
            self._vpmem_exports.bring_back(instance, names)
        except exception.VPMEMError as error:
            raise nova_exception.InternalError(str(error)) from error
