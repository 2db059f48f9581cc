"""Print what Nova and Placement record of the persistent memory of this host, for ``vpmem reconcile --nova``.

It is a process of its own, so that the command line works without Nova. It reads the configuration of nova-compute,
asks Nova's conductor and Placement as nova-compute does, and changes nothing.
"""

import os
import sys

import msgspec

from vpmem_driver import exception
from vpmem_driver.checkup import nova_records

_PREFIX = "CUSTOM_PMEM_NAMESPACE_"


def main() -> int:
    """Run the program and return its exit code."""
    printed = os.dup(1)
    os.dup2(2, 1)  # nothing else may be in the output
    os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"
    try:
        with os.fdopen(printed, "wb") as output:
            output.write(msgspec.json.encode(_of_this_host(sys.argv[1:])))
    except ImportError as error:
        return _fail(f"this Python has no Nova ({error})")
    except Exception as error:  # noqa: BLE001  any library between here and the services; the caller reports it
        return _fail(f"{type(error).__name__}: {error}")
    return 0


def _fail(reason: str) -> int:
    print(exception.printable(reason), file=sys.stderr)
    return exception.HostError.exit_code


def _of_this_host(arguments: list[str]) -> nova_records.NovaRecords:
    from nova import config, objects  # noqa: PLC0415  Nova is configured here
    from nova.conductor import rpcapi as conductor_rpcapi  # noqa: PLC0415
    from nova.conf import CONF  # noqa: PLC0415
    from nova.objects import base as objects_base  # noqa: PLC0415

    objects.register_all()
    config.parse_args(["nova-compute", *arguments])
    CONF.set_override("metrics_thread_stop_timeout", 0, group="oslo_messaging_metrics")
    objects_base.NovaObject.indirection_api = conductor_rpcapi.ConductorAPI()
    return read(CONF.host)


def read(host: str) -> nova_records.NovaRecords:
    """Ask Nova's conductor and Placement about `host`."""
    from nova import context as nova_context  # noqa: PLC0415  Nova is configured when this is called
    from nova.scheduler.client import report  # noqa: PLC0415

    from vpmem_driver.nova.instances import HostInstances, find  # noqa: PLC0415

    found = HostInstances.read(host)
    client = report.SchedulerReportClient()
    allocations: dict[str, dict[str, int]] = {}
    for provider in found.providers:
        of_provider = client.get_allocations_for_resource_provider(nova_context.get_admin_context(), provider)
        for consumer, allocation in of_provider.allocations.items():
            numbers = {name: count for name, count in allocation["resources"].items() if name.startswith(_PREFIX)}
            if numbers:
                allocations[consumer] = numbers
    instances = {uuid: instance for uuid in found.moving if (instance := find(uuid)) is not None} | dict(found.here)
    return nova_records.NovaRecords(
        host=host,
        instances=tuple(
            nova_records.Instance(
                uuid=uuid,
                name=instance.display_name or "",
                namespaces=tuple(found.recorded(uuid)),
                is_settled=uuid not in found.moving and found.names(uuid) is not None,
            )
            for uuid, instance in sorted(instances.items())
        ),
        allocations=allocations,
        migrations={migration.uuid: uuid for uuid, migration in found.moving.items()},
    )


if __name__ == "__main__":
    sys.exit(main())
