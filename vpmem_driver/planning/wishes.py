"""What the operator wants: labels with sizes, and flavors, in a TOML file.

::

    [labels]
    4GB = "4GiB"                # what a guest gets at least
    SMALL = "512MiB"

    [flavors.db]
    pmem = "4GB,SMALL"          # as in the extra spec hw:pmem
    count = 3                   # wanted guests on each host; or weight = 3: three for each one of weight 1
    nodes = "any"               # a guest's namespaces may be on several NUMA nodes; the default is "one"
"""

import dataclasses
import pathlib
import tomllib
from collections.abc import Iterable, Mapping

import msgspec

from vpmem_driver import exception, model, sizes

_MOST = 1 << 20
#: A name has at most 63 bytes (NSLABEL_NAME_LEN in Linux 6.1, drivers/nvdimm/label.h); the rest is for its number.
_MOST_BYTES = 48


class _Flavor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pmem: str
    count: int | None = None
    weight: int | None = None
    nodes: str = "one"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    labels: dict[str, str | int]
    flavors: dict[str, _Flavor]


@dataclasses.dataclass(frozen=True, slots=True)
class Label:
    """A label.

    :ivar size: bytes that a guest gets at least
    :ivar label_size: bytes of the label area of a guest's device
    """

    name: str
    size: int
    label_size: int = sizes.LABEL_SIZE


@dataclasses.dataclass(frozen=True, slots=True)
class Flavor:
    """A flavor.

    :ivar numbers: how many namespaces of each label a guest has, in the order of the labels
    :ivar count: how many guests are wanted; None if they have weights
    :ivar weight: guests of one set; 1 if they have counts
    :ivar one_node: whether all namespaces of a guest are on one NUMA node
    """

    name: str
    pmem: str
    numbers: tuple[int, ...]
    count: int | None
    weight: int
    one_node: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Wishes:
    """All labels and flavors. Either all flavors have counts, or none."""

    labels: tuple[Label, ...]
    flavors: tuple[Flavor, ...]

    def with_label_sizes(self, label_sizes: Iterable[int]) -> "Wishes":
        """Return the same with these label areas, in the order of the labels."""
        pairs = zip(self.labels, label_sizes, strict=True)
        return Wishes(tuple(Label(label.name, label.size, area) for label, area in pairs), self.flavors)


def read(path: str) -> Wishes:
    """Read the file.

    :raises InvalidRequest: it cannot be read or used
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _wrong(path, getattr(error, "strerror", None) or "it is not UTF-8 text") from error
    return parse(text, path)


def parse(text: str, path: str) -> Wishes:
    """Parse the text of the file `path`.

    :raises InvalidRequest: it cannot be used
    """
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
        labels = tuple(Label(_label(name), _size(name, value)) for name, value in file.labels.items())
        flavors = tuple(_flavor(name, flavor, labels) for name, flavor in file.flavors.items())
        _check(labels, file.flavors)
    except (ValueError, RecursionError) as error:  # msgspec's and tomllib's errors are ValueErrors
        raise _wrong(path, str(error)) from error
    return Wishes(labels, flavors)


def _label(name: str) -> str:
    """Check a label: names of namespaces begin with it."""
    if not name or not name.isprintable() or any(character in " ,:|" for character in name):
        raise ValueError(f"label '{exception.shorten(name)}' is empty, or has a blank, comma, colon or bar")
    if name.startswith("-") or len(name.encode()) > _MOST_BYTES:
        raise ValueError(f"label '{exception.shorten(name)}' begins with a minus or has more than {_MOST_BYTES} bytes")
    return name


def _size(name: str, value: str | int) -> int:
    try:
        return sizes.parse(str(value))
    except ValueError as error:
        raise ValueError(f"label '{exception.shorten(name)}': {error}") from error


def _flavor(name: str, flavor: _Flavor, labels: tuple[Label, ...]) -> Flavor:
    known = {model.resource_class(label.name): index for index, label in enumerate(labels)}
    numbers = [0] * len(labels)
    for word in flavor.pmem.split(","):
        index = known.get(model.resource_class(word.strip()))
        if index is None:
            raise ValueError(f"flavor '{exception.shorten(name)}': there is no label '{exception.shorten(word)}'")
        numbers[index] += 1
    for key, number, least in (("count", flavor.count, 0), ("weight", flavor.weight, 1)):
        if number is not None and not least <= number <= _MOST:
            raise ValueError(f"flavor '{exception.shorten(name)}': {key} is not between {least} and {_MOST}")
    if flavor.nodes not in {"one", "any"}:
        raise ValueError(f"flavor '{exception.shorten(name)}': nodes is neither 'one' nor 'any'")
    return Flavor(name, flavor.pmem, tuple(numbers), flavor.count, flavor.weight or 1, flavor.nodes == "one")


def _check(labels: tuple[Label, ...], flavors: Mapping[str, _Flavor]) -> None:
    if not flavors:
        raise ValueError("it has no flavor")
    if len({model.resource_class(label.name) for label in labels}) < len(labels):
        raise ValueError("two labels have the same resource class")
    counted = [flavor.count is not None for flavor in flavors.values()]
    weighted = [flavor.weight is not None for flavor in flavors.values()]
    if any(counted) and (any(weighted) or not all(counted)):
        raise ValueError("give every flavor a count, or none")


def _wrong(path: str, reason: str) -> exception.InvalidRequest:
    return exception.InvalidRequest(
        what="flavors file",
        value=path,
        reason=exception.printable(reason),
        remedy="doc/plan.md shows an example",
    )
