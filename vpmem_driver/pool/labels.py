"""Reading ``[libvirt] pmem_namespaces``: which namespaces, by name or uuid, guests may be given under which label."""

import dataclasses
from collections.abc import Sequence

import msgspec

from vpmem_driver import exception, model


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One namespace under one label.

    :ivar label: index into :attr:`LabelConfig.labels`
    :ivar namespace: name or uuid
    :ivar text: the whole entry as configured, for error messages
    """

    label: int
    namespace: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class LabelConfig:
    """All labels in the order of the configuration, the resource class of each, and what is under them."""

    labels: tuple[str, ...]
    resource_classes: tuple[str, ...]
    entries: tuple[Entry, ...]

    def index(self, label: str) -> int | None:
        """The index of a label, compared by resource class, not by spelling."""
        try:
            return self.resource_classes.index(model.resource_class(label))
        except ValueError:
            return None


def parse(pmem_namespaces: Sequence[str]) -> LabelConfig:
    """Read the option's entries, each ``LABEL:NAMESPACE[|NAMESPACE…]``.

    A label may stand in several entries, spelled alike, as in Nova.

    :raises InvalidNamespaceConfig: names the entry and what to write instead
    """
    labels: dict[str, str] = {}  # by resource class
    indices: dict[str, int] = {}  # likewise
    entries: list[Entry] = []
    for text in pmem_namespaces:
        label, names = _split(text)
        resource_class = model.resource_class(label)
        if labels.setdefault(resource_class, label) != label:
            both = f"label '{exception.shorten(label)}' and label '{exception.shorten(labels[resource_class])}'"
            raise exception.InvalidNamespaceConfig(
                entry=text,
                reason=f"{both} are both resource class {exception.shorten(resource_class)}",
                remedy="Spell them alike if they are one label; else rename one.",
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
    reason = "there is no colon" if not colon else "the label is empty" if not label else "a namespace's name is empty"
    raise exception.InvalidNamespaceConfig(
        entry=text, reason=reason, remedy="Write LABEL:NAMESPACE|NAMESPACE, for example 4GB:ns0|ns1."
    )
