"""One host's namespaces together with their ledger: the only object that front ends call.

It enforces the invariants of the package. Each change is one ledger transaction, committed before the caller learns of
the change.
"""

import logging
import os
import pathlib
import shlex
import threading
from collections.abc import Collection, Iterator, Sequence

from oslo_config import cfg

from vpmem_driver import discovery, exception, model
from vpmem_driver.discovery import interface
from vpmem_driver.engine import Engine, poll
from vpmem_driver.ledger import FILE_NAME, Ledger, Move, Row
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import claims, comparison, copies, hardware, holdings, labels, maintenance, requests, wipes
from vpmem_driver.pool.state import PoolState
from vpmem_driver.sizes import MIB

LOG = logging.getLogger(__name__)


class Pool:
    """The namespaces of one host. Any number of threads and processes may use pools on the same ledger."""

    def __init__(
        self,
        label_config: labels.LabelConfig,
        source: interface.Discovery,
        ledger: Ledger,
        wiper: wipes.Wiper,
        *,
        leave_out_absent: bool = False,
        choice: hardware.HardwareChoice | None = None,
    ) -> None:
        """Reconcile the ledger with what `source` finds now. Raises the same errors as :meth:`reconcile`.

        :param leave_out_absent: log a warning for configured namespaces that are absent or unusable, and leave them out
        :param choice: chooses the hardware of new claims
        """
        self._state = PoolState(label_config, source, ledger, leave_out_absent=leave_out_absent, hardware=choice)
        self._wiper = wiper
        self.copies = copies.Copies(self._state, wiper.engine, wiper.domains)
        self._claims = claims.Claims(self._state, wiper)
        self.claim = self._claims.claim
        self._holdings = holdings.Holdings(self._state)
        self.adopt = self._holdings.adopt
        self.release = self._holdings.release
        self.releasable = self._holdings.releasable
        self.renew = self._holdings.renew
        self.maintenance = maintenance.Maintenance(self._state, wiper, self.reconcile)
        self.wipe = self.maintenance.wipe
        self.reconcile()

    @classmethod
    def from_conf(
        cls,
        conf: cfg.ConfigOpts,
        *,
        source: interface.Discovery | None = None,
        domains: Domains | None = None,
        leave_out_absent: bool = False,
        wait: poll.Wait = poll.wait,
    ) -> "Pool":
        """Create the pool that the options of `conf` describe (:func:`vpmem_driver.conf.register_opts`).

        :param source: the discovery to use instead of ``[vpmem] discovery``
        :param domains: the domains to check before a wipe, instead of those of ``[vpmem] connection_uri``
        :param leave_out_absent: as for the class
        :param wait: as for :class:`vpmem_driver.engine.Engine`
        :raises ConfigurationError: an option is invalid
        :raises HostError: discovery or the ledger failed
        """
        label_config = labels.parse(conf.libvirt.pmem_namespaces)
        source = source or discovery.from_conf(conf)
        engine = Engine(
            source,
            parallel=conf.vpmem.wipe_parallel,
            threads=conf.vpmem.wipe_threads,
            rate=conf.vpmem.wipe_rate * MIB,
            command=shlex.split(conf.vpmem.wipe_command or ""),
            copy_command=shlex.split(conf.vpmem.copy_command or ""),
            copy_rate=conf.vpmem.copy_rate * MIB,
            wait=wait,
        )
        domains = domains or Domains(conf.vpmem.connection_uri)
        choice = hardware.from_conf(conf, label_config, domains.starts_virtio_pmem)
        ledger = Ledger(conf.vpmem.state_path)
        try:
            wiper = wipes.Wiper(ledger, engine, source.find, domains)
            return cls(label_config, source, ledger, wiper, leave_out_absent=leave_out_absent, choice=choice)
        except BaseException:
            ledger.close()
            raise

    @staticmethod
    def is_used(conf: cfg.ConfigOpts) -> bool:
        """Whether namespaces are configured, or were once: a ledger exists."""
        return bool(conf.libvirt.pmem_namespaces) or os.path.lexists(pathlib.Path(conf.vpmem.state_path, FILE_NAME))

    def close(self) -> None:
        """Close the ledger."""
        self._state.ledger.close()

    def reconcile(self) -> None:
        """End interrupted exports; then see :meth:`.state.PoolState.reconcile`."""
        self._state.reconcile()
        self.copies.end_stale()

    def marked(self, name: str) -> bool:
        """Whether :meth:`mark` has recorded `name` in the ledger."""
        return self._state.ledger.marked(name)

    def mark(self, name: str) -> None:
        """Record durably that the one-time task `name` is done for this ledger."""
        self._state.ledger.mark(name)

    # Contents of the ledger

    @property
    def ledger_path(self) -> pathlib.Path:
        """The ledger file, for messages."""
        return self._state.ledger.path

    def rows(self) -> list[Row]:
        """Return the row of every namespace ever recorded, sorted by name and uuid."""
        return self._state.ledger.rows()

    def held(self, owner: str) -> list[Row]:
        """Return the rows that `owner` holds or has reserved, in the order of its devices."""
        return self._state.ledger.held(owner)

    def owners(self) -> frozenset[str]:
        """Return all owners that hold or have reserved a namespace."""
        return frozenset(row.owner for row in self.rows() if row.owner is not None)

    def history(self, *, uuid: str | None = None, owner: str | None = None, limit: int | None = None) -> Iterator[Move]:
        """Yield the newest `limit` moves (None: all), oldest first, of one namespace or owner if given.

        :raises InvalidRequest: `owner` is not a uuid
        """
        owner = None if owner is None else requests.owner(owner)
        return self._state.ledger.history(uuid=uuid, owner=owner, limit=limit)

    # Contents of the host

    def records(self) -> tuple[model.Record, ...]:
        """Return every namespace of host and ledger, sorted by name and uuid."""
        return self._state.view.records(self._state.ledger.rows())

    def inventory(self) -> tuple[model.Inventory, ...]:
        """Return the number of namespaces of each label, in the order of the configuration."""
        with self._state.change() as table:
            return table.inventory()

    def free(self, resource_class: str, without: Collection[str]) -> int:
        """Return the number of free namespaces of a resource class, not counting the uuids `without`; 0 if retired."""
        if self.maintenance.is_retired():
            return 0
        with self._state.read() as table:
            classes = self._state.view.config.resource_classes
            return table.free(classes.index(resource_class), without) if resource_class in classes else 0

    def next_free(
        self, resource_class: str, without: Collection[str], numa_node: int | None = None
    ) -> model.Namespace | None:
        """Return the namespace that a claim of this resource class would get now. It stays free.

        :param without: uuids of namespaces that must not be chosen
        :returns: None if none is free, or if the host is retired
        """
        if self.maintenance.is_retired():
            return None
        with self._state.read() as table:
            classes = self._state.view.config.resource_classes
            if resource_class not in classes:
                return None
            chosen = table.choose([classes.index(resource_class)], numa_node, without)
            return self._state.view.usable[chosen[0]] if chosen else None

    def grants(self, owner: str, *, required: bool = False) -> tuple[model.Grant, ...]:
        """Reconcile, and return what `owner` holds, in the order of its devices, with current device paths.

        :param required: refuse an owner that holds nothing
        :raises InvalidRequest: `owner` is not a uuid
        :raises NotOwner: it holds nothing, and `required` is true
        """
        owner = requests.owner(owner)
        self.reconcile()
        held = self._state.ledger.held(owner)
        if required:
            holdings.require_any(owner, held)
        return tuple(self._state.view.grant(row) for row in held)

    def hardware(self, uuid: str) -> model.Hardware:
        """Return what the namespace is in its owner's guest, or what the configuration makes of it for a new owner.

        :raises UnknownNamespace: the ledger has no such namespace
        :raises InvalidOption, LibvirtError: see :meth:`.hardware.HardwareChoice.choose`
        """
        row = self._state.row(uuid)
        return row.hardware or self._state.hardware.choose(row, self._state.view.label(row))

    def grant(self, row: Row) -> model.Grant:
        """Return a row with the current path of its device, as of the last reconcile."""
        return self._state.view.grant(row)

    def find(self, namespace: str) -> str:
        """Return the uuid of the namespace with that name or uuid.

        :raises UnknownNamespace: no namespace has it
        :raises InvalidRequest: several have that name, or it is unusable
        """
        record = self.record(namespace)
        if record.uuid is None or record.state == "unusable":
            raise exception.InvalidRequest(
                what="namespace", value=namespace, reason=record.reason, remedy="Choose another namespace"
            )
        return record.uuid

    def record(self, namespace: str) -> model.Record:
        """Return the record of the namespace with that name or uuid.

        :raises UnknownNamespace: no namespace has it
        :raises InvalidRequest: several have that name
        """
        view = self._state.view
        candidates = {namespace.lower(), *(ns.uuid for ns in view.found if ns.name == namespace and ns.uuid)}
        # Names are printable (discovery.interface.check). Python cannot pass every other text to SQLite.
        rows = self._state.ledger.named(namespace, candidates) if namespace.isprintable() else ()
        records = view.records(rows)
        found = [record for record in records if namespace.lower() == record.uuid or namespace == record.name]
        if not found:
            raise exception.UnknownNamespace(namespace=namespace)
        if len(found) > 1:
            uuids = ", ".join(f"{record.uuid} ({record.state})" for record in found)
            raise exception.InvalidRequest(
                what="namespace",
                value=namespace,
                reason=f"several namespaces have that name: {uuids}",
                remedy="Identify it by its uuid",
            )
        return found[0]

    # Claiming

    def claim_exact(
        self,
        owner: str,
        uuids: Sequence[str],
        *,
        on_progress: wipes.OnProgress | None = None,
        stop: threading.Event | None = None,
        hardware: model.Hardware | None = None,
    ) -> tuple[model.Grant, ...]:
        """End interrupted exports; then see :meth:`.claims.Claims.claim_exact`."""
        self.copies.end_stale()
        return self._claims.claim_exact(owner, uuids, on_progress=on_progress, stop=stop, hardware=hardware)

    # Releasing

    def require_abandoned(self, owner: str, uuids: Collection[str] | None = None) -> None:
        """Verify that `owner` has no domain, and that no domain and no process has what it holds, or only `uuids`.

        Processes that this user may not inspect are not found. The wipe looks for them again.

        :raises InvalidRequest: `owner` is not a uuid
        :raises NotOwner: `owner` does not hold them
        :raises DomainRefused: there is a domain with that uuid, or the XML of a domain cannot be read
        :raises NamespaceInUse: a domain, running or in its definition, or a process has one
        :raises LibvirtError: libvirt does not answer
        """
        owner = requests.owner(owner)
        comparison.require_abandoned(owner, self._holdings.held(owner, uuids), self._state.view, self._wiper.domains)

    # The history

    def prune_history(self, days: int) -> None:
        """Remove what is older than `days` days from the history, unless it explains a namespace's state.

        At most once in 24 hours; 0 days: never. A failure is logged, since nothing depends on it.
        """
        if not days:
            return
        try:
            if removed := self._state.ledger.prune_history(days):
                LOG.info("Removed %d lines older than %d days from the history", removed, days)
        except exception.LedgerError as error:
            LOG.warning("Old lines remain in the history: %s", error)
