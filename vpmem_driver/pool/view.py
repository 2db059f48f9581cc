"""A snapshot of discovery and configuration, which completes ledger rows to records and grants."""

import dataclasses
import functools
import typing
from collections.abc import Iterable, Mapping

from vpmem_driver import layout, ledger, model
from vpmem_driver.discovery import hardware
from vpmem_driver.pool import labels
from vpmem_driver.pool.hardware import HardwareChoice


@dataclasses.dataclass(frozen=True)
class View:
    """The host's namespaces and labels at one moment.

    :ivar found: every namespace that discovery found
    :ivar usable: those that a guest can use, by uuid
    :ivar config: the configured labels, and those under which namespaces are still held
    :ivar label_of: label index by uuid, including missing namespaces
    :ivar hardware: what a claim would choose
    """

    config: labels.LabelConfig
    found: tuple[model.Namespace, ...]
    usable: Mapping[str, model.Namespace]
    label_of: Mapping[str, int]
    hardware: HardwareChoice = dataclasses.field(default_factory=HardwareChoice)

    @functools.cached_property
    def modes(self) -> frozenset[str]:
        """The modes of the usable namespaces."""
        return frozenset(namespace.mode for namespace in self.usable.values())

    def label(self, row: ledger.Row) -> str | None:
        """Return the label of the owner's claim, or the configured label."""
        index = self.label_of.get(row.uuid)
        return None if index is None else self.config.labels[index]

    def record(self, row: ledger.Row) -> model.Record:
        """Return the row as listings show it."""
        namespace = self.usable.get(row.uuid)
        label = self.label(row)
        return model.Record(
            uuid=row.uuid,
            name=row.name,
            label=label,
            resource_class=None if label is None else model.resource_class(label),
            size=row.size,
            align=row.align,
            numa_node=row.numa_node,
            device=None if namespace is None else namespace.device,
            state=row.state.value if namespace is not None else "missing",
            owner=row.owner,
            reason=self._reason(row),
            volatile=row.boot is not None,
            **hardware_of(namespace),
            device_model=None if row.device_model is None else row.device_model.value,
            label_size=row.label_size,
            guest_size=layout.guest_size_of(row.size, row.align, row.hardware or self.hardware.expected(row, label)),
        )

    def records(self, rows: Iterable[ledger.Row]) -> tuple[model.Record, ...]:
        """Return all namespaces of ledger and host as listings show them, sorted by name and uuid."""
        records = {row.uuid: self.record(row) for row in rows}
        unusable = [self.unrecorded(ns) for ns in self.found if ns.unusable is not None and ns.uuid not in records]
        return tuple(sorted([*records.values(), *unusable], key=lambda record: (record.name or "", record.uuid or "")))

    def unrecorded(self, namespace: model.Namespace) -> model.Record:
        """Return a namespace that is not in the ledger as listings show it: unusable, or still unknown."""
        usable = namespace.unusable is None
        index = self.label_of.get(namespace.uuid or "") if usable else None
        label = None if index is None else self.config.labels[index]
        expected = self.hardware.expected(namespace, label) if usable else None
        return model.Record(
            uuid=namespace.uuid,
            name=namespace.name,
            label=label,
            resource_class=None if label is None else model.resource_class(label),
            size=namespace.size,
            align=namespace.align,
            numa_node=namespace.numa_node,
            device=namespace.device,
            state=model.State.UNKNOWN.value if usable else "unusable",
            owner=None,
            reason=namespace.unusable,
            volatile=namespace.volatile,
            **hardware_of(namespace),
            guest_size=None if expected is None else layout.guest_size_of(namespace.size, namespace.align, expected),
        )

    def grant(self, row: ledger.Row) -> model.Grant:
        """Return the grant for the owner of the row."""
        namespace = self.usable.get(row.uuid)
        return model.Grant(
            owner=row.owner or "",
            uuid=row.uuid,
            name=row.name or row.uuid,
            label=self.label(row),
            size=row.size,
            align=row.align,
            numa_node=row.numa_node,
            device=None if namespace is None else namespace.device,
            known_device=row.device,
            pmem=row.pmem,
            ready=row.state is model.State.CLAIMED and row.departure is None,
            hardware=row.hardware or model.IN_TREE,
        )

    def _reason(self, row: ledger.Row) -> str | None:
        """Explain the state: why the namespace is missing, reserved, partly wiped or copied, or quarantined."""
        reasons = []
        if row.uuid not in self.usable:
            now = next((ns.unusable for ns in self.found if ns.uuid == row.uuid), None)
            reasons.append(f"{row.state}; {now or 'not on this host now'}")
        if row.state is model.State.DIRTY and row.owner is not None:
            reasons.append("reserved for its owner until it is wiped")
        if row.state is model.State.CLEAN and row.owner is not None:
            reasons.append(f"reserved by an unfinished claim; 'vpmem release {row.owner}' cancels it")
        if row.state is model.State.DIRTY and row.begun:
            done, verb = (row.verified, "verified") if row.verified else (row.wiped, "wiped")
            reasons.append(f"{100 * done // row.size} % {verb}")
        if row.state is model.State.RECEIVING:
            done, verb = (row.verified, "verified") if row.verified else (row.copied, "received")
            reasons.append(f"{100 * done // row.size} % {verb}")
        if row.departure is not None:
            reasons.append(f"{100 * row.copied // row.size} % copied to another namespace")
        if row.reason is not None:
            reasons.append(row.reason)
        return "; ".join(reasons) or None


def hardware_of(namespace: model.Namespace | None) -> dict[str, typing.Any]:
    """Return the fields of a record that describe the hardware of a namespace; None if it is missing."""
    return {name: getattr(namespace, name, None) for name in hardware.Hardware._fields}
