"""Leftovers: namespaces held for an instance that is on another host, or that uses other namespaces now.

A migration that fails at its end, or a confirmation that raises, leaves them on the host that the instance has left.
Placement has no allocation for them. While something may still need them, they are kept and reserved in Placement. They
are released when Nova shows that the instance is active or stopped without them, or shelved and on no host. A host that
returns after its instance was evacuated has leftovers too, if the instance was shelved meanwhile.
"""

import logging
from collections.abc import Mapping, Sequence

from nova import objects

from vpmem_driver import hostpaths, model
from vpmem_driver.nova import instances
from vpmem_driver.nova.guests import HostGuests
from vpmem_driver.nova.host import HostPool, failures_logged

LOG = logging.getLogger(__name__)


class Leftovers:
    """The leftovers of one host."""

    def __init__(self, pool: HostPool, guests: HostGuests) -> None:
        self._pool = pool
        self._guests = guests
        #: the logged reason for keeping the leftovers of each owner
        self._logged: dict[str, str] = {}

    def release_unneeded(self, host: str) -> None:
        """Release the leftovers that nothing needs, and reserve the others in Placement. Never raises."""
        try:
            self._release_unneeded(host)
        except Exception:
            LOG.exception("Cannot check for leftovers of migrations; namespaces and Placement's reservations are kept")

    def _release_unneeded(self, host: str) -> None:
        # Read the pool before Nova: a namespace that is claimed in between is not a leftover.
        arrivals = self._pool.arrivals()
        held, unowned = self._pool.not_free()
        if not held and not unowned:
            self._pool.reserve(leftovers=(), allocated=())
            return
        nova = instances.HostInstances.read(host)
        kept, reasons = [], {}
        for owner, records in held.items():
            named = self._pool.named(nova.names(owner), records)
            left = [record for record in records if named is not None and record.uuid not in named]
            if not left:
                continue
            instance = nova.here.get(owner) or instances.find(owner)
            reason = self._reason_to_keep(instance, left, nova, fits=named is not None and None not in named)
            if reason is not None:
                reasons[owner] = reason
            if instance is None or reason is not None or not self._release(instance, left, arrivals):
                kept += left
        on_record = self._pool.named(nova.all_names(), unowned) or []
        self._pool.reserve(leftovers=kept, allocated=[record for record in unowned if record.uuid in on_record])
        self._log(reasons, kept)

    def _reason_to_keep(
        self,
        instance: objects.Instance | None,
        left: Sequence[model.Record],
        nova: instances.HostInstances,
        *,
        fits: bool,
    ) -> str | None:
        """Return why the instance may still need its leftovers, for the log; None if it does not.

        :param fits: Nova's record of the instance names only namespaces that it holds here
        """
        if instance is None:
            return "Nova does not know it"
        offloaded = instances.is_offloaded(instance)
        if not (offloaded or instances.is_settled(instance)):
            task = f" with task {instance.task_state}" if instance.task_state else ""
            return f"it is {instance.vm_state} on {instance.host or 'no host'}{task}"
        if instance.uuid in nova.here:
            if not fits:
                return "Nova records other namespaces for it"
            return "its guest uses them" if self._uses_any(instance, left) else None
        if not offloaded and instance.host in {nova.host, None}:
            return "it just moved to this host"
        return "its guest still runs on this host" if self._guests.runs(instance.uuid) else None

    def _uses_any(self, instance: objects.Instance, left: Sequence[model.Record]) -> bool:
        """Whether a device of the instance's guest leads to one of `left`, by its current or former path."""
        devices = [device for record in left if record.uuid for device in self._pool.paths(instance, record.uuid)]
        wanted = hostpaths.Wanted(devices)
        return any(wanted.reached_from(path) for path in self._guests.memory_paths(instance))

    def _release(self, instance: objects.Instance, left: Sequence[model.Record], arrivals: Mapping[str, str]) -> bool:
        """Release what the instance does not need, but nothing that a new copy has brought since Nova was asked.

        :param arrivals: see :meth:`.host.HostPool.arrivals`, from before that
        :returns: False if that failed
        """
        names = ", ".join(str(record.name) for record in left)
        with failures_logged(instance.uuid, f"cannot release {names}, which it does not need"):
            uuids = [record.uuid for record in left if record.uuid is not None]
            self._pool.abandon(instance, {arrivals[uuid] for uuid in uuids if uuid in arrivals})
            self._pool.release(instance, [uuid for uuid in uuids if uuid not in arrivals])
            LOG.warning("Released %s, which a migration left behind and instance %s does not use", names, instance.uuid)
            return True
        return False

    def _log(self, reasons: dict[str, str], kept: Sequence[model.Record]) -> None:
        """Log what is kept and why, once for each reason."""
        for owner, reason in reasons.items():
            if self._logged.get(owner) != reason:
                names = ", ".join(str(record.name) for record in kept if record.owner == owner)
                LOG.warning(
                    "Instance %s holds %s on this host without an allocation in Placement, because %s. Reserved in "
                    "Placement until the instance is active, stopped or offloaded without it, then released. To "
                    "release it now, run 'vpmem release %s'",
                    *(owner, names, reason, owner),
                )
        self._logged = reasons
