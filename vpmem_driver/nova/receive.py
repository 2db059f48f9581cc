"""``vpmem-nova-receive``: receive the memory of a server that migrates to this host.

The source's nova-compute starts it over ssh, as Nova's user. It asks Nova whether this server migrates to this host,
and to which of its namespaces: only those are filled.
"""

import functools
import logging
import os
import sys
from collections.abc import Sequence

from vpmem_driver import conf, discovery, exception
from vpmem_driver.transfer import messages
from vpmem_driver.transfer.receiver import Receiver

LOG = logging.getLogger(__name__)


def require_expected(host: str, offer: messages.Offer) -> list[str]:
    """Return the identifiers of the namespaces that Nova has chosen on `host` for the offered ones.

    :raises InvalidRequest: Nova does not migrate this server to this host now, or to other namespaces
    """
    from nova import context, objects  # noqa: PLC0415  Nova is configured when this is called
    from nova.compute import task_states  # noqa: PLC0415

    from vpmem_driver.nova import instances  # noqa: PLC0415

    def unexpected(reason: str) -> exception.InvalidRequest:
        return exception.InvalidRequest(
            what="instance", value=offer.owner, reason=reason, remedy="Migrate it through Nova's API"
        )

    instance = instances.find(offer.owner, "migration_context")
    if instance is None or instance.deleted:
        raise unexpected("Nova does not know it")
    not_now = f"it does not migrate now (its task is {instance.task_state})"
    if instance.migration_context is None:
        raise unexpected(not_now)
    migration = objects.Migration.get_by_id(context.get_admin_context(), instance.migration_context.migration_id)
    # Between cells, this is the destination's record, which keeps the task until the source has finished.
    task = task_states.RESIZE_PREP if migration.cross_cell_move else task_states.RESIZE_MIGRATING
    if instance.task_state != task:
        raise unexpected(not_now)
    if migration.dest_compute != host:
        raise unexpected(f"it migrates to {migration.dest_compute}, not to this host, {host}")
    chosen = {
        resource.identifier
        for resource in instance.migration_context.new_resources or ()
        if isinstance(resource.metadata, objects.LibvirtVPMEMDevice)
    }
    wanted = [offered.namespace for offered in offer.namespaces]
    names = [name for name in wanted if name is not None]
    if len(set(names)) != len(wanted) or not chosen.issuperset(names):
        raise unexpected(
            f"Nova has not chosen {exception.listed(wanted)} for it, but {exception.listed(sorted(chosen))}"
        )
    return names


def require_away(host: str, owner: str) -> None:
    """Verify that the instance is not on `host`.

    :raises InvalidRequest: it is, and uses there what a copy has brought
    """
    from vpmem_driver.nova import instances  # noqa: PLC0415

    instance = instances.find(owner)
    # Before a move to another cell is complete, the record there is hidden.
    if instance is not None and instance.host == host and not instance.hidden and not instance.deleted:
        raise exception.InvalidRequest(
            what="instance",
            value=owner,
            reason=f"Nova has it on {host}, where its memory is in use",
            remedy="Nothing was changed",
        )


def main() -> int:
    """Serve one source on stdin and stdout."""
    requests, replies = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # nothing else may write to the conversation
    # The source's messages have no need of eventlet, and its hub would wait for the pipe.
    os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"
    try:
        return 0 if _receiver(requests, replies).serve() else exception.CopyFailed.exit_code
    except exception.VPMEMError as error:
        os.write(replies, messages.encode(messages.Refused(str(error))))
        return error.exit_code


def _receiver(requests: int, replies: int) -> Receiver:
    """Return the receiver of this host, with Nova's configuration and its conductor."""
    import shlex  # noqa: PLC0415

    from nova import config, objects, utils  # noqa: PLC0415
    from nova.conductor import rpcapi as conductor_rpcapi  # noqa: PLC0415
    from nova.conf import CONF  # noqa: PLC0415
    from nova.objects import base as objects_base  # noqa: PLC0415
    from nova.privsep import libvirt as privsep_libvirt  # noqa: PLC0415
    from oslo_privsep import priv_context  # noqa: PLC0415

    objects.register_all()  # before the driver's modules, whose signatures name them

    from vpmem_driver.discovery.ndctl import NdctlDiscovery  # noqa: PLC0415
    from vpmem_driver.nova.host import which  # noqa: PLC0415
    from vpmem_driver.pool import Pool  # noqa: PLC0415

    config.parse_args(["nova-compute", *sys.argv[1:]])
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    # oslo.messaging has a thread for metrics that nobody wants here, and that ends so long after the last call.
    CONF.set_override("metrics_thread_stop_timeout", 0, group="oslo_messaging_metrics")
    objects_base.NovaObject.indirection_api = conductor_rpcapi.ConductorAPI()
    conf.register_opts(CONF)
    source = discovery.from_conf(CONF)
    if CONF.vpmem.discovery == "ndctl":
        source = NdctlDiscovery(run=privsep_libvirt.get_pmem_namespaces)
    pool = Pool.from_conf(CONF, source=source, leave_out_absent=True)

    def expected(pool: Pool, offer: messages.Offer) -> Sequence[str]:
        names = require_expected(CONF.host, offer)
        labelled = [record for record in pool.records() if record.label is not None]
        uuids = which(names, labelled)
        for name, uuid in zip(names, uuids, strict=True):
            if uuid is None:
                raise exception.UnknownNamespace(namespace=name)
        return [uuid for uuid in uuids if uuid is not None]

    return Receiver(pool, expected, functools.partial(require_away, CONF.host), requests, replies)


if __name__ == "__main__":
    sys.exit(main())
