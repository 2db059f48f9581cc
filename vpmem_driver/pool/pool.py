"""One host's namespaces together with their ledger: the only object that front ends call.

It enforces the invariants of the package. Each change is one ledger transaction, committed before the caller learns of
the change.
"""

import dataclasses
import logging
import os
import pathlib
import shlex
import threading
import types
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from oslo_config import cfg

from vpmem_driver import discovery, exception, model
from vpmem_driver.discovery import interface
from vpmem_driver.engine import Engine, Outcome, Result, poll
from vpmem_driver.ledger import FILE_NAME, Ledger, Move, Row
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import State
from vpmem_driver.pool import claims, comparison, copies, hardware, labels, media, requests, reservations, wipes
from vpmem_driver.pool.state import RETIRED, PoolState, names
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
        self._claims = claims.Claims(self._state, wiper)
        self.copies = copies.Copies(self._state, wiper.engine, wiper.domains)
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
        """Return the number of free namespaces of a resource class, not counting the uuids `without`."""
        with self._state.read() as table:
            classes = self._state.view.config.resource_classes
            return table.free(classes.index(resource_class), without) if resource_class in classes else 0

    def next_free(
        self, resource_class: str, without: Collection[str], numa_node: int | None = None
    ) -> model.Namespace | None:
        """Return the namespace that a claim of this resource class would get now. It stays free.

        :param without: uuids of namespaces that must not be chosen
        :returns: None if none is free
        """
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
            _require_any(owner, held)
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

    def claim(
        self,
        owner: str,
        wanted: Sequence[str],
        *,
        numa_node: int | None = None,
        on_progress: wipes.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[model.Grant, ...]:
        """See :meth:`.claims.Claims.claim`."""
        return self._claims.claim(owner, wanted, numa_node=numa_node, on_progress=on_progress, stop=stop)

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

    def adopt(
        self,
        owner: str,
        uuids: Sequence[str],
        *,
        why: str = "a guest holds it",
        label_of: Mapping[str, str] = types.MappingProxyType({}),
        in_domain: bool = False,
        hardware_of: Mapping[str, model.Hardware] = types.MappingProxyType({}),
    ) -> tuple[model.Grant, ...]:
        """Claim namespaces that the guest of `owner` already uses, in this order, and keep their content.

        Nothing is wiped. What the owner already holds does not change. A dirty namespace returns only to the owner
        whose data it still contains.

        :param why: reason for the history
        :param label_of: labels by uuid, for namespaces that the owner has under a label other than the configured one
        :param in_domain: a domain of the owner uses the namespaces; clean ones are then adopted too
        :param hardware_of: what the guest's device is, by uuid; the default is that of Nova's in-tree driver
        :raises InvalidRequest: `owner` is not a uuid
        :raises UnknownNamespace: the ledger has no such namespace
        :raises NotOwner: another owner holds one, or one contains another owner's data; nothing was changed
        :raises NamespaceUnavailable: one is clean; nothing was changed
        """
        owner = requests.owner(owner)
        with self._state.change():
            rows = [self._state.row(uuid) for uuid in uuids]
            for row in rows:
                requests.require_adoptable(owner, row, in_domain=in_domain)
            position = self._state.ledger.next_position(owner)
            for row in rows:
                if row.owner is None:
                    label = label_of.get(row.uuid)
                    self._state.move(
                        row,
                        State.CLAIMED,
                        f"adopted: {why}",
                        owner=owner,
                        position=position,
                        label=label,
                        hardware=hardware_of.get(row.uuid, model.IN_TREE),
                    )
                    position += 1
            self._state.label_held(self._state.ledger.rows())
        LOG.info("%s adopted %s: %s", owner, names(rows), why)
        return tuple(self._state.view.grant(row) for row in self._state.ledger.held(owner) if row.uuid in uuids)

    # Releasing

    def release(
        self, owner: str, uuids: Collection[str] | None = None, *, why: str = "released"
    ) -> tuple[model.Record, ...]:
        """Release all that `owner` holds, or only `uuids`. They are dirty and unowned when this returns.

        A reserved namespace was never used by the owner: it returns to the state that describes its bytes, and so do
        the other namespaces of the same claim.

        :param why: reason for the history
        :returns: the released namespaces
        :raises InvalidRequest: `owner` is not a uuid
        :raises NotOwner: `owner` does not hold them; nothing was changed
        """
        owner = requests.owner(owner)
        with self._state.change() as table:
            released = self._held(owner, uuids)
            now = {
                row.uuid: row
                for release in (self._release_claimed, self._release_receiving, self._release_reserved)
                for row in release(released, why)
            }
            table.follow(now.values())
            if any(self._state.configured.get(uuid) != self._state.view.label_of.get(uuid) for uuid in now):
                self._state.label_held(self._state.ledger.rows())
        LOG.info("%s released %s", owner, names(released))
        return tuple(self._state.view.record(now[row.uuid]) for row in released)

    def renew(self, owner: str, uuids: Collection[str] | None = None) -> None:
        """Mark all that `owner` holds, or only `uuids`, for a wipe, and reserve it for the same owner.

        :meth:`claim_exact` waits for the wipes.

        :raises InvalidRequest: `owner` is not a uuid
        :raises NotOwner: `owner` does not hold them; nothing was changed
        """
        owner = requests.owner(owner)
        with self._state.change():
            renewed = self._held(owner, uuids)
            for row in renewed:
                if row.state is State.CLAIMED:
                    # One reservation each: if one wipe fails, the owner keeps the others.
                    self._state.move(
                        row,
                        State.DIRTY,
                        "renewed",
                        owner=owner,
                        position=row.position,
                        reservation=reservations.new_id(),
                    )
        LOG.info("%s keeps %s, to be wiped", owner, names(renewed))

    def releasable(self, owner: str, uuids: Collection[str] | None = None) -> tuple[model.Record, ...]:
        """Return what :meth:`release` would release, and change nothing. Raises the same errors."""
        return tuple(self._state.view.record(row) for row in self._held(requests.owner(owner), uuids))

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
        comparison.require_abandoned(owner, self._held(owner, uuids), self._state.view, self._wiper.domains)

    # Wiping

    def wipeable(self, uuids: Collection[str] | None = None) -> tuple[model.Record, ...]:
        """Return what :meth:`wipe` would wipe, and change nothing. Raises the same errors."""
        return tuple(self._state.view.record(row) for row in self._to_wipe(uuids))

    def wipe(
        self,
        uuids: Collection[str] | None = None,
        *,
        on_progress: wipes.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> list[Result]:
        """Wipe `uuids`, or all dirty namespaces, and wait until they end. An interrupted wipe resumes.

        `uuids` may also contain unknown and quarantined namespaces, at the operator's request. Clean ones are skipped.

        :raises UnknownNamespace: the ledger has no such namespace
        :raises NamespaceClaimed: one is claimed; nothing was changed
        :raises NamespaceMissing: one is not on the host; nothing was changed
        """
        with self._state.change():
            before = self._to_wipe(uuids)
            self._mark_dirty(before, "wipe requested by the operator")
        return self._wipe_requested(before, on_progress, stop)

    def repair(self, uuid: str, *, on_progress: wipes.OnProgress | None = None) -> list[Result]:
        """Clear the bad ranges of an unowned namespace, wipe it, and look for bad ranges again.

        It is quarantined until all that has succeeded, so that no claim takes it.

        :raises UnknownNamespace, NamespaceMissing: the ledger has no such namespace, or it is not on the host
        :raises NamespaceClaimed: an owner holds or has reserved it
        :raises NamespaceInUse: a domain, running or in its definition, or a process has it
        :raises HostToolError: ndctl cannot be run
        """
        self.repairable(uuid)
        device = self._state.view.usable[uuid].device or ""
        user = self._wiper.users_of([device]).get(device) or self._wiper.domains.user_of(device, defined=True)
        if user is not None:
            raise exception.NamespaceInUse(namespace=self._state.row(uuid).name or uuid, user=user)
        with self._state.change():
            self.repairable(uuid)
            row = self._state.row(uuid)
            if row.state is not State.QUARANTINED:
                media.quarantine(self._state, row, media.bad(self._state, row) or "repair requested by the operator")
        media.clear_errors(device)
        self.reconcile()  # ndctl has disabled and enabled the namespace
        results = self.wipe([uuid], on_progress=on_progress)
        return [self._look_again(result) for result in results]

    def repairable(self, uuid: str) -> model.Record:
        """Return the record of a namespace that :meth:`repair` would repair. Raises the same errors, if known now."""
        row = self._state.row(uuid)
        if row.owner is not None:
            raise exception.NamespaceClaimed(namespace=row.name or row.uuid, owner=row.owner)
        if row.uuid not in self._state.view.usable:
            raise exception.NamespaceMissing(namespace=row.name or row.uuid)
        return self._state.view.record(row)

    def _look_again(self, result: Result) -> Result:
        """Return the result of a wipe, or a failure if the namespace still has bad ranges: it is quarantined then."""
        reason = media.bad(self._state, self._state.row(result.uuid))
        if reason is None or result.outcome is not Outcome.WIPED:
            return result
        with self._state.change():
            row = self._state.row(result.uuid)
            if row.state is State.CLEAN and row.owner is None:
                media.quarantine(self._state, row, reason)
        return dataclasses.replace(result, outcome=Outcome.MEDIA, reason=reason)

    def retirable(self) -> tuple[model.Record, ...]:
        """Return what :meth:`retire` would wipe, and change nothing. Raises the same errors."""
        return tuple(self._state.view.record(row) for row in self._to_retire())

    def retire(
        self, *, on_progress: wipes.OnProgress | None = None, stop: threading.Event | None = None
    ) -> list[Result]:
        """Let no owner have a namespace of this host from now on, and wipe them all, clean ones too.

        A namespace without a label that was never claimed or wiped here is not this program's, and is left alone.

        :raises NamespaceClaimed: an owner holds or has reserved one; nothing was changed
        """
        with self._state.change():
            before = self._to_retire()
            self._state.ledger.add_mark(RETIRED)
            self._mark_dirty(before, "host retired")
        return self._wipe_requested(before, on_progress, stop)

    def is_retired(self) -> bool:
        """Whether :meth:`retire` was called, and :meth:`return_to_service` was not."""
        return self.marked(RETIRED)

    def return_to_service(self) -> bool:
        """Let owners have namespaces of this host again. :returns: False if it was not retired."""
        with self._state.change():
            return self._state.ledger.unmark(RETIRED)

    def dirty(self) -> list[str]:
        """Return the uuids of the dirty namespaces that are on this host."""
        return [row.uuid for row in self._to_wipe(None)]

    def wipe_dirty(
        self,
        uuids: Collection[str],
        *,
        on_progress: wipes.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> list[Result]:
        """Wipe the dirty namespaces among `uuids`, and wait until they end. The others do not change."""
        return self._wiper.wipe(uuids, on_progress=on_progress, stop=stop)

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

    # Helpers

    def _release_claimed(self, rows: Iterable[Row], why: str) -> list[Row]:
        return [self._state.move(row, State.DIRTY, why) for row in rows if row.state is State.CLAIMED]

    def _release_receiving(self, rows: Iterable[Row], why: str) -> list[Row]:
        return [copies.return_receiving(self._state, row, why) for row in rows if row.state is State.RECEIVING]

    def _release_reserved(self, rows: Iterable[Row], why: str) -> list[Row]:
        """Cancel the reservations that `rows` belong to.

        :returns: the new rows of every namespace of these reservations
        """
        cancelled = {row.reservation: row for row in rows if row.reservation is not None}
        return [
            released
            for row in cancelled.values()
            for released in reservations.cancel(self._state.ledger, reservations.members(self._state.ledger, row), why)
        ]

    def _held(self, owner: str, uuids: Collection[str] | None) -> list[Row]:
        """Return the rows of `owner`, or only those of `uuids`.

        :raises NotOwner: `owner` does not hold one of them, or holds nothing
        """
        held = {row.uuid: row for row in self._state.ledger.held(owner)}
        _require_any(owner, held)
        for uuid in uuids or ():
            if uuid not in held:
                row = self._state.row(uuid)
                raise exception.NotOwner(
                    owner=owner,
                    namespace=row.name or uuid,
                    reason=f"it belongs to {row.owner}" if row.owner else f"it is {row.state} and unowned",
                )
        return [held[uuid] for uuid in (held if uuids is None else dict.fromkeys(uuids))]

    def _to_wipe(self, uuids: Collection[str] | None) -> list[Row]:
        if uuids is None:
            return [
                row
                for row in self._state.ledger.rows()
                if row.state is State.DIRTY and row.uuid in self._state.view.usable
            ]
        rows = [self._state.row(uuid) for uuid in dict.fromkeys(uuids)]
        for row in rows:
            if row.state in {State.CLAIMED, State.RECEIVING}:
                raise exception.NamespaceClaimed(namespace=row.name or row.uuid, owner=row.owner)
            if row.uuid not in self._state.view.usable:
                raise exception.NamespaceMissing(namespace=row.name or row.uuid)
        return [row for row in rows if row.state is not State.CLEAN]

    def _to_retire(self) -> list[Row]:
        """Return the rows of this program's namespaces that are on this host.

        :raises NamespaceClaimed: an owner holds or has reserved a namespace, also one that is missing
        """
        rows = self._state.ledger.rows()
        for row in rows:
            if row.owner is not None:
                raise exception.NamespaceClaimed(namespace=row.name or row.uuid, owner=row.owner)
        view = self._state.view
        return [
            row
            for row in rows
            if row.uuid in view.usable and (row.uuid in view.label_of or row.state is not State.UNKNOWN)
        ]

    def _mark_dirty(self, rows: Iterable[Row], why: str) -> None:
        for row in rows:
            if row.state is not State.DIRTY:
                self._state.move(row, State.DIRTY, why)

    def _wipe_requested(
        self, before: list[Row], on_progress: wipes.OnProgress | None, stop: threading.Event | None
    ) -> list[Result]:
        """Wipe namespaces that are dirty now.

        :param before: their rows before they became dirty
        """
        try:
            return self._wiper.wipe([row.uuid for row in before], on_progress=on_progress, stop=stop)
        finally:
            self._restore_unknown(before)

    def _restore_unknown(self, before: list[Row]) -> None:
        """Move what was unknown, and was not overwritten, back to unknown: a guest may still turn out to use it."""
        with self._state.change():
            for old in before:
                row = self._state.row(old.uuid)
                untouched = row.state is State.DIRTY and row.owner is None and row.last_owner is None and not row.begun
                if old.state is State.UNKNOWN and untouched:  # otherwise it may contain the data of a later owner
                    self._state.move(row, State.UNKNOWN, "not wiped")


def _require_any(owner: str, held: Collection[object]) -> None:
    if not held:
        raise exception.NotOwner(owner=owner, namespace="any namespace", reason="the ledger records none for it")
