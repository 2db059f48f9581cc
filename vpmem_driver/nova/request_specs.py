"""Request specs: what Nova claims for an instance that is unshelved, evacuated or migrated live.

Nova saves the flavor of a resize in the request spec when the resize begins. It restores the old one when the resize is
reverted, but not when it fails (conductor/manager.py, _cold_migrate; compute/api.py, revert_resize; Nova 31 to 34).
From then on, it claims the namespaces of a flavor that the instance does not have.
"""

import collections
import contextlib
import logging
from collections.abc import Iterator, Sequence

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.virt import hardware

from vpmem_driver import model

LOG = logging.getLogger(__name__)


def require_flavor(instance: objects.Instance, claimed: Sequence[objects.Resource]) -> None:
    """Verify that Nova has claimed what the flavor of the instance requests.

    :param claimed: the namespaces that Nova has claimed
    :raises ComputeResourcesUnavailable: it has not; nothing was changed, and the next attempt may succeed
    """
    require_labels(instance, hardware.get_vpmems(instance.flavor), claimed, nova_exception.ComputeResourcesUnavailable)


def require_labels(
    instance: objects.Instance,
    wanted: Sequence[str],
    claimed: Sequence[objects.Resource],
    error: type[nova_exception.NovaException],
) -> None:
    """Verify that Nova has claimed a namespace for each label in `wanted`, and no more.

    :raises error: it has not; nothing was changed, and the next attempt may succeed
    """
    labels = labels_of(claimed)
    if _counted(wanted) != _counted(labels):
        # Nova cuts the text of a fault after 255 characters.
        reason = (
            f"instance {instance.uuid} needs {_listed(wanted)}, and Nova has claimed {_listed(labels)}, by the flavor "
            f"of a resize that failed. {restore_flavor(instance)}"
        )
        raise error(reason=reason)


def labels_of(resources: Sequence[objects.Resource]) -> list[str]:
    """Return the label of each namespace."""
    return [resource.metadata.label for resource in resources]


def _counted(labels: Sequence[str]) -> "collections.Counter[str]":
    return collections.Counter(map(model.resource_class, labels))


def _listed(labels: Sequence[str]) -> str:
    return ",".join(labels) or "no namespace"


@contextlib.contextmanager
def restoring(instance: objects.Instance, flavor: objects.Flavor) -> Iterator[None]:
    """Record the flavor of an instance in its request spec again if its resize to `flavor` fails in the body.

    Usually the conductor has saved the new one by then. If it saves it later, the next claim is refused.
    """
    try:
        yield
    except nova_exception.InstanceFaultRollback:
        if _counted(hardware.get_vpmems(flavor)) != _counted(hardware.get_vpmems(instance.flavor)):
            restore_flavor(instance)
        raise


def restore_flavor(instance: objects.Instance) -> str:
    """Record the flavor of an instance in its request spec. Never raises.

    nova-compute asks the conductor, which must have access to Nova's API database.

    :returns: what happened and what to do next, for the fault of the server
    """
    try:
        spec = objects.RequestSpec.get_by_instance_uuid(nova_context.get_admin_context(), instance.uuid)
        before, spec.flavor = spec.flavor.name, instance.flavor
        spec.save()
    except Exception:
        LOG.exception(
            "Instance %s: cannot record its flavor %s in Nova's table request_specs, where a resize that failed may "
            "have left another one",
            *(instance.uuid, instance.flavor.name),
        )
        return "Correct its flavor in Nova's table request_specs"
    LOG.warning(
        "Instance %s: recorded its flavor %s in its request spec, which had %s of a resize that failed",
        *(instance.uuid, instance.flavor.name, before),
    )
    return "This is corrected now. Try again"
