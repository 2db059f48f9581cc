"""Moves: the content of an instance's namespaces goes with it at a cold migration or resize.

Which goes where: the labels of the two flavors pair by position. What to do with the content is the decision of the new
flavor (extra spec ``vpmem:on_resize``) or of the operator (``[vpmem] on_move``).
"""

import functools
import logging
import secrets
from collections.abc import Callable, Sequence

from nova import exception as nova_exception
from nova import objects
from nova.conf import CONF

from vpmem_driver import exception, model
from vpmem_driver.nova.host import which
from vpmem_driver.pool import Pool, Row, wipes
from vpmem_driver.transfer.connection import Connection
from vpmem_driver.transfer.sender import Sender

LOG = logging.getLogger(__name__)

COPY, DISCARD, REFUSE = "copy", "discard", "refuse"
ON_RESIZE = "vpmem:on_resize"


def on_move(flavor: objects.Flavor) -> str:
    """Return what a move to `flavor` does with the content: copy, discard or refuse."""
    return str(flavor.extra_specs.get(ON_RESIZE) or CONF.vpmem.on_move)


def pairs(
    instance: objects.Instance, old: Sequence[objects.Resource], new: Sequence[objects.Resource]
) -> list[tuple[objects.Resource, objects.Resource]]:
    """Return which namespace goes to which one. New ones without a partner start empty.

    :raises MigrationPreCheckError: an old one has no partner, or a smaller one
    """
    lost = [resource.identifier for resource in old[len(new) :]]
    if lost:
        raise refused(
            instance,
            f"the new flavor has {len(new)} persistent memory devices; the content of {', '.join(lost)} would be lost",
        )
    for before, after in zip(old, new, strict=False):
        if after.metadata.size < before.metadata.size:
            raise refused(
                instance,
                f"the content of {before.identifier} ({before.metadata.size} bytes) does not fit into "
                f"{after.identifier} ({after.metadata.size} bytes)",
            )
    return list(zip(old, new, strict=False))


def refused(instance: objects.Instance, reason: str) -> nova_exception.MigrationPreCheckError:
    """Return the error for a move that would lose content."""
    return nova_exception.MigrationPreCheckError(
        reason=f"instance {instance.uuid}: {reason.rstrip('.')}. To move it without that content, set the extra spec "
        f"{ON_RESIZE}=discard of the flavor, or [vpmem] on_move = discard"
    )


def require_live_migratable(instance: objects.Instance, held: Sequence[Row]) -> None:
    """Verify that QEMU carries the content, and that the destination claims the same hardware.

    QEMU completes a live migration of a guest with virtio-pmem, but does not send its content: the guest would go on
    with what the destination's file contains (seen with QEMU 7.2).

    :raises MigrationPreCheckError: it must not be migrated live
    """
    if other := [row for row in held if row.hardware != model.IN_TREE]:
        shown = ", ".join(f"{row.name} is a {row.device_model} with {row.label_size} bytes for labels" for row in other)
        raise nova_exception.MigrationPreCheckError(
            reason=f"instance {instance.uuid} cannot be migrated live: {shown}. Only a nvdimm with "
            f"{model.IN_TREE.label_size} bytes for labels can. Migrate it cold: that copies the content"
        )


def sender(pool: Pool, owner: str, copy: str, connect: Callable[[], Connection]) -> Sender:
    """Return the sending side of a copy."""
    return Sender(
        pool,
        connect,
        owner=owner,
        copy=copy,
        pack=CONF.vpmem.copy_compression,
        on_progress=wipes.ProgressLog(),
    )


def abandon(owner: str, give_up: Callable[[], None]) -> None:
    """Have a destination release what has arrived. Never raises.

    :param give_up: does it
    """
    try:
        give_up()
    except exception.VPMEMError as error:
        LOG.error(
            "Instance %s: its destination may still hold a copy of its memory. It releases it when the instance is "
            "active or stopped here; in another cell, run 'vpmem release %s' there: %s",
            *(owner, owner, error),
        )
    except Exception:
        LOG.exception("Instance %s: cannot release its destination", owner)


class Move:
    """The move of one instance's memory, on its source."""

    def __init__(
        self,
        pool: Pool,
        instance: objects.Instance,
        moved: Sequence[tuple[objects.Resource, objects.Resource]],
        connect: Callable[[], Connection] | None,
    ) -> None:
        """Store the arguments.

        :param moved: see :func:`pairs`
        :param connect: connects to the destination; None: it is this host
        """
        self.instance = instance
        self._pool = pool
        self._owner = str(instance.uuid)
        self._names = [before.identifier for before, _ in moved]
        self._targets = [after.identifier for _, after in moved]
        self._copy = secrets.token_hex(8)
        self._uuids: list[str] = []
        self._done = False
        #: whether the destination is another host
        self.is_remote = connect is not None
        self._sender = None if connect is None else sender(pool, self._owner, self._copy, connect)

    def prepare(self) -> None:
        """Reserve the destination, and keep the guest from starting here. The guest may still run.

        :raises VPMEMError: the destination does not accept the content; nothing was changed
        """
        named = which(self._names, self._pool.held(self._owner))
        if None in named:
            raise exception.NotOwner(
                owner=self._owner, namespace=", ".join(self._names), reason="the ledger does not record all of them"
            )
        self._uuids = [uuid for uuid in named if uuid is not None]
        sources = {grant.uuid: grant for grant in self._pool.grants(self._owner)}
        self._pool.copies.depart(self._owner, self._copy, self._uuids)
        try:
            if self._sender is not None:
                self._sender.offer(self._uuids, self._targets)
            else:
                grants = [sources[uuid] for uuid in self._uuids]
                self._pool.copies.expect_exact(self._owner, self._copy, self._target_uuids(), grants)
        except exception.TransferRefused:
            self._pool.copies.stay(self._owner)
            raise
        except BaseException:
            # The destination may have accepted it all the same: its answer can be what was lost.
            self.cancel()
            raise

    def copy(self) -> None:
        """Copy everything, after the guest was powered off. A second call does nothing.

        :raises VPMEMError: it is not complete
        """
        if self._done:
            return
        LOG.info("Instance %s: copying %s to %s", self._owner, ", ".join(self._names), ", ".join(self._targets))
        if self._sender is not None:
            self._sender.send(self._uuids, self._targets)
        else:
            for uuid, target in zip(self._uuids, self._target_uuids(), strict=True):
                self._pool.copies.copy(self._copy, uuid, target, on_progress=wipes.ProgressLog())
        self._done = True

    def cancel(self) -> None:
        """Have the destination release what has arrived, and let the guest start here again. Never raises."""
        if self._sender is not None:
            abandon(self._owner, self._sender.abandon)
        else:
            abandon(self._owner, functools.partial(self._pool.copies.abandon, self._owner, self._copy))
        try:
            self._pool.copies.stay(self._owner)
        except exception.VPMEMError as error:
            LOG.error("Instance %s: cannot record that its memory stays here: %s", self._owner, error)

    def _target_uuids(self) -> list[str]:
        return [self._pool.find(name) for name in self._targets]
