"""Which label each namespace of the host has: configured names and uuids against what discovery saw."""

import logging
from collections.abc import Mapping, Sequence

from vpmem_driver import _fastalloc, exception, guestxml, labels, ledger, model

LOG = logging.getLogger(__name__)


def match(
    config: labels.LabelConfig, found: Sequence[model.Namespace], rows: Mapping[str, ledger.Row]
) -> dict[str, int]:
    """Which label each namespace has: label index by uuid.

    What is configured, in the ledger (`rows`, by uuid) and not on the host is missing: a warning, and no error.

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
        if code != _fastalloc.NOT_FOUND or not missing:
            raise _config_error(entry, code)
        LOG.warning("Namespace %s is configured and in the ledger, but not on this host now", entry.namespace)
        label_of.update((row.uuid, entry.label) for row in missing)
    for namespace, label in zip(found, label_ids, strict=True):
        if label < 0:
            continue
        fault = namespace.unusable
        if namespace.size < (least := guestxml.least_size(namespace.align)):
            fault = fault or f"a guest's device takes {least} bytes, and it has {namespace.size}"
        if fault is not None and namespace.uuid not in rows:
            entry = next(
                entry for entry in config.entries if entry.namespace.lower() in {namespace.name, namespace.uuid}
            )
            raise exception.InvalidNamespaceConfig(
                entry=entry.text,
                reason=f"namespace '{entry.namespace}' cannot be used: {fault}",
                remedy="Mend that, or take it out of the entry.",
            )
        label_of[namespace.uuid or ""] = label
    return label_of


def _config_error(entry: labels.Entry, code: int) -> exception.InvalidNamespaceConfig:
    reason, remedy = {
        _fastalloc.NOT_FOUND: (
            "there is no namespace '{}' on this host",
            "'vpmem namespace list --all' shows those there are.",
        ),
        _fastalloc.AMBIGUOUS: (
            "two namespaces of this host have the name '{}'",
            "Write the uuid of the one that is meant; 'vpmem namespace list --all' shows both.",
        ),
        _fastalloc.REPEATED: ("namespace '{}' stands twice under this label", "Take one out."),
        _fastalloc.TWO_LABELS: ("namespace '{}' is under another label already", "Keep it under one label."),
    }[code]
    return exception.InvalidNamespaceConfig(entry=entry.text, reason=reason.format(entry.namespace), remedy=remedy)
