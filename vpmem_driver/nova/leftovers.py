"""What the ledger of a host has for instances that live elsewhere, or have other memory by now.

A migration that fails at its end, or a confirmation that raises, leaves such namespaces on the host that the instance
has left. Placement has no allocation for them. They are kept as long as it is in doubt whether anything needs them, and
reserved in Placement; once Nova says that the instance is well without them, they are given back.
"""

import logging
from collections.abc import Sequence

from nova import objects

from vpmem_driver import hostpaths, model
from vpmem_driver.nova import instances
from vpmem_driver.nova.guests import HostGuests
from vpmem_driver.nova.host import HostPool, failures_logged

LOG = logging.getLogger(__name__)


class Leftovers:
    """Those of one host."""

    def __init__(self, pool: HostPool, guests: HostGuests) -> None:
        self._pool = pool
        self._guests = guests
        #: why what each owner has is kept, as it was logged
        self._doubts: dict[str, str] = {}

    def settle(self, host: str) -> None:
        """Give back what nothing needs, and have the rest reserved in Placement. Never raises."""
        try:
            self._settle(host)
        except Exception:
            LOG.exception("What instances have left behind is kept, and Placement's reservations stay as they are")

    def _settle(self, host: str) -> None:
        # Before Nova is asked: what an instance claims in between is no leftover.
        held, unowned = self._pool.not_free()
        if not held and not unowned:
            self._pool.reserve(leftovers=(), allocated=())
            return
        nova = instances.HostInstances.read(host)
        kept, doubts = [], {}
        for owner, records in held.items():
            named = self._pool.named(nova.names(owner), records)
            left = [record for record in records if named is not None and record.uuid not in named]
            if not left:
                continue
            instance = nova.here.get(owner) or instances.find(owner)
            doubt = self._doubt(instance, left, nova, fits=named is not None and None not in named)
            if doubt is not None:
                doubts[owner] = doubt
            if instance is None or doubt is not None or not self._give_back(instance, left):
                kept += left
        on_record = self._pool.named(nova.all_names(), unowned) or []
        self._pool.reserve(leftovers=kept, allocated=[record for record in unowned if record.uuid in on_record])
        self._log(doubts, kept)

    def _doubt(
        self,
        instance: objects.Instance | None,
        left: Sequence[model.Record],
        nova: instances.HostInstances,
        *,
        fits: bool,
    ) -> str | None:
        """Why the instance may need what it has left behind, in words; None when it does not.

        :param fits: Nova's record of the instance names only what it has here
        """
        if instance is None:
            return "Nova does not know it"
        if not instances.is_well(instance):
            task = f" with the task {instance.task_state}" if instance.task_state else ""
            return f"it is {instance.vm_state} on {instance.host or 'no host'}{task}"
        if instance.uuid in nova.here:
            if not fits:
                return "Nova has other namespaces on record for it"
            return "its guest has it" if self._has_any(instance, left) else None
        if instance.host in {nova.host, None}:
            return "it came to this host a moment ago"
        return "its guest still runs on this host" if self._guests.runs(instance.uuid) else None

    def _has_any(self, instance: objects.Instance, left: Sequence[model.Record]) -> bool:
        """Whether the guest of `instance` has a device that leads to one of `left`, or once did."""
        devices = [device for record in left if record.uuid for device in self._pool.paths(instance, record.uuid)]
        wanted = hostpaths.Wanted(devices)
        return any(wanted.reached_from(path) for path in self._guests.memory_paths(instance))

    def _give_back(self, instance: objects.Instance, left: Sequence[model.Record]) -> bool:
        """Release what the instance does not need; False when that failed."""
        names = ", ".join(str(record.name) for record in left)
        with failures_logged(instance.uuid, f"it does not need {names}, but keeps it"):
            self._pool.release(instance, [record.uuid for record in left if record.uuid is not None])
            LOG.warning("Instance %s is well without %s, which a migration left behind: released", instance.uuid, names)
            return True
        return False

    def _log(self, doubts: dict[str, str], kept: Sequence[model.Record]) -> None:
        """Say what is kept, and why, once."""
        for owner, doubt in doubts.items():
            if self._doubts.get(owner) != doubt:
                names = ", ".join(str(record.name) for record in kept if record.owner == owner)
                LOG.warning(
                    "Instance %s holds %s on this host without an allocation in Placement, where it is reserved now: "
                    "%s. It is given back when the instance is active or stopped without it; 'vpmem release %s' "
                    "does so at once",
                    *(owner, names, doubt, owner),
                )
        self._doubts = doubts
