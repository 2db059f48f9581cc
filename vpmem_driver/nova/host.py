"""One compute host's pool, in terms of Nova's objects: instances, resources, resource classes.

The objects are the same as those of the in-tree driver, so that a return to it needs no change in the database. A
Resource is identified by the namespace's name, and its LibvirtVPMEMDevice contains the path at the time of the pick. If
several namespaces have the same name, which the in-tree driver confuses, the identifier is the uuid.
"""

import collections
import contextlib
import functools
import logging
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet

from nova import exception as nova_exception
from nova import objects
from nova.privsep import libvirt as privsep_libvirt
from oslo_config import cfg

from vpmem_driver import conf, discovery, exception, hostpaths, model, storage
from vpmem_driver.discovery.ndctl import NdctlDiscovery
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.nova import eventlet_poll
from vpmem_driver.nova.background_wipe import BackgroundWipe
from vpmem_driver.nova.decisions import Action
from vpmem_driver.nova.instances import HostInstances
from vpmem_driver.nova.resources import HandOut, Offers, Picks, Request
from vpmem_driver.nova.starts import Starts
from vpmem_driver.pool import Pool, Row, wipes

LOG = logging.getLogger(__name__)

#: The states in which an unowned namespace can be offered.
_OFFERED = frozenset({model.State.CLEAN, model.State.DIRTY, model.State.UNKNOWN})


@contextlib.contextmanager
def failures_logged(uuid: str, consequence: str) -> Iterator[None]:
    """Log every error and return normally, for operations whose failure must not stop Nova. The ledger is unchanged.

    :param uuid: of the instance
    :param consequence: the consequence of the error, for the log
    """
    try:
        yield
    except exception.VPMEMError as error:
        LOG.error("Instance %s: %s: %s", uuid, consequence, error)
    except Exception:
        LOG.exception("Instance %s: %s", uuid, consequence)


