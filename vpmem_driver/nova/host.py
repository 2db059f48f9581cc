"""One compute host's pool, spoken to in Nova's records: instances, resources, resource classes.

Nova's own objects stay as the in-tree driver makes them, so that going back needs no change in the database: a
Resource is identified by the namespace's name, and its LibvirtVPMEMDevice has the path at the time of the pick. Only
where several namespaces have one name, which the in-tree driver mixes up, it is identified by the uuid.
"""

import collections
import contextlib
import functools
import logging
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence

from nova import exception as nova_exception
from nova import objects
from nova.privsep import libvirt as privsep_libvirt
from oslo_config import cfg

from vpmem_driver import conf, discovery, exception, hostpaths, model
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

#: The states of what can be handed out, if it is unowned.
_OFFERED = frozenset({model.State.CLEAN, model.State.DIRTY, model.State.UNKNOWN})


@contextlib.contextmanager
def failures_logged(uuid: str, consequence: str) -> Iterator[None]:
    """Log every error that is raised inside, and return: for what Nova must not fail on. The ledger keeps what it has.

    :param uuid: of the instance
    :param consequence: what does not happen because of the error, in words
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
        #: of each resource class since the start
        self._totals: dict[str, int] = {}
        #: owner and uuid of what is held without an allocation in Placement
        self._leftovers: frozenset[tuple[str | None, str | None]] = frozenset()
        #: uuids of what cannot be handed out and an instance has an allocation for
        self._allocated: frozenset[str | None] = frozenset()
        self.background = BackgroundWipe(pool, wipe_parallel)
        self.starts = Starts(self._release_all)

    @classmethod
    def open(cls, options: cfg.ConfigOpts, domains: Domains) -> "HostPool | None":
        """The pool that nova.conf describes; None when there is no persistent memory and never was.

        :raises PMEMNamespaceConfigInvalid: the options are wrong
        :raises GetPMEMNamespacesFailed: discovery or ledger fail
        """
        conf.register_opts(options)
        try:
            if not Pool.is_used(options):
                return None
            source = discovery.from_conf(options)
            if options.vpmem.discovery == "ndctl":
                # Nova's own privileged call: every compute host allows it already.
                source = NdctlDiscovery(run=privsep_libvirt.get_pmem_namespaces)
            pool = Pool.from_conf(
                options, source=source, domains=domains, leave_out_absent=True, wait=eventlet_poll.wait_here()
            )
            return cls(pool, options.vpmem.wipe_parallel)
        except (exception.ConfigurationError, cfg.Error) as error:
            raise nova_exception.PMEMNamespaceConfigInvalid(reason=str(error)) from error
        except exception.VPMEMError as error:
            raise nova_exception.GetPMEMNamespacesFailed(reason=str(error)) from error

    @property
    def pool(self) -> Pool:
        """The pool itself, for the take-over."""
        return self._pool

    # What there is

    def devices(self) -> dict[str, objects.LibvirtVPMEMDevice]:
        """What is configured, by name, with the current paths: LibvirtDriver._vpmems_by_name."""
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
        """What has a label and cannot be handed out: what is held, by owner, and what is unowned."""
        held: dict[str, list[model.Record]] = collections.defaultdict(list)
        unowned = []
        for record in self._pool.records():
            if record.resource_class is not None and record.owner is not None:
                held[record.owner].append(record)
            elif record.resource_class is not None and record.state not in _OFFERED:
                unowned.append(record)
        return held, unowned

    def inventories(self) -> dict[str, dict[str, typing.Any]]:
        """Placement's inventories. What cannot be handed out is reserved, unless an instance has an allocation for it.

        An inventory with a total of 0 is not allowed, and one in use must not go: Nova gives an allocation back some
        time after the guest is gone, so a class stays until the next start, all of it reserved.
        """
        records = [record for record in self._pool.records() if record.resource_class is not None]
        now = collections.Counter(record.resource_class for record in records)
        reserved = collections.Counter(record.resource_class for record in records if self._is_reserved(record))
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

    def _is_reserved(self, record: model.Record) -> bool:
        if record.owner is not None:
            return (record.owner, record.uuid) in self._leftovers
        return record.state not in _OFFERED and record.uuid not in self._allocated

    def reserve(self, leftovers: Iterable[model.Record], allocated: Iterable[model.Record]) -> None:
        """Note what Placement does not count as Nova's records have it, until the next call.

        :param leftovers: what is held for an owner that has no allocation for it on this host
        :param allocated: what cannot be handed out, though an instance has it on record, and an allocation for it
        """
        self._leftovers = frozenset((record.owner, record.uuid) for record in leftovers)
        self._allocated = frozenset(record.uuid for record in allocated)

    def resources(self, provider_uuid: str) -> dict[str, HandOut]:
        """What the resource tracker may pick from, and what it must find again, by resource class."""
        make = functools.cache(functools.partial(_resource, provider_uuid))
        records = self._pool.records()
        identifiers = _identifiers(records)
        held = {row.uuid: row for row in self._pool.rows() if row.owner is not None}
        found: dict[str, list[objects.Resource]] = collections.defaultdict(list)
        called: dict[str, tuple[str, str]] = {}
        for record in records:
            if record.uuid in identifiers and record.label is not None:
                called[record.uuid] = identifiers[record.uuid], record.label
                # The path of a held one is as Nova has it on record.
                path = held[record.uuid].device if record.uuid in held else record.device
                made = make(*called[record.uuid], path, size=record.size, align=record.align)
                found[made.resource_class].append(made)
        offers = Offers(self._pool, called, make)
        request = Request()
        return {
            resource_class: HandOut(resource_class, found.get(resource_class, ()), offers, self._picks, request)
            # A class that is left out would be skipped by the tracker, and its guest be made without a device.
            for resource_class in self._totals | found
        }

    def settle_picks(self, read: Callable[[], HostInstances]) -> None:
        """Offer again what the resource tracker picked, where Nova's records say that nothing uses it.

        To be called under the tracker's lock: no claim is half way then.

        :param read: asks Nova; called only when a pick is in doubt
        """
        forgotten = self._picks.forgotten()
        if not forgotten:
            return
        try:
            instances = read()
            if any(not self._pool.held(uuid) for uuid in instances.starting()):
                return  # it may be the one that a pick is for
            self._picks.forget(forgotten - instances.arriving())
        except Exception:
            names = ", ".join(sorted(forgotten))
            LOG.exception("Nova does not say whether an instance is to have %s: not offered until it does", names)

    @staticmethod
    def named(names: Iterable[str] | None, records: Iterable[model.Record]) -> list[str | None] | None:
        """The uuid of each of `records` that Nova's records call by one of `names`; None for any other name.

        None when there are no names to go by.
        """
        return None if names is None else _which(names, records)

    # What happens

    def claim(self, instance: objects.Instance, names: Sequence[str], *, rebuilding: bool) -> tuple[model.Grant, ...]:
        """What the guest of `instance` gets: the namespaces that Nova has on record for it, in this order.

        What it has already is as it left it; what is new to it is wiped first, and this waits for that. An instance
        that is rebuilt where it is keeps what the ledger has for it: its record may be that of a failed migration.

        :raises ComputeResourcesUnavailable: one is another instance's, quarantined or missing
        :raises InternalError: one could not be wiped, or the ledger fails
        """
        owner = instance.uuid
        try:
            held = self._pool.grants(owner)
            of_record = _which(names, held)
            if rebuilding and len(held) == len(names) and None in of_record:
                LOG.warning("Instance %s keeps %s: its record has %s", owner, [grant.name for grant in held], names)
                uuids = [grant.uuid for grant in held]
            else:
                uuids = [uuid or self._pool.find(name) for name, uuid in zip(names, of_record, strict=True)]
            grants = self._pool.claim_exact(owner, uuids, on_progress=wipes.ProgressLog())
        except (exception.NamespaceUnavailable, exception.UnknownNamespace, exception.NamespaceMissing) as error:
            raise nova_exception.ComputeResourcesUnavailable(reason=str(error)) from error
        except exception.VPMEMError as error:
            raise nova_exception.InternalError(str(error)) from error
        self._picks.forget(names)
        return grants

    def held(self, instance: objects.Instance) -> frozenset[str]:
        """The uuids of what the ledger has for the instance here."""
        return frozenset(row.uuid for row in self._pool.held(instance.uuid))

    def paths(self, instance: objects.Instance, name: str) -> frozenset[str]:
        """What the instance's guest may call its namespace `name`: the path it was granted under, and that of now."""
        held = self._pool.grants(instance.uuid)
        told = _which([name], held)
        paths = (path for grant in held if grant.uuid in told for path in (grant.known_device, grant.device))
        return frozenset(path for path in paths if path is not None)

    def carry_out(self, action: Action, instance: objects.Instance, names: Sequence[str]) -> None:
        """Do what was decided; `names` are those of the instance's record. Never raises: Nova must go on.

        What cannot be done is logged, and the ledger keeps what it has.
        """
        if action is not Action.KEEP:
            self.starts.leaves(instance.uuid)
        with failures_logged(instance.uuid, "its persistent memory stays as it is"):
            held = self._pool.held(instance.uuid)
            if action is Action.KEEP or not held:
                return
            named = _which(names, held)
            if action is Action.RENEW:
                # A record that names what is not held does not say what the guest has: then it is all of it.
                self._pool.renew(instance.uuid, None if None in named else [uuid for uuid in named if uuid])
            elif action is Action.RELEASE_NAMED:
                self.release(instance, [uuid for uuid in named if uuid is not None])
            else:
                self.starts.release(instance.uuid)

    def release(self, instance: objects.Instance, uuids: Iterable[str]) -> None:
        """Give back exactly `uuids`; they are wiped in the background."""
        released = list(uuids)
        if released:
            self._pool.release(instance.uuid, released)
            self.background.start()

    def release_others(self, instance: objects.Instance, names: Sequence[str]) -> None:
        """Give back what the ledger has for the instance here, but for `names`: a resize is confirmed. Never raises."""
        with failures_logged(instance.uuid, "its old persistent memory stays as it is"):
            held = self._pool.held(instance.uuid)
            kept = _which(names, held)
            if None in kept:
                LOG.error("Instance %s keeps all that it has here: its record names %s", instance.uuid, names)
                return
            self.release(instance, [row.uuid for row in held if row.uuid not in kept])

    def without_claim(
        self, instance: objects.Instance, resources: Sequence[objects.Resource]
    ) -> list[objects.Resource]:
        """Those of the instance's record that the ledger does not have for it."""
        told = _which([resource.identifier for resource in resources], self._pool.held(instance.uuid))
        return [resource for resource, uuid in zip(resources, told, strict=True) if uuid is None]

    def owners(self) -> frozenset[str]:
        """The instances for which the ledger has anything."""
        return self._pool.owners()

    def names(self, owner: str) -> list[str]:
        """The names of what the ledger has for an owner, whether Nova knows it or not."""
        return [row.name or row.uuid for row in self._pool.held(owner)]

    def not_held(self, instance: objects.Instance, paths: Iterable[str]) -> list[str]:
        """Those of `paths` that lead to no device which the instance holds and which is wiped if it had to be."""
        devices = [
            record.device
            for record in self._pool.records()
            if record.owner == instance.uuid and record.state == model.State.CLAIMED and record.device is not None
        ]
        held = hostpaths.Wanted(devices)
        return [path for path in paths if not held.reached_from(path)]

    def _release_all(self, owner: str) -> None:
        """Release what an instance holds. Never raises."""
        with failures_logged(owner, "its persistent memory stays as it is"), contextlib.suppress(exception.NotOwner):
            self._pool.release(owner)
            self.background.start()


def _identifiers(records: Iterable[model.Record]) -> dict[str, str]:
    """What Nova is to call each namespace that has a label, by uuid."""
    named = [record for record in records if record.uuid is not None and record.label is not None]
    count = collections.Counter(record.name for record in named)
    return {
        uuid: name if (name := record.name) is not None and count[name] == 1 else uuid
        for record in named
        if (uuid := record.uuid) is not None
    }


def _which(names: Iterable[str], held: Iterable[model.Grant | model.Record | Row]) -> list[str | None]:
    """The uuid of what an instance holds that its record calls by each of `names`; None for what it does not hold."""
    by_name = {grant.uuid: grant.name for grant in held}
    told: list[str | None] = [name if name in by_name else None for name in names]
    for index, name in enumerate(names):
        if told[index] is None:
            told[index] = next((uuid for uuid in by_name if by_name[uuid] == name and uuid not in told), None)
    return told


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
