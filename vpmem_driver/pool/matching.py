"""Which label each namespace of the host has: configured names and uuids against what discovery saw."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from vpmem_driver import _fastalloc, exception, ledger, model, sizes
from vpmem_driver.pool import labels

LOG = logging.getLogger(__name__)

Warn = Callable[[str], None]


def match(
    config: labels.LabelConfig,
    found: Sequence[model.Namespace],
    rows: Mapping[str, ledger.Row],
    *,
    leave_out_absent: bool = False,
    warn: Warn = LOG.warning,
) -> dict[str, int]:
    """Which label each namespace is configured under: label index by uuid.

    What is configured, in the ledger (`rows`, by uuid) and not on the host is missing: a warning, and no error.

    :param leave_out_absent: warn of an entry that names what is not there or not usable, and go on without it
    :raises InvalidNamespaceConfig: an entry names what is not there, not unique, not usable, or named twice
    """
    label_ids, problems = _fastalloc.match(
        [ns.name for ns in found],
        [ns.uuid for ns in found],
        [(entry.label, entry.namespace) for entry in config.entries],
    )
    label_of, absent = _missing(config, problems, found, rows, warn)
    faults: list[tuple[model.Namespace, str]] = []
    for namespace, label in zip(found, label_ids, strict=True):
        if label < 0:
            continue
        least = sizes.least_size(namespace.align)
        if namespace.uuid in rows or (namespace.unusable is None and namespace.size >= least):
            label_of[namespace.uuid or ""] = label
        else:
            fault = namespace.unusable or f"a guest's device takes {least} bytes, and it has {namespace.size}"
            faults.append((namespace, fault))
    for error in [*_absent_errors(absent, found), *_unusable_errors(config, faults)]:
        if not leave_out_absent:
            raise error
        warn(f"{error} It is left out for now.")
    return label_of


def keep_held(
    config: labels.LabelConfig, label_of: Mapping[str, int], rows: Iterable[ledger.Row], warn: Warn = LOG.warning
) -> tuple[labels.LabelConfig, dict[str, int]]:
    """Have what is held stay under the label that its owner got it under, whatever is configured by now.

    Placement has the owner's allocation under that label's resource class, and a class in use must not go.

    :param label_of: as :func:`match` has it
    :returns: `config` with such labels added that it has not, and `label_of` with the labels of what is held
    """
    labels_of = dict(zip(config.resource_classes, config.labels, strict=True))
    indices = {resource_class: index for index, resource_class in enumerate(labels_of)}
    kept = dict(label_of)
    for row in rows:
        if row.owner is not None and row.label is not None:
            resource_class = model.resource_class(row.label)
            labels_of.setdefault(resource_class, row.label)
            kept[row.uuid] = indices.setdefault(resource_class, len(indices))
            if label_of.get(row.uuid) != kept[row.uuid]:
                warn(f"Namespace {row.name} stays under label {row.label} until {row.owner} releases it")
    return dataclasses.replace(config, labels=tuple(labels_of.values()), resource_classes=tuple(labels_of)), kept


def _missing(
    config: labels.LabelConfig,
    problems: Iterable[tuple[int, int]],
    found: Sequence[model.Namespace],
    rows: Mapping[str, ledger.Row],
    warn: Warn,
) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Sort out what is configured and was not found, warning of what the ledger has.

    :returns: label index by uuid of what the ledger has; and the other names, by the entry that they are in
    :raises InvalidNamespaceConfig: another problem than that it was not found
    """
    label_of: dict[str, int] = {}
    absent: dict[str, list[str]] = {}
    known: dict[str, list[ledger.Row]] = {}
    for row in rows.values() if problems else ():
        for key in {row.name or row.uuid, row.uuid}:
            known.setdefault(key, []).append(row)
    for code, index in problems:
        entry = config.entries[index]
        if code != _fastalloc.NOT_FOUND:
            raise _config_error(entry, code, found)
        missing = known.get(entry.namespace.lower()) or known.get(entry.namespace, [])
        for row in missing:
            warn(f"{exception.NamespaceMissing(namespace=entry.namespace)}{_held(row)}")
            label_of[row.uuid] = entry.label
        if not missing:
            absent.setdefault(entry.text, []).append(entry.namespace)
    return label_of, absent


def _held(row: ledger.Row) -> str:
    return f" It is {row.owner}'s, and nobody else gets it." if row.owner is not None else ""


def _absent_errors(
    absent: Mapping[str, list[str]], found: Iterable[model.Namespace]
) -> Iterator[exception.InvalidNamespaceConfig]:
    """One for each entry. No listing can be had with this configuration: what there is, is said here."""
    there_are = exception.listed(ns.name for ns in found if ns.unusable is None) if absent else ""
    for text, names in absent.items():
        yield exception.InvalidNamespaceConfig(
            entry=text,
            reason=f"there is no namespace '{exception.shorten(names[0])}' on this host"
            if len(names) == 1
            else f"there are no namespaces {exception.listed(names)} on this host ({len(names)} names)",
            remedy=f"There are: {there_are}.",
        )


def _unusable_errors(
    config: labels.LabelConfig, faults: Sequence[tuple[model.Namespace, str]]
) -> Iterator[exception.InvalidNamespaceConfig]:
    by_uuid = {entry.namespace.lower(): entry for entry in config.entries} if faults else {}
    by_name = {entry.namespace: entry for entry in config.entries} if faults else {}
    for namespace, fault in faults:
        entry = by_uuid.get(namespace.uuid or "") or by_name[namespace.name or ""]
        yield exception.InvalidNamespaceConfig(
            entry=entry.text,
            reason=f"namespace '{exception.shorten(entry.namespace)}' cannot be used: {fault}",
            remedy="Correct that, or take it out of the entry.",
        )


def _config_error(entry: labels.Entry, code: int, found: Iterable[model.Namespace]) -> exception.InvalidNamespaceConfig:
    name = exception.shorten(entry.namespace)
    uuids = exception.listed(ns.uuid for ns in found if ns.name == entry.namespace)
    reason, remedy = {
        _fastalloc.AMBIGUOUS: (
            f"two namespaces of this host have the name '{name}'",
            f"Write the uuid of the one that is meant: {uuids}.",
        ),
        _fastalloc.REPEATED: (f"namespace '{name}' stands twice under this label", "Take one out."),
        _fastalloc.TWO_LABELS: (f"namespace '{name}' is under another label already", "Keep it under one label."),
    }[code]
    return exception.InvalidNamespaceConfig(entry=entry.text, reason=reason, remedy=remedy)