class HostPool:
    """The namespaces of one compute host."""

    def __init__(self, pool: Pool, wipe_parallel: int) -> None:
        self._pool = pool
        self._picks = Picks()
        #: last known total of each resource class since the start of the service
        self._totals: dict[str, int] = {}
        #: owner and uuid of each namespace that is held without an allocation in Placement
        self._leftovers: frozenset[tuple[str | None, str | None]] = frozenset()
        #: uuids of the namespaces that cannot be offered but are part of an instance's allocation
        self._allocated: frozenset[str | None] = frozenset()
        self.background = BackgroundWipe(pool.maintenance, wipe_parallel)
        self.starts = Starts(self._release_all)

    @classmethod
    def open(cls, options: cfg.ConfigOpts, domains: Domains) -> "HostPool | None":
        """Open the pool that nova.conf describes; None if the host has no persistent memory and never had any.

        :raises PMEMNamespaceConfigInvalid: an option is invalid
        :raises GetPMEMNamespacesFailed: discovery or the ledger failed
        """
        conf.register_opts(options)
        try:
            if not Pool.is_used(options):
                return None
            source = discovery.from_conf(options)
            if options.vpmem.discovery == "ndctl":
                # Nova's own privileged call, which every compute host already allows.
                source = NdctlDiscovery(run=privsep_libvirt.get_pmem_namespaces)
            pool = Pool.from_conf(
                options, source=source, domains=domains, leave_out_absent=True, wait=eventlet_poll.wait_here()
            )
            storage.warn_if_lost(pool.ledger_path)
            return cls(pool, options.vpmem.wipe_parallel)
        except (exception.ConfigurationError, cfg.Error) as error:
            raise nova_exception.PMEMNamespaceConfigInvalid(reason=str(error)) from error
        except exception.VPMEMError as error:
            raise nova_exception.GetPMEMNamespacesFailed(reason=str(error)) from error

    @property
    def pool(self) -> Pool:
        """The pool itself, for the takeover."""
        return self._pool

    # Contents

    def devices(self) -> dict[str, objects.LibvirtVPMEMDevice]:
        """Return the configured namespaces by name, with current paths, for LibvirtDriver._vpmems_by_name."""
        records = self._pool.records()
        identifiers = _identifiers(records)
        return {
            identifiers[record.uuid]: _device(
                identifiers[record.uuid], record.label, record.device or "", record.size, record.align
            )
            for record in records
            if record.uuid is not None and record.label is not None
        }

    def not_free(self) -> tuple[dict[str, list[model.Record]], list[model.Record]]:
        """Return the namespaces that have a label but are not free: the held ones by owner, and the unowned ones."""
        held: dict[str, list[model.Record]] = collections.defaultdict(list)
        unowned = []
        for record in self._pool.records():
            if record.resource_class is not None and record.owner is not None:
                held[record.owner].append(record)
            elif record.resource_class is not None and record.state not in _OFFERED:
                unowned.append(record)
        return held, unowned

    def inventories(self) -> dict[str, dict[str, typing.Any]]:
        """Return Placement's inventories. Namespaces that cannot be offered are reserved, unless they are allocated.

        On a retired host, no namespace can be offered.

        Placement does not allow a total of 0, and a class in use must not disappear: Nova removes an allocation some
        time after the guest is gone. So a class without namespaces remains, fully reserved, until the next start.
        """
        records = [record for record in self._pool.records() if record.resource_class is not None]
        now = collections.Counter(record.resource_class for record in records)
        offered = frozenset() if self._pool.maintenance.is_retired() else _OFFERED
        reserved = collections.Counter(
            record.resource_class for record in records if self._is_reserved(record, offered)
        )
        self._totals |= {resource_class: total for resource_class, total in now.items() if resource_class is not None}
        return {
            resource_class: {
                "total": total,
                "max_unit": total,
                "min_unit": 1,
                "step_size": 1,
                "allocation_ratio": 1.0,
                "reserved": reserved[resource_class] if resource_class in now else total,
            }
            for resource_class, total in self._totals.items()
        }

    def _is_reserved(self, record: model.Record, offered: AbstractSet[str]) -> bool:
        if record.owner is not None:
            return (record.owner, record.uuid) in self._leftovers
        return record.state not in offered and record.uuid not in self._allocated

    def reserve(self, leftovers: Iterable[model.Record], allocated: Iterable[model.Record]) -> None:
        """Set the differences between the ledger and Placement's allocations, until the next call.

        :param leftovers: namespaces held for an owner that has no allocation for them on this host
        :param allocated: namespaces that cannot be offered, but are recorded for an instance, with an allocation
        """
        self._leftovers = frozenset((record.owner, record.uuid) for record in leftovers)
        self._allocated = frozenset(record.uuid for record in allocated)

    def resources(self, provider_uuid: str) -> dict[str, HandOut]:
        """Return all namespaces by resource class, for the resource tracker: those to pick from, and those in use."""
        make = functools.cache(functools.partial(_resource, provider_uuid))
        records = self._pool.records()
        identifiers = _identifiers(records)
        held = {row.uuid: row for row in self._pool.rows() if row.owner is not None}
        found: dict[str, list[objects.Resource]] = collections.defaultdict(list)
        named: dict[str, tuple[str, str]] = {}
        for record in records:
            if record.uuid in identifiers and record.label is not None:
                named[record.uuid] = identifiers[record.uuid], record.label
                # A held namespace has the path that Nova has recorded.
                path = held[record.uuid].device if record.uuid in held else record.device
                made = make(*named[record.uuid], path, size=record.size, align=record.align)
                found[made.resource_class].append(made)
        offers = Offers(self._pool, named, make)
        request = Request()
        return {
            resource_class: HandOut(resource_class, found.get(resource_class, ()), offers, self._picks, request)
            # The tracker skips a class that is absent here, and the guest would start without a device.
            for resource_class in self._totals | found
        }

    def settle_picks(self, read: Callable[[], HostInstances]) -> None:
        """Offer picked namespaces again if Nova's records show that nothing uses them.

        Call this under the tracker's lock, so that no claim is incomplete.

        :param read: reads Nova's records; called only if a pick is uncertain
        """
        uncertain = self._picks.uncertain()
        if not uncertain:
            return
        try:
            instances = read()
            if any(not self._pool.held(uuid) for uuid in instances.starting()):
                return  # a pick may belong to such an instance
            self._picks.forget(uncertain - instances.arriving())
        except Exception:
            names = ", ".join(sorted(uncertain))
            LOG.exception("Cannot read from Nova whether an instance uses %s; not offered until Nova answers", names)

    @staticmethod
    def named(names: Iterable[str] | None, records: Iterable[model.Record]) -> list[str | None] | None:
        """Return the uuid of the record for each of `names`, or None for a name without a record.

        None if `names` is None.
        """
        return None if names is None else which(names, records)

    # Operations

    def claim(
        self,
        instance: objects.Instance,
        names: Sequence[str],
        *,
        rebuilding: bool,
        hardware: model.Hardware | None = None,
    ) -> tuple[model.Grant, ...]:
        """Claim the namespaces that Nova has recorded for `instance`, in this order, for its guest.

        Those that it already holds keep their content. New ones are wiped first, and this waits for the wipe. An
        instance that is rebuilt in place keeps what it holds in the ledger: a failed migration may have left a wrong
        record.

        :param hardware: what new ones are in the guest; None: as configured
        :raises ComputeResourcesUnavailable: another instance holds one, one is quarantined or missing, or the host is
            retired
        :raises InternalError: one could not be wiped, or the ledger failed
        """
        owner = instance.uuid
        try:
            self._pool.copies.stay(owner)  # Nova starts the guest here: a move has ended, or was interrupted
            held = self._pool.grants(owner)
            of_record = which(names, held)
            if rebuilding and len(held) == len(names) and None in of_record:
                LOG.warning(
                    "Instance %s keeps %s, although Nova records %s", owner, [grant.name for grant in held], names
                )
                uuids = [grant.uuid for grant in held]
            else:
                uuids = [uuid or self._pool.find(name) for name, uuid in zip(names, of_record, strict=True)]
            grants = self._pool.claim_exact(owner, uuids, on_progress=wipes.ProgressLog(), hardware=hardware)
        except (
            exception.NamespaceUnavailable,
            exception.UnknownNamespace,
            exception.NamespaceMissing,
            exception.HostRetired,
        ) as error:
            raise nova_exception.ComputeResourcesUnavailable(reason=str(error)) from error
        except exception.VPMEMError as error:
            raise nova_exception.InternalError(str(error)) from error
        self._picks.forget(names)
        return grants

    def held(self, instance: objects.Instance) -> frozenset[str]:
        """Return the uuids of the namespaces that the instance holds here."""
        return frozenset(row.uuid for row in self._pool.held(instance.uuid))

    def paths(self, instance: objects.Instance, name: str) -> frozenset[str]:
        """Return the paths that the guest may use for namespace `name`: its path when granted, and its current path."""
        held = self._pool.grants(instance.uuid)
        uuids = which([name], held)
        paths = (path for grant in held if grant.uuid in uuids for path in (grant.known_device, grant.device))
        return frozenset(path for path in paths if path is not None)

    def carry_out(self, action: Action, instance: objects.Instance, names: Sequence[str]) -> None:
        """Execute the decision; `names` are the namespaces of the instance's record. Never raises: Nova must continue.

        An error is logged, and the ledger is unchanged.
        """
        if action is not Action.KEEP:
            self.starts.arrival_ends(instance.uuid)
        with failures_logged(instance.uuid, "its persistent memory is unchanged"):
            held = self._pool.held(instance.uuid)
            if action is Action.KEEP or not held:
                return
            named = which(names, held)
            if action is Action.RENEW:
                # A record that names a namespace that is not held is unreliable: then renew all that is held.
                self._pool.renew(instance.uuid, None if None in named else [uuid for uuid in named if uuid])
            elif action is Action.RELEASE_NAMED:
                self.release(instance, [uuid for uuid in named if uuid is not None])
            else:
                self.starts.release(instance.uuid)

    def release(self, instance: objects.Instance, uuids: Iterable[str]) -> None:
        """Release exactly `uuids`, and wipe them in the background."""
        released = list(uuids)
        if released:
            self._pool.release(instance.uuid, released)
            self.background.start()

    def arrivals(self) -> dict[str, str]:
        """Return the copy that fills a namespace, or has filled it for its owner, by uuid."""
        return {row.uuid: row.arrival for row in self._pool.rows() if row.arrival is not None}

    def abandon(self, instance: objects.Instance, arrivals: Iterable[str]) -> None:
        """Release what the copies `arrivals` have brought for the instance, and wipe it in the background."""
        for arrival in arrivals:
            self._pool.copies.abandon(instance.uuid, arrival)
            self.background.start()

    def release_others(self, instance: objects.Instance, names: Sequence[str]) -> None:
        """Release what the instance holds here except `names`, after a resize is confirmed. Never raises."""
        with failures_logged(instance.uuid, "its old persistent memory is not released"):
            held = self._pool.held(instance.uuid)
            kept = which(names, held)
            if None in kept:
                LOG.error(
                    "Instance %s keeps all its namespaces on this host: Nova records %s, which it does not all hold",
                    *(instance.uuid, names),
                )
                return
            self.release(instance, [row.uuid for row in held if row.uuid not in kept])

    def without_claim(
        self, instance: objects.Instance, resources: Sequence[objects.Resource]
    ) -> list[objects.Resource]:
        """Return the recorded resources that the instance does not hold in the ledger."""
        uuids = which([resource.identifier for resource in resources], self._pool.held(instance.uuid))
        return [resource for resource, uuid in zip(resources, uuids, strict=True) if uuid is None]

    def owners(self) -> frozenset[str]:
        """Return the owners of namespaces in the ledger."""
        return self._pool.owners()

    def names(self, owner: str) -> list[str]:
        """Return the names of the namespaces that an owner holds, whether Nova knows the owner or not."""
        return [row.name or row.uuid for row in self._pool.held(owner)]

    def not_held(self, instance: objects.Instance, paths: Iterable[str]) -> list[str]:
        """Return those of `paths` that do not lead to a device that the instance has claimed."""
        devices = [
            record.device
            for record in self._pool.records()
            if record.owner == instance.uuid and record.state == model.State.CLAIMED and record.device is not None
        ]
        held = hostpaths.Wanted(devices)
        return [path for path in paths if not held.reached_from(path)]

    def _release_all(self, owner: str) -> None:
        """Release what an instance holds. Never raises."""
        with failures_logged(owner, "its persistent memory is not released"), contextlib.suppress(exception.NotOwner):
            self._pool.release(owner)
            self.background.start()


