"""Choose what a guest's device is when its namespace is claimed: ``[vpmem] device_model`` and ``label_size``."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from oslo_config import cfg

from vpmem_driver import exception, model
from vpmem_driver.ledger import Row
from vpmem_driver.model import DeviceModel, Hardware, Namespace
from vpmem_driver.pool.labels import LabelConfig
from vpmem_driver.sizes import KIB, LABEL_SIZE, MAX_LABEL_SIZE, MIN_LABEL_SIZE, in_words
from vpmem_driver.sizes import parse as parse_size

_FILE = "file"
_MODELS = " or ".join(DeviceModel)

_Value = TypeVar("_Value")


@dataclasses.dataclass(frozen=True, slots=True)
class HardwareConfig:
    """The configured values by resource class; under None, that of all other labels."""

    models: Mapping[str | None, DeviceModel]
    label_sizes: Mapping[str | None, int]


class HardwareChoice:
    """Chooses the hardware for a claim."""

    def __init__(
        self, config: HardwareConfig | None = None, *, starts_virtio_pmem: Callable[[], bool] = lambda: True
    ) -> None:
        """Store the arguments.

        :param starts_virtio_pmem: asks libvirt whether it starts guests with virtio-pmem. It is called once
        """
        self._config = config or HardwareConfig({}, {})
        self._starts_virtio_pmem = functools.cache(starts_virtio_pmem)

    def prepare(self, modes: Collection[str]) -> None:
        """Ask libvirt, if :meth:`choose` may need that for namespaces in these modes.

        Call it outside of a ledger transaction.

        :raises LibvirtError: it does not answer
        """
        models = self._config.models
        is_open = None not in models or DeviceModel.VIRTIO_PMEM in models.values()
        if is_open and _FILE in modes:
            self._starts_virtio_pmem()

    def choose(self, namespace: Row | Namespace, label: str | None) -> Hardware:
        """Return the hardware for a new owner of `namespace`.

        A file on a filesystem without DAX becomes a virtio-pmem, if libvirt starts it: a nvdimm keeps there only what
        the host has written back before it loses power.

        :raises InvalidOption: virtio-pmem is configured, and impossible
        :raises LibvirtError: libvirt does not answer
        """
        configured = _of_label(self._config.models, label)
        wanted = configured or _best(namespace)
        if wanted is DeviceModel.VIRTIO_PMEM and configured is None and not self._starts_virtio_pmem():
            wanted = DeviceModel.NVDIMM
        if wanted is DeviceModel.VIRTIO_PMEM:
            if problem := self._problem(namespace):
                raise _invalid("device_model", f"{namespace.name or namespace.uuid}: {problem}", "Use nvdimm for it")
            return Hardware(wanted, 0)
        return Hardware(wanted, self.label_size(label))

    def require_possible(self, row: Row, hardware: Hardware) -> None:
        """Verify that `row` can become what a guest already has elsewhere.

        :raises NamespaceUnavailable: it cannot
        :raises LibvirtError: libvirt does not answer
        """
        if hardware.device_model is DeviceModel.VIRTIO_PMEM and (problem := self._problem(row)):
            raise exception.NamespaceUnavailable(
                namespace=row.name or row.uuid, owner=row.owner or "a guest with virtio-pmem", reason=problem
            )

    def expected(self, namespace: Row | Namespace, label: str | None) -> Hardware:
        """Return what :meth:`choose` returns if libvirt starts virtio-pmem. It asks and raises nothing."""
        if (_of_label(self._config.models, label) or _best(namespace)) is DeviceModel.VIRTIO_PMEM:
            return Hardware(DeviceModel.VIRTIO_PMEM, 0)
        return Hardware(DeviceModel.NVDIMM, self.label_size(label))

    def label_size(self, label: str | None) -> int:
        """Return the label area of a nvdimm, in bytes."""
        size = _of_label(self._config.label_sizes, label)
        return LABEL_SIZE if size is None else size

    def _problem(self, namespace: Row | Namespace) -> str | None:
        """Return why a namespace cannot be a virtio-pmem."""
        if namespace.mode != _FILE:
            return f"virtio-pmem is for files, and this is a namespace in mode {namespace.mode}"
        if not self._starts_virtio_pmem():
            return "this libvirt does not start guests with virtio-pmem"
        return None


def _best(namespace: Row | Namespace) -> DeviceModel:
    is_cached = namespace.mode == _FILE and not namespace.pmem
    return DeviceModel.VIRTIO_PMEM if is_cached else DeviceModel.NVDIMM


def _of_label(values: Mapping[str | None, _Value], label: str | None) -> _Value | None:
    resource_class = None if label is None else model.resource_class(label)
    return values.get(resource_class, values.get(None))


def from_conf(
    conf: cfg.ConfigOpts, labels: LabelConfig, starts_virtio_pmem: Callable[[], bool] = lambda: True
) -> HardwareChoice:
    """Return the choice that the options describe. :raises InvalidOption: see :func:`parse`."""
    config = parse(conf.vpmem.device_model, conf.vpmem.label_size, labels)
    return HardwareChoice(config, starts_virtio_pmem=starts_virtio_pmem)


def parse(device_model: Sequence[str], label_size: Sequence[str], labels: LabelConfig) -> HardwareConfig:
    """Parse both options: entries ``LABEL:VALUE``, or ``VALUE`` for all other labels.

    :raises InvalidOption: an entry is malformed, or contradicts another one
    """
    models = dict(_entries("device_model", device_model, labels, _parse_model))
    sizes = dict(_entries("label_size", label_size, labels, _parse_label_size))
    for resource_class in models.keys() & sizes.keys():
        if models[resource_class] is DeviceModel.VIRTIO_PMEM and sizes[resource_class]:
            where = "all labels" if resource_class is None else _name(labels, resource_class)
            raise _invalid("label_size", f"{where}: a virtio-pmem has no label area", "Remove the entry, or write 0")
    return HardwareConfig(models, sizes)


def label_sizes(label_size: Sequence[str], configured: Iterable[str], wanted: Sequence[str]) -> list[int]:
    """Return the label areas that new claims of the labels `wanted` get.

    :param label_size: the option
    :param configured: the labels of ``[libvirt] pmem_namespaces``: `wanted` may be others
    :raises InvalidOption: see :func:`parse`
    """
    known = {model.resource_class(label): label for label in (*configured, *wanted)}
    config = parse((), label_size, LabelConfig(tuple(known.values()), tuple(known), ()))
    choice = HardwareChoice(config)
    return [choice.label_size(label) for label in wanted]


def _entries(
    option: str, entries: Sequence[str], labels: LabelConfig, parse_value: Callable[[str], _Value]
) -> Iterator[tuple[str | None, _Value]]:
    seen: set[str | None] = set()
    for entry in entries:
        label, colon, text = entry.rpartition(":")
        index = labels.index(label.strip()) if colon else None
        shown = exception.shorten(entry)
        if colon and index is None:
            known = exception.listed(labels.labels)
            raise _invalid(option, f"'{shown}': no such label", f"Labels of [libvirt] pmem_namespaces: {known}")
        key = None if index is None else labels.resource_classes[index]
        if key in seen:
            raise _invalid(option, f"'{shown}' is the second entry for its label", "Remove one")
        seen.add(key)
        try:
            yield key, parse_value(text.strip())
        except ValueError as error:
            raise _invalid(option, f"'{shown}': {error}", "Write LABEL:VALUE, or VALUE for all labels") from error


def _parse_model(text: str) -> DeviceModel:
    try:
        return DeviceModel(text)
    except ValueError:
        raise ValueError(f"the model must be {_MODELS}") from None


def _parse_label_size(text: str) -> int:
    size = 0 if text == "0" else parse_size(text)
    if size and (not MIN_LABEL_SIZE <= size <= MAX_LABEL_SIZE or size % (4 * KIB)):
        least, most = in_words(MIN_LABEL_SIZE), in_words(MAX_LABEL_SIZE)
        raise ValueError(f"a label area has {least} to {most} in steps of 4 KiB, or 0 for none")
    return size


def _name(labels: LabelConfig, resource_class: str) -> str:
    return exception.shorten(labels.labels[labels.resource_classes.index(resource_class)])


def _invalid(option: str, reason: str, remedy: str) -> exception.InvalidOption:
    return exception.InvalidOption(group="vpmem", option=option, reason=reason, remedy=remedy)
