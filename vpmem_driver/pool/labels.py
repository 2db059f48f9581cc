"""Parse ``[libvirt] pmem_namespaces``: the namespaces, by name or uuid, of each label."""

import dataclasses
from collections.abc import Sequence

import msgspec

from vpmem_driver import exception, model


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One namespace under one label.

    :ivar label: index into :attr:`LabelConfig.labels`
    :ivar namespace: name or uuid
    :ivar text: the whole configured entry, for error messages
    """

    label: int
    namespace: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class LabelConfig:
    """All labels in the order of the configuration, their resource classes, and their entries."""

    labels: tuple[str, ...]
    resource_classes: tuple[str, ...]
    entries: tuple[Entry, ...]

    def index(self, label: str) -> int | None:
        """Return the index of a label, which is compared by resource class, not by spelling."""
        try:
            return self.resource_classes.index(model.resource_class(label))
        except ValueError:
            return None


def parse(pmem_namespaces: Sequence[str]) -> LabelConfig:
    """Parse the option's entries, each ``LABEL:NAMESPACE[|NAMESPACE…]``.

    A label may appear in several entries with the same spelling, as in Nova.

    :raises InvalidNamespaceConfig: an entry is malformed, or two labels have the same resource class
    """
    labels: dict[str, str] = {}  # by resource class
    indices: dict[str, int] = {}  # likewise
    entries: list[Entry] = []
    for text in pmem_namespaces:
        label, names = _split(text)
        resource_class = model.resource_class(label)
        if labels.setdefault(resource_class, label) != label:
            both = f"labels '{exception.shorten(label)}' and '{exception.shorten(labels[resource_class])}'"
            raise exception.InvalidNamespaceConfig(
                entry=text,
                reason=f"{both} have the same resource class {exception.shorten(resource_class)}",
                remedy="Use one spelling for the same label, or rename one label",
            )
        index = indices.setdefault(resource_class, len(indices))
        entries += [Entry(index, name, text) for name in names]
    return LabelConfig(tuple(labels.values()), tuple(labels), tuple(entries))


def _split(text: str) -> tuple[str, list[str]]:
    label, colon, rest = text.partition(":")
    label = label.strip()
    names = [name.strip() for name in rest.split("|")]
    if label and all(names):
        return label, names
    reason = "it has no colon" if not colon else "the label is empty" if not label else "a namespace name is empty"
    raise exception.InvalidNamespaceConfig(
        entry=text, reason=reason, remedy="Write LABEL:NAMESPACE|NAMESPACE, for example 4GB:ns0|ns1"
    )
