"""One host's namespaces together with their ledger: the object that everything else calls.

The invariants of the package hold here. Each change is one ledger transaction, made before anybody is told of it.
"""

import logging
import secrets
import shlex
import threading
import types
from collections.abc import Collection, Iterable, Mapping, Sequence

from oslo_config import cfg

from vpmem_driver import discovery, exception, labels, model, reservations, wiping
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
                reserved = self._reserve(owner, label_ids, numa_node, failures)
            except exception.InsufficientNamespaces:
                wiping.raise_for(failures.values())  # without these there would have been enough
                raise
            failed = self._finish(owner, reserved, on_progress, stop)
            if not failed:
                return self._granted(owner, reserved)
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
        rows = self._reserve_exact(owner, uuids)
        failed = self._finish(owner, rows, on_progress, stop)
        wiping.raise_for(failed.values())
        return self._granted(owner, rows)

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
        """Take back what `owner` holds, or exactly `uuids` of it. They are dirty and unowned when this returns.

        The owner has never had what is only reserved for it: that returns to the state that its bytes are in, and the
        rest of the same claim with it.

        :returns: the released namespaces
        :raises InvalidRequest: `owner` is no uuid
        :raises NotOwner: it does not hold them; nothing was changed
        """
        owner = requests.owner(owner)
        with self._change() as table:
            released = self._held(owner, uuids)
            now = {row.uuid: row for row in [*self._release_claimed(released), *self._release_reserved(released)]}
            table.follow(now.values())
            if any(self._configured.get(uuid) != self._view.label_of.get(uuid) for uuid in now):
                self._label_held(self._ledger.rows())
        LOG.info("%s released %s", owner, _names(released))
        return tuple(self._view.record(now[row.uuid]) for row in released)

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
                    # A reservation for each: one that cannot be wiped does not cost the owner the others.
                    self._move(
                        row,
                        State.DIRTY,
                        "renewed",
                        owner=owner,
                        position=row.position,
                        reservation=_new_reservation(),
                    )
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

    def dirty(self) -> list[str]:
        """The uuids of the dirty namespaces that are on this host."""
        return [row.uuid for row in self._to_wipe(None)]

    def wipe_dirty(
        self,
        uuids: Collection[str],
        *,
        on_progress: wiping.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> list[wiping.Result]:
        """Wipe those of `uuids` that are still dirty, and wait for it. What is not dirty is left alone."""
        return self._wiper.wipe(uuids, on_progress=on_progress, stop=stop)

    # Inside

    def _reserve(self, owner: str, label_ids: list[int], numa_node: int | None, failures: Collection[str]) -> list[Row]:
        """Reserve a namespace for each label, leaving out `failures`.

        :returns: the rows after that
        :raises InsufficientNamespaces: nothing was changed
        """
        # Nobody is told of a reservation: if a power loss takes it away, the namespaces are as they were.
        with self._change(durable=False) as table:
            chosen = table.claim(owner, label_ids, numa_node, [self._row(uuid) for uuid in failures])
            shortage = table.shortage(label_ids) if chosen is None else {}
            reserved = self._take(owner, [self._row(uuid) for uuid in chosen or ()], _new_reservation())
            table.follow(reserved)
        if chosen is None:
            raise exception.InsufficientNamespaces(
                request=",".join(self._config.labels[index] for index in label_ids),
                shortage=", ".join(
                    f"{self._config.labels[index]}: {wanted} wanted, {free} free"
                    for index, (wanted, free) in shortage.items()
                ),
            )
        return reserved

    def _reserve_exact(self, owner: str, uuids: Sequence[str]) -> list[Row]:
        """As :meth:`_reserve`, for exactly these; what the owner has already stays as it is.

        What another claim of the same owner has reserved and this one adds are then claimed together.
        """
        with self._change(durable=False) as table:
            rows = [self._row(uuid) for uuid in dict.fromkeys(uuids)]
            for row in rows:
                requests.exact(owner, row, usable=row.uuid in self._view.usable)
            reservation = next((row.reservation for row in rows if row.reservation), None) or _new_reservation()
            new = self._take(owner, [row for row in rows if row.owner is None], reservation)
            table.follow(new)
        now = {row.uuid: row for row in [*rows, *new]}
        return [now[row.uuid] for row in rows]

    def _take(self, owner: str, rows: Sequence[Row], reservation: str) -> list[Row]:
        """Reserve `rows`, inside a transaction.

        :returns: the rows after that
        """
        return [
            self._move(
                row,
                row.state if row.state is State.CLEAN else State.DIRTY,
                "reserved",
                owner=owner,
                position=position,
                reservation=reservation,
                keep_wipe=row.state is State.DIRTY,
            )
            for position, row in enumerate(rows, start=self._ledger.next_position(owner))
        ]

    def _finish(
        self,
        owner: str,
        rows: Sequence[Row],
        on_progress: wiping.OnProgress | None,
        stop: threading.Event | None,
    ) -> dict[str, wiping.Result]:
        """Claim the reserved `rows`: look for users of what is clean, wipe what is dirty. If one fails, cancel all.

        :returns: those that failed; none when all are claimed
        """
        try:
            failed = self._in_use(rows) or self._wipe_reserved(owner, rows, on_progress, stop)
            if not failed:
                self._claim_clean(owner, rows)
        except BaseException:
            self._cancel(owner, rows, "claim called off")
            raise
        if failed and self._cancel(owner, rows, "claim called off"):
            return failed
        return {}

    def _in_use(self, rows: Sequence[Row]) -> dict[str, wiping.Result]:
        """Those of the reserved clean `rows` that a guest or a process uses: they are dirty and unowned from now on.

        A namespace is clean since its wipe, and nobody looked at it after that.

        :raises LibvirtError: libvirt cannot tell
        """
        clean = {row.uuid: row for row in rows if row.state is State.CLEAN}
        devices = {
            self._view.usable[uuid].device or "": row for uuid, row in clean.items() if uuid in self._view.usable
        }
        if not devices:
            return {}
        found = {devices[device].uuid: user for device, user in self._wiper.users_of(devices).items()}
        if found:
            self._withdraw(rows, found)
        return {
            uuid: wiping.Result(uuid=uuid, name=clean[uuid].name or uuid, outcome=Outcome.IN_USE, reason=user)
            for uuid, user in found.items()
        }

    def _withdraw(self, rows: Sequence[Row], users: Mapping[str, str]) -> None:
        """Take reserved `rows` back of which some are in use by `users` (by uuid), though nobody holds them.

        Another process may have finished the claim meanwhile; nobody has been told of that.
        """
        with self._change():
            for before in rows:
                row = self._row(before.uuid)
                user = users.get(row.uuid)
                if user is not None and row.owner == before.owner:
                    self._move(row, State.DIRTY, f"in use by {user}, though unowned", reason=f"in use by {user}")
                elif before.reservation is not None and row.state is State.CLAIMED and row.owner == before.owner:
                    self._move(row, State.DIRTY, "claim called off")

    def _wipe_reserved(
        self,
        owner: str,
        rows: Sequence[Row],
        on_progress: wiping.OnProgress | None,
        stop: threading.Event | None,
    ) -> dict[str, wiping.Result]:
        """Wipe all that is dirty of the reservations that `rows` are in: they are claimed when the last is wiped.

        :returns: those that failed
        """
        awaited = {row.reservation for row in rows} - {None}
        dirty = [
            row.uuid for row in self._ledger.held(owner) if row.reservation in awaited and row.state is State.DIRTY
        ]
        results = self._wiper.wipe(dirty, on_progress=on_progress, stop=stop) if dirty else []
        return {result.uuid: result for result in results if result.outcome is not Outcome.WIPED}

    def _claim_clean(self, owner: str, rows: Sequence[Row]) -> None:
        """Claim the reservations of `rows` in which all is clean: no wipe does it for them."""
        if all(row.state is State.DIRTY or row.reservation is None for row in rows):
            return
        with self._change() as table:
            awaited = {row.reservation for row in rows} - {None}
            reserved = [row for row in self._ledger.held(owner) if row.reservation in awaited]
            if all(row.state is State.CLEAN for row in reserved):
                table.follow([reservations.claim(self._ledger, row) for row in reserved])

    def _granted(self, owner: str, rows: Sequence[Row]) -> tuple[model.Grant, ...]:
        held = {row.uuid: row for row in self._ledger.held(owner) if row.state is State.CLAIMED}
        for row in rows:
            if row.uuid not in held:
                self._cancel(owner, rows, "claim called off")
                raise exception.NotOwner(
                    owner=owner, namespace=row.name, reason="it was released while it was being wiped"
                )
        LOG.info("%s is given %s", owner, _names(rows))
        return tuple(self._view.grant(held[row.uuid]) for row in rows)

    def _cancel(self, owner: str, rows: Sequence[Row], why: str) -> bool:
        """Give up what of `rows` is still reserved, unless the claim has been completed by another process meanwhile.

        What is claimed stays: another caller may have been told that it is the owner's.

        :returns: False when all of `rows` are claimed for `owner`
        """
        with self._change() as table:
            now = [self._row(row.uuid) for row in rows]
            if all(row.owner == owner and row.state is State.CLAIMED for row in now):
                return False
            mine = {row.reservation for row in rows} - {None}
            reserved = [row for row in self._ledger.held(owner) if row.reservation in mine]
            table.follow(reservations.cancel(self._ledger, reserved, why))
        return True

    def _release_claimed(self, rows: Iterable[Row]) -> list[Row]:
        return [self._move(row, State.DIRTY, "released") for row in rows if row.state is State.CLAIMED]

    def _release_reserved(self, rows: Iterable[Row]) -> list[Row]:
        """Give up the reservations that `rows` are in."""
        given_up = {row.reservation: row for row in rows if row.reservation is not None}
        return [
            released
            for row in given_up.values()
            for released in reservations.cancel(self._ledger, reservations.members(self._ledger, row), "released")
        ]

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
                    reason=f"it belongs to {row.owner}" if row.owner else f"it is {row.state} and unowned",
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


def _new_reservation() -> str:
    return secrets.token_hex(8)


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(f"{row.name} ({row.uuid})" for row in rows)
