"""One host's namespaces together with their ledger: the object that everything else calls.

The invariants of the package hold here. Each change is one ledger transaction, made before anybody is told of it.
"""

import logging
import shlex
import threading
import types
from collections.abc import Collection, Mapping, Sequence

from oslo_config import cfg

from vpmem_driver import discovery, exception, labels, model, wiping
from vpmem_driver.discovery import base
from vpmem_driver.domains import Domains
from vpmem_driver.ledger import Ledger, Row
from vpmem_driver.model import State
from vpmem_driver.pool import requests
from vpmem_driver.pool.books import Books
from vpmem_driver.wipe import Engine, Outcome, waiting

LOG = logging.getLogger(__name__)


class Pool(Books):
    """The namespaces of one host. Any number of threads and processes may use pools on one ledger at once."""

    def __init__(
        self,
        label_config: labels.LabelConfig,
        source: base.Discovery,
        records: Ledger,
        wiper: wiping.Wiper,
        *,
        leave_out_absent: bool = False,
    ) -> None:
        """Reconcile the ledger with what `source` sees now; see :meth:`reconcile` for what that raises.

        :param leave_out_absent: warn of what is configured and absent or not usable, and go on without it
        """
        super().__init__(label_config, source, records, leave_out_absent=leave_out_absent)
        self._wiper = wiper
        self.reconcile()

    @classmethod
    def from_conf(
        cls,
        conf: cfg.ConfigOpts,
        *,
        source: base.Discovery | None = None,
        domains: Domains | None = None,
        leave_out_absent: bool = False,
        wait: waiting.Wait = waiting.wait,
    ) -> "Pool":
        """The pool that the options of `conf` describe (:func:`vpmem_driver.conf.register_opts`).

        :param source: where namespaces come from, instead of ``[vpmem] discovery``
        :param domains: the guests to ask before a wipe, instead of ``[vpmem] connection_uri``
        :param leave_out_absent: as for the class
        :param wait: as for :class:`vpmem_driver.wipe.Engine`
        :raises ConfigurationError: the options are wrong
        :raises HostError: discovery or ledger fail
        """
        label_config = labels.parse(conf.libvirt.pmem_namespaces)
        source = source or discovery.from_conf(conf)
        engine = Engine(
            source,
            parallel=conf.vpmem.wipe_parallel,
            threads=conf.vpmem.wipe_threads,
            rate=conf.vpmem.wipe_rate * 1024 * 1024,
            command=shlex.split(conf.vpmem.wipe_command or ""),
            wait=wait,
        )
        domains = domains or Domains(conf.vpmem.connection_uri)
        records = Ledger(conf.vpmem.state_path)
        try:
            wiper = wiping.Wiper(records, engine, source.find, domains)
            return cls(label_config, source, records, wiper, leave_out_absent=leave_out_absent)
        except BaseException:
            records.close()
            raise

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    @property
    def ledger(self) -> Ledger:
        """The record itself, for reading its history."""
        return self._ledger

    def marked(self, name: str) -> bool:
        """Whether :meth:`mark` has recorded `name` in the ledger."""
        return self._ledger.marked(name)

    def mark(self, name: str) -> None:
        """Record durably that something is done which is done once for each ledger."""
        self._ledger.mark(name)

    # What there is

    def records(self) -> tuple[model.Record, ...]:
        """Every namespace of host, configuration and ledger, by name and uuid."""
        return self._view.records(self._ledger.rows())

    def inventory(self) -> tuple[model.Inventory, ...]:
        """How many of each label there are, in the order of the configuration."""
        with self._change() as table:
            return table.inventory()

    def grants(self, owner: str) -> tuple[model.Grant, ...]:
        """What `owner` holds, in the order of its devices, with the device paths of this moment.

        :raises InvalidRequest: `owner` is no uuid
        """
        owner = requests.owner(owner)
        self.reconcile()
        return tuple(self._view.grant(row) for row in self._ledger.held(owner))

    def find(self, namespace: str) -> str:
        """The uuid of the namespace that an operator calls by its name or uuid.

        :raises UnknownNamespace: there is none
        :raises InvalidRequest: several have that name, or it cannot be given to a guest
        """
        record = self.record(namespace)
        if record.uuid is None or record.state == "unusable":
            raise exception.InvalidRequest(
                what="namespace", value=namespace, reason=record.reason, remedy="Choose another one."
            )
        return record.uuid

    def record(self, namespace: str) -> model.Record:
        """What listings show of the namespace that an operator calls by its name or uuid.

        :raises UnknownNamespace: there is none
        :raises InvalidRequest: several have that name
        """
        found = [record for record in self.records() if namespace.lower() == record.uuid or namespace == record.name]
        if not found:
            raise exception.UnknownNamespace(namespace=namespace)
        if len(found) > 1:
            uuids = ", ".join(f"{record.uuid} ({record.state})" for record in found)
            raise exception.InvalidRequest(
                what="namespace", value=namespace, reason=f"several have that name: {uuids}", remedy="Give its uuid."
            )
        return found[0]

    # Claiming

    def claim(
        self,
        owner: str,
        wanted: Sequence[str],
        *,
        numa_node: int | None = None,
        on_progress: wiping.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[model.Grant, ...]:
        """Claim one namespace for each label of `wanted`, all or nothing, wiping first what is not clean.

        :returns: a grant per label, in the order of `wanted`
        :raises InvalidRequest: owner or labels are wrong
        :raises InsufficientNamespaces: there are not enough free ones; nothing was changed
        :raises VPMEMError: a namespace could not be wiped and no other is free; see :func:`wiping.raise_for`
        """
        owner = requests.owner(owner)
        label_ids = requests.label_ids(self._config, wanted)
        failures: dict[str, wiping.Result] = {}
        while True:
            try:
                before, taken = self._reserve(owner, label_ids, numa_node, failures)
            except exception.InsufficientNamespaces:
                wiping.raise_for(failures.values())  # without these there would have been enough
                raise
            if all(row.state is State.CLAIMED for row in taken):
                return tuple(self._view.grant(row) for row in taken)
            failed = self._finish(owner, before, on_progress, stop)
            if not failed:
                return self._granted(owner, before)
            if stop is not None and stop.is_set():
                wiping.raise_for(failed.values())
            failures |= failed

    def claim_exact(
        self,
        owner: str,
        uuids: Sequence[str],
        *,
        on_progress: wiping.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[model.Grant, ...]:
        """Claim exactly these, in this order, all or nothing, wiping first what is not clean.

        What the owner has already stays as it is; what is reserved for it is wiped to the end.

        :returns: a grant for each of `uuids`
        :raises InvalidRequest: `owner` is no uuid
        :raises UnknownNamespace: the ledger has no such namespace
        :raises NamespaceUnavailable: one is somebody else's, quarantined or missing; nothing was changed
        :raises VPMEMError: one could not be wiped; see :func:`wiping.raise_for`
        """
        owner = requests.owner(owner)
        before = self._reserve_exact(owner, uuids)
        failed = self._finish(owner, before, on_progress, stop)
        wiping.raise_for(failed.values())
        return self._granted(owner, before)

    def adopt(
        self,
        owner: str,
        uuids: Sequence[str],
        *,
        why: str = "a guest holds it",
        label_of: Mapping[str, str] = types.MappingProxyType({}),
    ) -> tuple[model.Grant, ...]:
        """Give `owner` the namespaces that its guest is found to hold, as they are, in this order.

        Nothing is wiped. What the owner holds already stays. A dirty one is given back only to the owner whose bytes
        are still in it.

        :param label_of: label by uuid, for those that the owner has under another than the configured one
        :raises InvalidRequest: `owner` is no uuid
        :raises UnknownNamespace: the ledger has no such namespace
        :raises NotOwner: another one holds it, or has left its bytes in it; nothing was changed
        """
        owner = requests.owner(owner)
        with self._change():
            rows = [self._row(uuid) for uuid in uuids]
            for row in rows:
                requests.adoption(owner, row)
            position = self._ledger.next_position(owner)
            for row in rows:
                if row.owner is None:
                    label = label_of.get(row.uuid)
                    self._move(row, State.CLAIMED, f"adopted: {why}", owner=owner, position=position, label=label)
                    position += 1
            self._label_held(self._ledger.rows())
        LOG.info("%s keeps %s as it is: %s", owner, _names(rows), why)
        return tuple(self._view.grant(row) for row in self._ledger.held(owner) if row.uuid in uuids)

    # Releasing

    def release(self, owner: str, uuids: Collection[str] | None = None) -> tuple[model.Record, ...]:
        """Take back what `owner` holds, or exactly `uuids` of it. They are dirty, and nobody's, when this returns.

        :returns: the released namespaces
        :raises InvalidRequest: `owner` is no uuid
        :raises NotOwner: it does not hold them; nothing was changed
        """
        owner = requests.owner(owner)
        with self._change() as table:
            released = self._held(owner, uuids)
            table.release(owner, [row.uuid for row in released])
            # A reservation that ends early keeps its wipe's progress: nobody has written since.
            dirty = [self._move(row, State.DIRTY, "released", begun=row.begun, wiped=row.wiped) for row in released]
            table.saw(dirty)
            if any(self._configured.get(row.uuid) != self._view.label_of.get(row.uuid) for row in released):
                self._label_held(self._ledger.rows())
        LOG.info("%s released %s", owner, _names(released))
        return tuple(self._view.record(row) for row in dirty)

    def renew(self, owner: str) -> None:
        """Have all that `owner` holds wiped, and keep it for that owner, who starts anew.

        They are reserved when this returns; :meth:`claim_exact` waits for their wipes.

        :raises InvalidRequest: `owner` is no uuid
        :raises NotOwner: it holds nothing
        """
        owner = requests.owner(owner)
        with self._change():
            renewed = self._held(owner, None)
            for row in renewed:
                if row.state is State.CLAIMED:
                    self._move(row, State.DIRTY, "renewed", owner=owner, position=row.position)
        LOG.info("%s starts anew on %s", owner, _names(renewed))

    def releasable(self, owner: str, uuids: Collection[str] | None = None) -> tuple[model.Record, ...]:
        """What :meth:`release` would release. Nothing is changed; raises as that does."""
        return tuple(self._view.record(row) for row in self._held(requests.owner(owner), uuids))

    # Wiping

    def wipeable(self, uuids: Collection[str] | None = None) -> tuple[model.Record, ...]:
        """What :meth:`wipe` would wipe. Nothing is changed; raises as that does."""
        return tuple(self._view.record(row) for row in self._to_wipe(uuids))

    def wipe(
        self,
        uuids: Collection[str] | None = None,
        *,
        on_progress: wiping.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> list[wiping.Result]:
        """Wipe exactly `uuids`, or all that are dirty, and wait for it. What was begun is gone on with.

        Named ones may also be unknown or quarantined: the operator asks for it. Clean ones are done already.

        :raises UnknownNamespace: the ledger has no such namespace
        :raises NamespaceClaimed: one is claimed; nothing was changed
        :raises NamespaceMissing: one is not on the host; nothing was changed
        """
        with self._change():
            before = self._to_wipe(uuids)
            for row in before:
                if row.state is not State.DIRTY:
                    self._move(row, State.DIRTY, "the operator asked for a wipe")
        try:
            return self._wiper.wipe([row.uuid for row in before], on_progress=on_progress, stop=stop)
        finally:
            self._restore_unknown(before)

    # Inside

    def _reserve(
        self, owner: str, label_ids: list[int], numa_node: int | None, failures: Collection[str]
    ) -> tuple[list[Row], list[Row]]:
        """Claim what is clean and reserve what must be wiped first, leaving out `failures`.

        :returns: the chosen rows as they were before, and as they are now
        :raises InsufficientNamespaces: nothing was changed
        """
        with self._change() as table:
            chosen = table.claim(owner, label_ids, numa_node, [self._row(uuid) for uuid in failures])
            shortage = table.shortage(label_ids) if chosen is None else {}
            before = [self._row(uuid) for uuid in chosen or ()]
            taken = self._take(owner, before)
            table.saw(taken)
        if chosen is None:
            raise exception.InsufficientNamespaces(
                request=",".join(self._config.labels[index] for index in label_ids),
                shortage=", ".join(
                    f"{self._config.labels[index]}: {wanted} wanted, {free} free"
                    for index, (wanted, free) in shortage.items()
                ),
            )
        LOG.info("%s is given %s", owner, _names(before))
        return before, taken

    def _reserve_exact(self, owner: str, uuids: Sequence[str]) -> list[Row]:
        """As :meth:`_reserve`, for exactly these."""
        with self._change() as table:
            before = [self._row(uuid) for uuid in dict.fromkeys(uuids)]
            for row in before:
                requests.exact(owner, row, usable=row.uuid in self._view.usable)
            new = [row for row in before if row.owner is None]
            table.claim_exact(owner, [row.uuid for row in new])
            table.saw(self._take(owner, new))
        if new:
            LOG.info("%s is given %s", owner, _names(new))
        return before

    def _take(self, owner: str, rows: Sequence[Row]) -> list[Row]:
        """Claim what is clean, reserve what must be wiped first. Inside a transaction.

        :returns: the rows as they are now
        """
        return [
            self._move(row, State.CLAIMED, "claimed", owner=owner, position=position)
            if row.state is State.CLEAN
            else self._move(
                row, State.DIRTY, "reserved", owner=owner, position=position, begun=row.begun, wiped=row.wiped
            )
            for position, row in enumerate(rows, start=self._ledger.next_position(owner))
        ]

    def _finish(
        self,
        owner: str,
        before: list[Row],
        on_progress: wiping.OnProgress | None,
        stop: threading.Event | None,
    ) -> dict[str, wiping.Result]:
        """Wipe what is reserved. When one fails all are given up.

        :returns: those that failed
        """
        uuids = [row.uuid for row in before if row.state not in {State.CLEAN, State.CLAIMED}]
        try:
            results = self._wiper.wipe(uuids, on_progress=on_progress, stop=stop) if uuids else []
        except BaseException:
            self._cancel(owner, before)
            raise
        failed = {result.uuid: result for result in results if result.outcome is not Outcome.WIPED}
        if failed:
            self._cancel(owner, before)
        return failed

    def _granted(self, owner: str, before: list[Row]) -> tuple[model.Grant, ...]:
        held = {row.uuid: row for row in self._ledger.held(owner) if row.state is State.CLAIMED}
        for row in before:
            if row.uuid not in held:
                raise exception.NotOwner(
                    owner=owner, namespace=row.name, reason="it was released while it was being wiped"
                )
        return tuple(self._view.grant(held[row.uuid]) for row in before)

    def _cancel(self, owner: str, before: list[Row]) -> None:
        """Undo :meth:`_reserve`. No guest has had these, so a clean one is still clean."""
        with self._change():
            for old in before:
                row = self._row(old.uuid)
                if row.owner != owner or old.owner == owner:
                    continue  # quarantined or released meanwhile; or it had it before
                if row.state is State.CLAIMED:
                    self._move(row, State.CLEAN, "claim called off; it was never handed out")
                elif old.state is State.UNKNOWN and not row.begun:
                    self._move(row, State.UNKNOWN, "claim called off before its wipe")
                else:
                    self._move(row, State.DIRTY, "claim called off", begun=row.begun, wiped=row.wiped)

    def _held(self, owner: str, uuids: Collection[str] | None) -> list[Row]:
        """The rows to release. Nothing is done for a name that the ledger does not have for this owner."""
        held = {row.uuid: row for row in self._ledger.held(owner)}
        if not held:
            raise exception.NotOwner(owner=owner, namespace="any namespace", reason="the ledger has none for it")
        for uuid in uuids or ():
            if uuid not in held:
                row = self._row(uuid)
                raise exception.NotOwner(
                    owner=owner,
                    namespace=row.name or uuid,
                    reason=f"it belongs to {row.owner}" if row.owner else f"it is {row.state} and nobody's",
                )
        return [held[uuid] for uuid in (held if uuids is None else dict.fromkeys(uuids))]

    def _to_wipe(self, uuids: Collection[str] | None) -> list[Row]:
        if uuids is None:
            return [row for row in self._ledger.rows() if row.state is State.DIRTY and row.uuid in self._view.usable]
        rows = [self._row(uuid) for uuid in dict.fromkeys(uuids)]
        for row in rows:
            if row.state is State.CLAIMED:
                raise exception.NamespaceClaimed(namespace=row.name or row.uuid, owner=row.owner)
            if row.uuid not in self._view.usable:
                raise exception.NamespaceMissing(namespace=row.name or row.uuid)
        return [row for row in rows if row.state is not State.CLEAN]

    def _restore_unknown(self, before: list[Row]) -> None:
        """An unknown namespace of which nothing was overwritten is unknown still: a guest may be found to hold it."""
        with self._change():
            for old in before:
                row = self._row(old.uuid)
                if old.state is State.UNKNOWN and row.state is State.DIRTY and row.owner is None and not row.begun:
                    self._move(row, State.UNKNOWN, "not wiped")


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(f"{row.name} ({row.uuid})" for row in rows)
