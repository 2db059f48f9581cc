"""One compute host's pool, spoken to in Nova's records: instances, resources, resource classes.

Nova's own objects stay as the in-tree driver makes them, so that going back needs no change in the database: a
Resource is told by the namespace's name, and its LibvirtVPMEMDevice has the path of the moment it was picked. Only
where several namespaces have one name, which the in-tree driver mixes up, it is told by the uuid.
"""

import collections
import logging
import os
import pathlib
import typing
from collections.abc import Iterable, Sequence

from nova import exception as nova_exception
from nova import objects
from nova.privsep import libvirt as privsep_libvirt
from oslo_config import cfg

from vpmem_driver import conf, discovery, exception, ledger, model, wiping
from vpmem_driver.discovery.ndctl import NdctlDiscovery
from vpmem_driver.domains import Domains
from vpmem_driver.nova import guests, waiting
from vpmem_driver.nova.background import BackgroundWipe
from vpmem_driver.nova.decisions import Action
from vpmem_driver.nova.resources import HandOut, Picks
from vpmem_driver.nova.starts import Starts
from vpmem_driver.pool import Pool

LOG = logging.getLogger(__name__)

#: In which order free namespaces are offered: what costs no waiting comes first.
_OFFERED = {model.State.CLEAN: 0, model.State.DIRTY: 1, model.State.UNKNOWN: 2}


