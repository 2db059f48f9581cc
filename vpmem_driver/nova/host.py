"""One compute host's pool, spoken to in Nova's records: instances, resources, resource classes.

Nova's own objects stay as the in-tree driver makes them, so that going back needs no change in the database: a
Resource is told by the namespace's name, and its LibvirtVPMEMDevice has the path of the moment it was picked.
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
from vpmem_driver.nova.background import BackgroundWipe
from vpmem_driver.nova.decisions import Action
from vpmem_driver.nova.resources import HandOut, Picks
from vpmem_driver.pool import Pool

LOG = logging.getLogger(__name__)

#: In which order free namespaces are offered: what costs no waiting comes first.
_OFFERED = {model.State.CLEAN: 0, model.State.DIRTY: 1, model.State.UNKNOWN: 2}


class HostPool:
    """The namespaces of one compute host."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._picks = Picks()
        self.background = BackgroundWipe(pool)

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
            return cls(Pool.from_conf(options, source=source, domains=domains))
        except (exception.ConfigurationError, cfg.Error) as error:
            raise nova_exception.PMEMNamespaceConfigInvalid(reason=str(error)) from error
        except exception.VPMEMError as error:
            raise nova_exception.GetPMEMNamespacesFailed(reason=str(error)) from error

    # What there is

    def devices(self) -> dict[str, objects.LibvirtVPMEMDevice]:
        """What is configured, by name, with the paths of this moment: LibvirtDriver._vpmems_by_name."""
        return {
            record.name: _device(record.name, record.label, record.device or "", record.size, record.align)
            for record in self._pool.records()
            if record.name is not None and record.label is not None
        }

    def inventories(self) -> dict[str, dict[str, typing.Any]]:
        """Placement's inventories. What cannot be handed out is reserved, as long as it is nobody's.

        An inventory with a total of 0 is not allowed, and one in use must not go.
        """
        return {
            inventory.resource_class: {
                "total": inventory.total,
                "max_unit": inventory.total,
                "min_unit": 1,
                "step_size": 1,
                "allocation_ratio": 1.0,
                "reserved": inventory.unavailable,
            }
            for inventory in self._pool.inventory()
            if inventory.total
        }

    def resources(self, provider_uuid: str) -> dict[str, set[objects.Resource]]:
        """What the resource tracker may pick from, and what it must find again, by resource class."""
        rows = self._pool.ledger.rows()
        records = {record.uuid: record for record in self._pool.records()}
        found: dict[str, list[objects.Resource]] = collections.defaultdict(list)
        offered: dict[str, list[tuple[typing.Any, ...]]] = collections.defaultdict(list)
        for row in rows:
            record = records[row.uuid]
            if record.label is None or row.name is None or record.resource_class is None:
                continue
            if row.owner is not None:  # as Nova has it on record
                device = _device(row.name, row.label or record.label, row.device or "", row.size, row.align)
            else:
                device = _device(row.name, record.label, record.device or "", row.size, row.align)
            found[record.resource_class].append(
                objects.Resource(
                    provider_uuid=provider_uuid,
                    resource_class=record.resource_class,
                    identifier=row.name,
                    metadata=device,
                )
            )
            if row.owner is None and record.state in _OFFERED:
                node = -1 if row.numa_node is None else row.numa_node
                order = (_OFFERED[model.State(record.state)], node, row.size, row.name)
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
            if rebuilding and len(held) == len(names) and {grant.name for grant in held} != set(names):
                LOG.warning("Instance %s keeps %s: its record has %s", owner, [grant.name for grant in held], names)
                uuids = [grant.uuid for grant in held]
            else:
                uuids = [self._uuid(name, held) for name in names]
            grants = self._pool.claim_exact(owner, uuids, on_progress=wiping.ProgressLog())
        except (exception.NamespaceUnavailable, exception.UnknownNamespace, exception.NamespaceMissing) as error:
            raise nova_exception.ComputeResourcesUnavailable(reason=str(error)) from error
        except exception.VPMEMError as error:
            raise nova_exception.InternalError(str(error)) from error
        self._picks.forget(grant.name for grant in grants)
        return grants

    def held(self, instance: objects.Instance) -> frozenset[str]:
        """The uuids of what the ledger has for the instance here."""
        return frozenset(row.uuid for row in self._pool.ledger.held(instance.uuid))

    def paths(self, instance: objects.Instance, name: str) -> frozenset[str]:
        """What the instance's guest may call its namespace `name`: the path it was granted under, and that of now."""
        grants = [grant for grant in self._pool.grants(instance.uuid) if grant.name == name]
        return frozenset(path for grant in grants for path in (grant.known_device, grant.device) if path is not None)

    def carry_out(self, action: Action, instance: objects.Instance, names: Sequence[str]) -> None:
        """Do what was decided; `names` are those of the instance's record. Never raises: Nova must go on.

        What cannot be done is logged, and the ledger keeps what it has.
        """
        self._picks.forget(names)
        try:
            held = self._pool.ledger.held(instance.uuid)
            if action is Action.KEEP or not held:
                return
            if action is Action.RENEW:
                self._pool.renew(instance.uuid)
            elif action is Action.RELEASE_NAMED:
                self.release(instance, [row.uuid for row in held if row.name in names])
            else:
                self.release(instance, [row.uuid for row in held])
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
            self.release(instance, [row.uuid for row in held if row.name not in names])
        except exception.VPMEMError as error:
            LOG.error("Instance %s: its old persistent memory stays as it is: %s", instance.uuid, error)

    def adopt(self, instance: objects.Instance, names: Sequence[str]) -> None:
        """Take over what a guest of the in-tree driver holds, as it is. What the ledger has already stays.

        :raises VPMEMError: another owner has it, or its bytes are in it
        """
        held = self._pool.ledger.held(instance.uuid)
        known = {row.name for row in held}
        uuids = [self._uuid(name, ()) for name in names if name not in known]
        if uuids:
            self._pool.adopt(instance.uuid, uuids, why="Nova has it on record for this instance")

    def owners(self) -> frozenset[str]:
        """The instances for which the ledger has anything."""
        return frozenset(row.owner for row in self._pool.ledger.rows() if row.owner is not None)

    def release_deleted(self, owner: str) -> None:
        """Give back what an instance holds that Nova has deleted while this host was down."""
        self._pool.release(owner)
        self.background.start()

    def _uuid(self, name: str, held: Sequence[model.Grant]) -> str:
        """The namespace that Nova calls `name`. The instance's own comes first: names may repeat."""
        return next((grant.uuid for grant in held if grant.name == name), None) or self._pool.find(name)


def _device(name: str, label: str, path: str, size: int, align: int) -> objects.LibvirtVPMEMDevice:
    return objects.LibvirtVPMEMDevice(label=label, name=name, devpath=path, size=size, align=align)
