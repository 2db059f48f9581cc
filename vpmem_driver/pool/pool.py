"""One host's namespaces together with their ledger: the object that everything else calls.

The invariants of the package hold here. Each change is one ledger transaction, made before anybody is told of it.
"""

import logging
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
from vpmem_driver.pool import claims, requests
from vpmem_driver.pool.books import Books, names
from vpmem_driver.wipe import Engine, waiting

LOG = logging.getLogger(__name__)


class Pool:
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
        self._books = Books(label_config, source, records, leave_out_absent=leave_out_absent)
        self._wiper = wiper
        self._claims = claims.Claims(self._books, wiper)
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
        self._books.ledger.close()

    def reconcile(self) -> None:
        """See :meth:`.books.Books.reconcile`."""
        self._books.reconcile()

    @property
    def ledger(self) -> Ledger:
        """The record itself, for reading its history."""
        return self._books.ledger

    def marked(self, name: str) -> bool:
        """Whether :meth:`mark` has recorded `name` in the ledger."""
        return self._books.ledger.marked(name)

    def mark(self, name: str) -> None:
        """Record durably that something is done which is done once for each ledger."""
        self._books.ledger.mark(name)

    # What there is

    def records(self) -> tuple[model.Record, ...]:
        """Every namespace of host, configuration and ledger, by name and uuid."""
        return self._books.view.records(self._books.ledger.rows())

    def inventory(self) -> tuple[model.Inventory, ...]:
        """How many of each label there are, in the order of the configuration."""
        with self._books.change() as table:
            return table.inventory()

    def free(self, resource_class: str, without: Collection[str]) -> int:
        """How many namespaces of a resource class are free, without those of these uuids."""
        with self._books.read() as table:
            classes = self._books.view.config.resource_classes
            return table.free(classes.index(resource_class), without) if resource_class in classes else 0

    def next_free(
        self, resource_class: str, without: Collection[str], numa_node: int | None = None
    ) -> model.Namespace | None:
        """The namespace that a claim of one of this resource class is given now. It stays free.

        :param without: the uuids of namespaces that are not to be chosen
        :returns: None when none is free
        """
        with self._books.read() as table:
            classes = self._books.view.config.resource_classes
            if resource_class not in classes:
                return None
            chosen = table.choose([classes.index(resource_class)], numa_node, without)
            return self._books.view.usable[chosen[0]] if chosen else None

    def grants(self, owner: str) -> tuple[model.Grant, ...]:
        """What `owner` holds, in the order of its devices, with the current device paths.

        :raises InvalidRequest: `owner` is no uuid
        """
        owner = requests.owner(owner)
        self.reconcile()
        return tuple(self._books.view.grant(row) for row in self._books.ledger.held(owner))

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
        """See :meth:`.claims.Claims.claim`."""
        return self._claims.claim(owner, wanted, numa_node=numa_node, on_progress=on_progress, stop=stop)

    def claim_exact(
        self,
        owner: str,
        uuids: Sequence[str],
        *,
        on_progress: wiping.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[model.Grant, ...]:
        """See :meth:`.claims.Claims.claim_exact`."""
        return self._claims.claim_exact(owner, uuids, on_progress=on_progress, stop=stop)

    def adopt(
        self,
        owner: str,
        uuids: Sequence[str],
        *,
        why: str = "a guest holds it",
        label_of: Mapping[str, str] = types.MappingProxyType({}),
        in_domain: bool = False,
    ) -> tuple[model.Grant, ...]:
        """Give `owner` the namespaces that its guest is found to hold, as they are, in this order.

        Nothing is wiped. What the owner holds already stays. A dirty one is given back only to the owner whose bytes
        are still in it.

        :param label_of: label by uuid, for those that the owner has under another than the configured one
        :param in_domain: a domain of the owner has them: then a clean one is adopted as well
        :raises InvalidRequest: `owner` is no uuid
        :raises UnknownNamespace: the ledger has no such namespace
        :raises NotOwner: another one holds it, or has left its bytes in it; nothing was changed
        :raises NamespaceUnavailable: it is clean; nothing was changed
        """
        owner = requests.owner(owner)
        with self._books.change():
            rows = [self._books.row(uuid) for uuid in uuids]
            for row in rows:
                requests.adoption(owner, row, in_domain=in_domain)
            position = self._books.ledger.next_position(owner)
            for row in rows:
                if row.owner is None:
                    label = label_of.get(row.uuid)
                    self._books.move(row, State.CLAIMED, f"adopted: {why}", owner=owner, position=position, label=label)
                    position += 1
            self._books.label_held(self._books.ledger.rows())
        LOG.info("%s keeps %s as it is: %s", owner, names(rows), why)
        return tuple(self._books.view.grant(row) for row in self._books.ledger.held(owner) if row.uuid in uuids)

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
        with self._books.change() as table:
            released = self._held(owner, uuids)
            now = {row.uuid: row for row in [*self._release_claimed(released), *self._release_reserved(released)]}
            table.follow(now.values())
            if any(self._books.configured.get(uuid) != self._books.view.label_of.get(uuid) for uuid in now):
                self._books.label_held(self._books.ledger.rows())
        LOG.info("%s released %s", owner, names(released))
        return tuple(self._books.view.record(now[row.uuid]) for row in released)

    def renew(self, owner: str, uuids: Collection[str] | None = None) -> None:
        """Have all that `owner` holds wiped, or exactly `uuids` of it, and keep it for that owner, who starts anew.

        They are reserved when this returns; :meth:`claim_exact` waits for their wipes.

        :raises InvalidRequest: `owner` is no uuid
        :raises NotOwner: it does not hold them; nothing was changed
        """
        owner = requests.owner(owner)
        with self._books.change():
            renewed = self._held(owner, uuids)
            for row in renewed:
                if row.state is State.CLAIMED:
                    # A reservation for each: one that cannot be wiped does not cost the owner the others.
                    self._books.move(
                        row,
                        State.DIRTY,
                        "renewed",
                        owner=owner,
                        position=row.position,
                        reservation=claims.new_reservation(),
                    )
        LOG.info("%s starts anew on %s", owner, names(renewed))

    def releasable(self, owner: str, uuids: Collection[str] | None = None) -> tuple[model.Record, ...]:
        """What :meth:`release` would release. Nothing is changed; raises as that does."""
        return tuple(self._books.view.record(row) for row in self._held(requests.owner(owner), uuids))

    # Wiping

    def wipeable(self, uuids: Collection[str] | None = None) -> tuple[model.Record, ...]:
        """What :meth:`wipe` would wipe. Nothing is changed; raises as that does."""
        return tuple(self._books.view.record(row) for row in self._to_wipe(uuids))

    def wipe(
        self,
        uuids: Collection[str] | None = None,
        *,
        on_progress: wiping.OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> list[wiping.Result]:
        """Wipe exactly `uuids`, or all that are dirty, and wait for it. An interrupted wipe resumes.

        Named ones may also be unknown or quarantined: the operator asks for it. Clean ones are done already.

        :raises UnknownNamespace: the ledger has no such namespace
        :raises NamespaceClaimed: one is claimed; nothing was changed
        :raises NamespaceMissing: one is not on the host; nothing was changed
        """
        with self._books.change():
            before = self._to_wipe(uuids)
            for row in before:
                if row.state is not State.DIRTY:
                    self._books.move(row, State.DIRTY, "the operator asked for a wipe")
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

    def _release_claimed(self, rows: Iterable[Row]) -> list[Row]:
        return [self._books.move(row, State.DIRTY, "released") for row in rows if row.state is State.CLAIMED]

    def _release_reserved(self, rows: Iterable[Row]) -> list[Row]:
        """Give up the reservations that `rows` are in."""
        given_up = {row.reservation: row for row in rows if row.reservation is not None}
        return [
            released
            for row in given_up.values()
            for released in reservations.cancel(
                self._books.ledger, reservations.members(self._books.ledger, row), "released"
            )
        ]

    def _held(self, owner: str, uuids: Collection[str] | None) -> list[Row]:
        """The rows to release. Nothing is done for a name that the ledger does not have for this owner."""
        held = {row.uuid: row for row in self._books.ledger.held(owner)}
        if not held:
            raise exception.NotOwner(owner=owner, namespace="any namespace", reason="the ledger has none for it")
        for uuid in uuids or ():
            if uuid not in held:
                row = self._books.row(uuid)
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
                for row in self._books.ledger.rows()
                if row.state is State.DIRTY and row.uuid in self._books.view.usable
            ]
        rows = [self._books.row(uuid) for uuid in dict.fromkeys(uuids)]
        for row in rows:
            if row.state is State.CLAIMED:
                raise exception.NamespaceClaimed(namespace=row.name or row.uuid, owner=row.owner)
            if row.uuid not in self._books.view.usable:
                raise exception.NamespaceMissing(namespace=row.name or row.uuid)
        return [row for row in rows if row.state is not State.CLEAN]

    def _restore_unknown(self, before: list[Row]) -> None:
        """An unknown namespace of which nothing was overwritten is unknown still: a guest may be found to hold it."""
        with self._books.change():
            for old in before:
                row = self._books.row(old.uuid)
                untouched = row.state is State.DIRTY and row.owner is None and row.last_owner is None and not row.begun
                if old.state is State.UNKNOWN and untouched:  # else it may have the bytes of an owner in between
                    self._books.move(row, State.UNKNOWN, "not wiped")
