"""Validate requests: owners, labels, NUMA nodes, and namespaces to claim or adopt."""

import re
from collections.abc import Sequence

from vpmem_driver import exception, ledger
from vpmem_driver.discovery import interface
from vpmem_driver.model import State
from vpmem_driver.pool import labels

#: QEMU's ACPI_MAX_RAM_SLOTS (include/hw/acpi/acpi_dev_interface.h, hw/i386/pc.c; QEMU 6.2 to 10): one device, one slot.
MAX_DEVICES = 256

#: The most characters of a reason in the history.
_MAX_REASON = 500

_UUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def owner(text: str) -> str:
    """Return an owner's uuid in canonical form.

    :raises InvalidRequest: `text` is not a uuid
    """
    if _UUID.fullmatch(text):
        return text.lower()
    raise exception.InvalidRequest(
        what="owner",
        value=text,
        reason="it is not a uuid",
        remedy="Give the uuid of the instance or domain ('virsh domuuid DOMAIN')",
    )


def reason(text: str) -> str:
    """Return the reason that an operator gives for the history.

    :raises InvalidRequest: it is empty, too long, or cannot be printed
    """
    text = text.strip()
    if 0 < len(text) <= _MAX_REASON and text.isprintable():
        return text
    raise exception.InvalidRequest(
        what="reason",
        value=text,
        reason=f"it is not one line of 1 to {_MAX_REASON} printable characters",
        remedy="Say why, for example with the number of a ticket",
    )


def label_ids(config: labels.LabelConfig, wanted: Sequence[str]) -> list[int]:
    """Return the index of each wanted label in the configuration.

    :raises InvalidRequest: there are too many, too few, or one is not configured
    """
    if not 0 < len(wanted) <= MAX_DEVICES:
        raise exception.InvalidRequest(
            what="request",
            value=f"{len(wanted)} labels",
            reason=f"a guest has 1 to {MAX_DEVICES} persistent memory devices",
            remedy="Request LABEL[,LABEL…], one label per device",
        )
    ids = []
    for label in wanted:
        index = config.index(label)
        if index is None:
            raise exception.InvalidRequest(
                what="label",
                value=label,
                reason="[libvirt] pmem_namespaces does not contain it",
                remedy=f"Configured labels: {exception.listed(config.labels)}",
            )
        ids.append(index)
    return ids


def require_claimable(owner: str, row: ledger.Row, *, usable: bool) -> None:
    """Verify that `owner` may claim this namespace.

    :raises NamespaceUnavailable: another owner holds it, it is quarantined or missing, or a copy is not complete
    """
    if row.owner == owner and row.state is State.RECEIVING:
        reason = f"a copy has written {100 * row.copied // row.size} % of its content"
        raise exception.NamespaceUnavailable(namespace=row.name or row.uuid, owner=owner, reason=reason)
    if row.owner == owner and row.departure is not None:
        reason = "its content is being copied to another namespace, and its guest must not start meanwhile"
        raise exception.NamespaceUnavailable(namespace=row.name or row.uuid, owner=owner, reason=reason)
    if row.owner == owner:
        return
    fault = (
        f"it belongs to {row.owner}"
        if row.owner is not None
        else f"it is quarantined ({row.reason})"
        if row.state is State.QUARANTINED
        else "it is not on this host now"
        if not usable
        else None
    )
    if fault is not None:
        raise exception.NamespaceUnavailable(namespace=row.name or row.uuid, owner=owner, reason=fault)


def require_adoptable(owner: str, row: ledger.Row, *, in_domain: bool = False) -> None:
    """Verify that a namespace is free and that its content can only be the owner's.

    :param in_domain: a domain of the owner uses the namespace, so that even a clean one may contain its data
    :raises NotOwner: another owner holds it, it contains another owner's data, its wipe has begun, or it is quarantined
    :raises NamespaceUnavailable: it is clean
    """
    if row.owner == owner:
        return
    name = row.name or row.uuid
    if row.owner is None and row.state is State.CLEAN and not in_domain:
        reason = "it was wiped and contains no data to adopt; to use it, run 'vpmem claim'"
        raise exception.NamespaceUnavailable(namespace=name, owner=owner, reason=reason)
    fault = None
    if row.owner is not None:
        fault = f"it belongs to {row.owner}"
    elif row.state is State.QUARANTINED:
        fault = "it is quarantined"
    elif row.state is State.DIRTY and row.begun:
        fault = "its wipe has begun"
    elif row.state is State.DIRTY and row.last_owner != owner:
        fault = f"it still contains the data of {row.last_owner or 'an unknown owner'}"
    if fault is not None:
        raise exception.NotOwner(owner=owner, namespace=name, reason=fault)


def require_numa_node(node: int | None) -> None:
    """Verify that a NUMA node number is possible.

    :raises InvalidRequest: no host has such a node
    """
    if node is not None and not 0 <= node < interface.MAX_NODES:
        raise exception.InvalidRequest(
            what="NUMA node",
            value=node,
            reason="no host has such a node",
            remedy=f"Give a node of this host, at most {interface.MAX_NODES - 1} ('numactl --hardware' lists them)",
        )