def _identifiers(records: Iterable[model.Record]) -> dict[str, str]:
    """Return the identifier in Nova of each namespace that has a label, by uuid."""
    named = [record for record in records if record.uuid is not None and record.label is not None]
    count = collections.Counter(record.name for record in named)
    return {
        uuid: name if (name := record.name) is not None and count[name] == 1 else uuid
        for record in named
        if (uuid := record.uuid) is not None
    }


def which(names: Iterable[str], held: Iterable[model.Grant | model.Record | Row]) -> list[str | None]:
    """Return the uuid of the held namespace that each of `names` identifies; None for a name that is not held."""
    name_of = {grant.uuid: grant.name for grant in held}
    uuids: list[str | None] = [name if name in name_of else None for name in names]
    for index, name in enumerate(names):
        if uuids[index] is None:
            uuids[index] = next((uuid for uuid in name_of if name_of[uuid] == name and uuid not in uuids), None)
    return uuids


def _resource(
    provider_uuid: str, identifier: str, label: str, path: str | None, *, size: int, align: int
) -> objects.Resource:
    return objects.Resource(
        provider_uuid=provider_uuid,
        resource_class=model.resource_class(label),
        identifier=identifier,
        metadata=_device(identifier, label, path or "", size, align),
    )


def _device(name: str, label: str, path: str, size: int, align: int) -> objects.LibvirtVPMEMDevice:
    return objects.LibvirtVPMEMDevice(label=label, name=name, devpath=path, size=size, align=align)