class HostPool:
    """The namespaces of one compute host."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._picks = Picks()
        #: of each resource class since the start
        self._totals: dict[str, int] = {}
        self.background = BackgroundWipe(pool)
        self.starts = Starts(self._release_all)

    @classmethod
    def open(cls, options: cfg.ConfigOpts, domains: Domains) -> "HostPool | None":
        """The pool that nova.conf describes; None when there is no persistent memory and never was.

        :raises PMEMNamespaceConfigInvalid: the options are wrong
        :raises GetPMEMNamespacesFailed: discovery or ledger fail
        """
        conf.register_opts(options)
        try:
            known = os.path.lexists(pathlib.Path(options.vpmem.state_path, ledger.FILE_NAME))
            if not options.libvirt.pmem_namespaces and not known:
                return None
            source = discovery.from_conf(options)
            if options.vpmem.discovery == "ndctl":
                # Nova's own privileged call: every compute host allows it already.
                source = NdctlDiscovery(run=privsep_libvirt.get_pmem_namespaces)
            pool = Pool.from_conf(
                options, source=source, domains=domains, leave_out_absent=True, wait=waiting.wait_here()
            )
            return cls(pool)
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
        """What is configured, by name, with the paths of this moment: LibvirtDriver._vpmems_by_name."""
        records = self._pool.records()
        identifiers = _identifiers(records)
        return {
            identifiers[record.uuid]: _device(
                identifiers[record.uuid], record.label, record.device or "", record.size, record.align
            )
            for record in records
            if record.uuid is not None and record.label is not None
        }

    def inventories(self) -> dict[str, dict[str, typing.Any]]:
        """Placement's inventories. What cannot be handed out is reserved, as long as it is nobody's.

        An inventory with a total of 0 is not allowed, and one in use must not go: Nova gives an allocation back some
        time after the guest is gone, so a class stays until the next start, all of it reserved.
        """
        now = {inventory.resource_class: inventory for inventory in self._pool.inventory() if inventory.total}
        self._totals |= {resource_class: inventory.total for resource_class, inventory in now.items()}
        return {
            resource_class: {
                "total": total,
                "max_unit": total,
                "min_unit": 1,
                "step_size": 1,
                "allocation_ratio": 1.0,
                "reserved": now[resource_class].unavailable if resource_class in now else total,
            }
            for resource_class, total in self._totals.items()
        }

    def resources(self, provider_uuid: str) -> dict[str, HandOut]:
        """What the resource tracker may pick from, and what it must find again, by resource class."""
        rows = {row.uuid: row for row in self._pool.ledger.rows()}
        records = self._pool.records()
        identifiers = _identifiers(records)
        found: dict[str, list[objects.Resource]] = collections.defaultdict(list)
        offered: dict[str, list[tuple[typing.Any, ...]]] = collections.defaultdict(list)
        for record in records:
            if record.uuid is None or record.label is None or record.resource_class is None:
                continue
            identifier = identifiers[record.uuid]
            # The path of a held one is as Nova has it on record.
            path = record.device if record.owner is None else rows[record.uuid].device
            found[record.resource_class].append(
                objects.Resource(
                    provider_uuid=provider_uuid,
                    resource_class=record.resource_class,
                    identifier=identifier,
                    metadata=_device(identifier, record.label, path or "", record.size, record.align),
                )
            )
            if record.owner is None and record.state in _OFFERED:
                node = -1 if record.numa_node is None else record.numa_node
                order = (_OFFERED[model.State(record.state)], node, record.size, identifier)
                offered[record.resource_class].append(order)
        return {
            resource_class: HandOut(
                resources,
                {order[-1]: rank for rank, order in enumerate(sorted(offered[resource_class]))},
                self._picks,
            )
            # A class that is left out would be skipped by the tracker, and its guest be made without a device.
            for resource_class, resources in ({name: [] for name in self.inventories()} | found).items()
        }

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
            grants = self._pool.claim_exact(owner, uuids, on_progress=wiping.ProgressLog())
        except (exception.NamespaceUnavailable, exception.UnknownNamespace, exception.NamespaceMissing) as error:
            raise nova_exception.ComputeResourcesUnavailable(reason=str(error)) from error
        except exception.VPMEMError as error:
            raise nova_exception.InternalError(str(error)) from error
        self._picks.forget(names)
        return grants

    def held(self, instance: objects.Instance) -> frozenset[str]:
        """The uuids of what the ledger has for the instance here."""
        return frozenset(row.uuid for row in self._pool.ledger.held(instance.uuid))

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
        self._picks.forget(names)
        if action is not Action.KEEP:
            self.starts.leaves(instance.uuid)
        try:
            held = self._pool.ledger.held(instance.uuid)
            if action is Action.KEEP or not held:
                return
            if action is Action.RENEW:
                self._pool.renew(instance.uuid)
            elif action is Action.RELEASE_NAMED:
                self.release(instance, [uuid for uuid in _which(names, held) if uuid is not None])
            else:
                self.starts.release(instance.uuid)
        except exception.VPMEMError as error:
            LOG.error("Instance %s: its persistent memory stays as it is: %s", instance.uuid, error)

    def release(self, instance: objects.Instance, uuids: Iterable[str]) -> None:
        """Give back exactly `uuids`; they are wiped in the background."""
        released = list(uuids)
        if released:
            self._pool.release(instance.uuid, released)
            self.background.start()

    def release_others(self, instance: objects.Instance, names: Sequence[str]) -> None:
        """Give back what the ledger has for the instance here, but for `names`: a resize is confirmed. Never raises."""
        try:
            held = self._pool.ledger.held(instance.uuid)
            kept = _which(names, held)
            self.release(instance, [row.uuid for row in held if row.uuid not in kept])
        except exception.VPMEMError as error:
            LOG.error("Instance %s: its old persistent memory stays as it is: %s", instance.uuid, error)

    def without_claim(
        self, instance: objects.Instance, resources: Sequence[objects.Resource]
    ) -> list[objects.Resource]:
        """Those of the instance's record that the ledger does not have for it."""
        told = _which([resource.identifier for resource in resources], self._pool.ledger.held(instance.uuid))
        return [resource for resource, uuid in zip(resources, told, strict=True) if uuid is None]

    def owners(self) -> frozenset[str]:
        """The instances for which the ledger has anything."""
        return frozenset(row.owner for row in self._pool.ledger.rows() if row.owner is not None)

    def names(self, owner: str) -> list[str]:
        """The names of what the ledger has for an owner, whether Nova knows it or not."""
        return [row.name or row.uuid for row in self._pool.ledger.held(owner)]

    def not_held(self, instance: objects.Instance, paths: Iterable[str]) -> list[str]:
        """Those of `paths` that lead to no device which the instance holds and which is wiped if it had to be."""
        devices = [
            record.device
            for record in self._pool.records()
            if record.owner == instance.uuid and record.state == model.State.CLAIMED and record.device is not None
        ]
        return [path for path in paths if not any(guests.same_device(path, device) for device in devices)]

    def _release_all(self, owner: str) -> None:
        try:
            self._pool.release(owner)
            self.background.start()
        except exception.NotOwner:
            pass  # another process has released it
        except exception.VPMEMError as error:
            LOG.error("Instance %s: its persistent memory stays as it is: %s", owner, error)


def _identifiers(records: Iterable[model.Record]) -> dict[str, str]:
    """What Nova is to call each namespace that has a label, by uuid."""
    named = [record for record in records if record.uuid is not None and record.label is not None]
    count = collections.Counter(record.name for record in named)
    return {
        uuid: name if (name := record.name) is not None and count[name] == 1 else uuid
        for record in named
        if (uuid := record.uuid) is not None
    }


def _which(names: Sequence[str], held: Iterable[model.Grant | ledger.Row]) -> list[str | None]:
    """The uuid of what an instance holds that its record calls by each of `names`; None for what it does not hold."""
    by_name = {grant.uuid: grant.name for grant in held}
    told: list[str | None] = [name if name in by_name else None for name in names]
    for index, name in enumerate(names):
        if told[index] is None:
            told[index] = next((uuid for uuid in by_name if by_name[uuid] == name and uuid not in told), None)
    return told


def _device(name: str, label: str, path: str, size: int, align: int) -> objects.LibvirtVPMEMDevice:
    return objects.LibvirtVPMEMDevice(label=label, name=name, devpath=path, size=size, align=align)
