"""Which label each namespace of the host has: configured names and uuids against what discovery saw."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from vpmem_driver import _fastalloc, exception, labels, ledger, model, sizes

LOG = logging.getLogger(__name__)

Warn = Callable[[str], None]

#: How many names or uuids a message tells at most.
_SHOWN = 8


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
    label_of: dict[str, int] = {}
    for code, index in problems:
        entry = config.entries[index]
        missing = [row for row in rows.values() if entry.namespace in {row.name, row.uuid}]
        if code == _fastalloc.NOT_FOUND and missing:
            for row in missing:
                warn(f"{exception.NamespaceMissing(namespace=entry.namespace)}{_held(row)}")
                label_of[row.uuid] = entry.label
        else:
            leave_out = leave_out_absent and code == _fastalloc.NOT_FOUND
            _refuse(_config_error(entry, code, found), warn if leave_out else None)
    for namespace, label in zip(found, label_ids, strict=True):
        if label < 0:
            continue
        least = sizes.least_size(namespace.align)
        if namespace.uuid in rows or (namespace.unusable is None and namespace.size >= least):
            label_of[namespace.uuid or ""] = label
            continue
        fault = namespace.unusable or f"a guest's device takes {least} bytes, and it has {namespace.size}"
        entry = next(entry for entry in config.entries if entry.namespace.lower() in {namespace.name, namespace.uuid})
        error = exception.InvalidNamespaceConfig(
            entry=entry.text,
            reason=f"namespace '{entry.namespace}' cannot be used: {fault}",
            remedy="Mend that, or take it out of the entry.",
        )
        _refuse(error, warn if leave_out_absent else None)
    return label_of


def keep_held(
    config: labels.LabelConfig, label_of: Mapping[str, int], rows: Iterable[ledger.Row], warn: Warn = LOG.warning
) -> tuple[labels.LabelConfig, dict[str, int]]:
    """Have what is held stay under the label that its owner got it under, whatever is configured by now.

    Placement has the owner's allocation under that label's resource class, and a class in use must not go.

    :param label_of: as :func:`match` has it
    :returns: `config` with such labels added that it has not, and `label_of` with the labels of what is held
    """
    known = dict(zip(config.resource_classes, config.labels, strict=True))
    kept = dict(label_of)
    index_of: dict[str, int] = {}
    for row in rows:
        if row.owner is not None and row.label is not None:
            if row.label not in index_of:
                resource_class = model.resource_class(row.label)
                known.setdefault(resource_class, row.label)
                index_of[row.label] = list(known).index(resource_class)
            kept[row.uuid] = index_of[row.label]
            if label_of.get(row.uuid) != kept[row.uuid]:
                warn(f"Namespace {row.name} stays under label {row.label} until {row.owner} releases it")
    return dataclasses.replace(config, labels=tuple(known.values()), resource_classes=tuple(known)), kept


def _held(row: ledger.Row) -> str:
    return f" It is {row.owner}'s, and nobody else gets it." if row.owner is not None else ""


def _refuse(error: exception.InvalidNamespaceConfig, warn: Warn | None) -> None:
    """Raise it, or warn of it."""
    if warn is None:
        raise error
    warn(f"{error} It is left out for now.")


def _config_error(entry: labels.Entry, code: int, found: Sequence[model.Namespace]) -> exception.InvalidNamespaceConfig:
    # No listing can be had with this configuration: what it would tell is told here.
    name = entry.namespace
    reason, remedy = {
        _fastalloc.NOT_FOUND: (
            f"there is no namespace '{name}' on this host",
            f"There are: {_shortened(ns.name for ns in found if ns.unusable is None)}.",
        ),
        _fastalloc.AMBIGUOUS: (
            f"two namespaces of this host have the name '{name}'",
            f"Write the uuid of the one that is meant: {_shortened(ns.uuid for ns in found if ns.name == name)}.",
        ),
        _fastalloc.REPEATED: (f"namespace '{name}' stands twice under this label", "Take one out."),
        _fastalloc.TWO_LABELS: (f"namespace '{name}' is under another label already", "Keep it under one label."),
    }[code]
    return exception.InvalidNamespaceConfig(entry=entry.text, reason=reason, remedy=remedy)


def _shortened(words: Iterable[str | None]) -> str:
    """Those that there are, if they are not too many for a message."""
    known = [word for word in words if word]
    return ", ".join([*known[:_SHOWN], "…"] if len(known) > _SHOWN else known) or "none"
