"""Match the configured names and uuids with the discovered namespaces: which label each namespace has."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from vpmem_driver import _fastalloc, exception, ledger, model, sizes
from vpmem_driver.pool import labels, volatile

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
    """Return the label index of each configured namespace, by uuid.

    A namespace that is configured and in the ledger (`rows`, by uuid) but not on the host is missing. That is a
    warning, not an error.

    :param leave_out_absent: warn of namespaces that are absent or unusable and leave them out, instead of raising
    :raises InvalidNamespaceConfig: an entry names a namespace that is absent, not unique, unusable, or named twice
    """
    label_ids, problems = _fastalloc.match(
        [ns.name for ns in found],
        [ns.uuid for ns in found],
        [(entry.label, entry.namespace) for entry in config.entries],
    )
    label_of, absent = _missing(config, problems, found, rows, warn)
    faults: list[tuple[model.Namespace, str]] = []
    mixed = {label for namespace, label in zip(found, label_ids, strict=True) if namespace.volatile}
    for namespace, label in zip(found, label_ids, strict=True):
        if label < 0:
            continue
        least = sizes.least_size(namespace.align)
        is_mixed = label in mixed
        if (is_mixed or namespace.volatile) and (
            fault := _wrong_kind(namespace, config.resource_classes[label], is_mixed)
        ):
            faults.append((namespace, fault))
        elif namespace.uuid in rows or (namespace.unusable is None and namespace.size >= least):
            label_of[namespace.uuid or ""] = label
        else:
            fault = namespace.unusable or f"it has {namespace.size} bytes, but a guest's device needs {least}"
            faults.append((namespace, fault))
    for error in [*_absent_errors(absent, found), *_unusable_errors(config, faults)]:
        if not leave_out_absent:
            raise error
        warn(f"{error} Ignored for now.")
    return label_of


def _wrong_kind(namespace: model.Namespace, resource_class: str, has_volatile: bool) -> str | None:
    """Return why a namespace may not have a label: a flavor must know whether it asks for volatile memory.

    :param has_volatile: whether the label has volatile namespaces on this host
    """
    if namespace.volatile and not resource_class.startswith(volatile.RESOURCE_CLASS_PREFIX):
        return "it is volatile, and only a label whose name begins with VOLATILE may have it"
    if has_volatile and not namespace.volatile:
        return "it is persistent, but others with its label are volatile"
    return None


def keep_held(
    config: labels.LabelConfig, label_of: Mapping[str, int], rows: Iterable[ledger.Row], warn: Warn = LOG.warning
) -> tuple[labels.LabelConfig, dict[str, int]]:
    """Keep each held namespace under the label of its claim, even if the configuration has changed since.

    Placement records the owner's allocation under that label's resource class, and a class in use must not disappear.

    :param label_of: as returned by :func:`match`
    :returns: `config` with the missing labels added, and `label_of` with the labels of held namespaces
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
                warn(f"Namespace {row.name} keeps label {row.label} until {row.owner} releases it")
    return dataclasses.replace(config, labels=tuple(labels_of.values()), resource_classes=tuple(labels_of)), kept


def _missing(
    config: labels.LabelConfig,
    problems: Iterable[tuple[int, int]],
    found: Sequence[model.Namespace],
    rows: Mapping[str, ledger.Row],
    warn: Warn,
) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Separate the configured namespaces that were not found into missing (in the ledger) and absent (not in it).

    :returns: label index of the missing ones by uuid, and names of the absent ones by entry
    :raises InvalidNamespaceConfig: an entry has a problem other than a namespace that was not found
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
            warn(f"{exception.NamespaceMissing(namespace=entry.namespace)}{_claim_note(row)}")
            label_of[row.uuid] = entry.label
        if not missing:
            absent.setdefault(entry.text, []).append(entry.namespace)
    return label_of, absent


def _claim_note(row: ledger.Row) -> str:
    return f" It stays claimed for {row.owner}." if row.owner is not None else ""


def _absent_errors(
    absent: Mapping[str, list[str]], found: Iterable[model.Namespace]
) -> Iterator[exception.InvalidNamespaceConfig]:
    """Yield an error per entry. It lists the usable namespaces, because no command works with this configuration."""
    usable = exception.listed(ns.name for ns in found if ns.unusable is None) if absent else ""
    for text, names in absent.items():
        yield exception.InvalidNamespaceConfig(
            entry=text,
            reason=f"namespace '{exception.shorten(names[0])}' is not on this host"
            if len(names) == 1
            else f"{len(names)} namespaces are not on this host: {exception.listed(names)}",
            remedy=f"Usable namespaces: {usable}",
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
            reason=f"namespace '{exception.shorten(entry.namespace)}' is unusable: {fault}",
            remedy="Fix that, or remove it from the entry",
        )


def _config_error(entry: labels.Entry, code: int, found: Iterable[model.Namespace]) -> exception.InvalidNamespaceConfig:
    name = exception.shorten(entry.namespace)
    uuids = exception.listed(ns.uuid for ns in found if ns.name == entry.namespace)
    reason, remedy = {
        _fastalloc.AMBIGUOUS: (
            f"several namespaces of this host have the name '{name}'",
            f"Write the uuid instead, one of {uuids}",
        ),
        _fastalloc.REPEATED: (f"namespace '{name}' appears twice under this label", "Remove one"),
        _fastalloc.TWO_LABELS: (f"namespace '{name}' is already under another label", "Remove it from one of them"),
    }[code]
    return exception.InvalidNamespaceConfig(entry=entry.text, reason=reason, remedy=remedy)
