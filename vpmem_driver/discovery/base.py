"""The contract of discovery: where namespaces come from. Reading only; nothing on the host is changed.

What the two views of the host's NVDIMM bus, ndctl and sysfs, have to say alike is here too, so that they cannot differ.
"""

import abc
import collections
from collections.abc import Iterable

import msgspec

from vpmem_driver import exception, model

#: Alignment of a device-dax namespace when nothing tells it: a huge page, the kernel's own default on x86-64 and, with
#: 4 KiB pages, on arm64 (Linux 6.1, drivers/nvdimm/pfn_devs.c, nd_pfn_default_alignment()).
DEFAULT_ALIGN = 2 << 20

_OTHER_MODES = {
    "fsdax": "its mode is fsdax: it can be used through discovery = directory, or be made anew as devdax",
    "system-ram": "its device is in mode system-ram; 'daxctl reconfigure-device --mode=devdax' gives it back",
}
_NIL_UUID = "00000000-0000-0000-0000-000000000000"


class Discovery(abc.ABC):
    """One source of namespaces. An instance may be used for the life of a process and from several threads."""

    #: the value of [vpmem] discovery that selects it
    name: str

    @abc.abstractmethod
    def namespaces(self) -> tuple[model.Namespace, ...]:
        """Every namespace of the host now, usable or not, in a stable order.

        :returns: usable ones have uuid, name, device and a positive size; the others say why in ``unusable``
        :raises DiscoveryFailed: the host could not be read or said what cannot be understood
        """

    @abc.abstractmethod
    def options(self) -> dict[str, str]:
        """What :func:`vpmem_driver.discovery.make` needs, beside the name, to make another one like it."""

    def find(self, uuid: str) -> model.Namespace:
        """The namespace of that identity as it is now: this is how a path is looked up at the moment of use.

        :raises DiscoveryFailed: see :meth:`namespaces`
        :raises NamespaceMissing: it is not there, or not usable
        """
        for namespace in self.namespaces():
            if namespace.uuid == uuid and namespace.unusable is None:
                return namespace
        raise exception.NamespaceMissing(namespace=uuid)


def mark_shared_identities(found: Iterable[model.Namespace]) -> tuple[model.Namespace, ...]:
    """Sorted by name and uuid; namespaces that share a uuid (a copied image) are made unusable, all of them."""
    namespaces = sorted(found, key=_order)
    uuids = [ns.uuid for ns in namespaces]
    if len(set(uuids)) == len(uuids):
        return tuple(namespaces)
    count = collections.Counter(uuids)
    return tuple(
        msgspec.structs.replace(ns, unusable="another namespace has the same uuid")
        if ns.uuid is not None and ns.unusable is None and count[ns.uuid] > 1
        else ns
        for ns in namespaces
    )


def _order(namespace: model.Namespace) -> tuple[str, str, str]:
    return namespace.name or "", namespace.uuid or "", namespace.device or ""


def canonical_uuid(text: str | None) -> str | None:
    """`text`, which ndctl or the kernel printed, as an identity; None when it is none: no uuid, or an empty slot's."""
    if text is None or len(text) != len(_NIL_UUID) or text == _NIL_UUID:
        return None
    return text.lower()


def why_unusable(
    dev: str,
    *,
    enabled: bool,
    mode: str,
    devices: int,
    device: str,
    device_enabled: bool,
    name: str | None,
    uuid: str | None,
    size: int,
) -> str | None:
    """Why a namespace of the NVDIMM bus cannot be given to a guest, None when it can.

    :param dev: what the kernel calls it, ``namespace0.0``
    :param enabled: whether a driver is bound to it, or to the dax, pfn or btt device that claims it
    :param mode: see :class:`vpmem_driver.model.Namespace`
    :param devices: how many dax devices it has
    :param device: the name of the one that it should have, ``dax0.0``
    :param device_enabled: whether a driver is bound to that one
    """
    if not enabled:
        # While it is disabled the kernel does not tell what it was made as: its mode would be a wrong reason.
        return f"it is disabled; 'ndctl enable-namespace {dev}' enables it"
    if mode != "devdax":
        return _OTHER_MODES.get(mode, f"its mode is {mode}: a guest can only be given devdax")
    if devices > 1:
        return f"it is split into {devices} devices"
    if not device:
        return "it has no device"
    if not device_enabled:
        return f"its device is disabled; 'daxctl enable-device {device}' enables it"
    return None if size > 0 and uuid and name else _lacking(uuid, size)


def _lacking(uuid: str | None, size: int) -> str:
    if size <= 0:
        return "its size is 0"
    if not uuid:
        return "it has no uuid"
    return "it has no name; 'ndctl create-namespace --name' gives one to a new namespace"


def read_node(path: str) -> int | None:
    """The NUMA node in a ``numa_node`` or ``target_node`` file of sysfs; None when the file is not there or says -1."""
    try:
        with open(path, encoding="ascii") as file:
            node = int(file.read())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None
