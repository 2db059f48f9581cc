"""Namespaces against the configuration: devices, what guests lose, NUMA nodes."""

import collections
import os
import stat
from collections.abc import Iterator

from oslo_config import cfg

from vpmem_driver import exception, model, sizes
from vpmem_driver.checkup import finding
from vpmem_driver.checkup.finding import Finding
from vpmem_driver.checkup.host import Host
from vpmem_driver.discovery import badblocks, interface
from vpmem_driver.faults import checks as faults
from vpmem_driver.faults import namespaces as of_namespaces
from vpmem_driver.pool.snapshot import Snapshot

#: A guest always loses its label. More than this and this share of the namespace is worth a warning.
_USUAL_LOSS = sizes.LABEL_SIZE + sizes.GRANULE
_LEAST_SHARE = 100


def configured(snapshot: Snapshot) -> Iterator[Finding]:
    """Check that some namespaces can be given to guests."""
    check = "configuration"
    if snapshot.found is None:
        return
    labelled = [record for record in snapshot.records if record.label is not None]
    usable = [record for record in labelled if record.state not in {"missing", "unusable"}]
    if not usable:
        reason = (
            "none of its namespaces is usable"
            if labelled
            else "pmem_namespaces is empty, or names nothing on this host"
        )
        yield finding.failure(check, faults.CONFIGURATION, reason)
        return
    other = [ns for ns in snapshot.found if ns.unusable is None and ns.uuid not in {record.uuid for record in labelled}]
    more = f"; {len(other)} more usable without a label" if other else ""
    labels = len({record.label for record in usable})
    yield finding.ok(check, f"{len(usable)} usable namespaces with {labels} label{'s' if labels > 1 else ''}{more}")


def hardware(snapshot: Snapshot) -> Iterator[Finding]:
    """Say on which hardware the usable namespaces with a label are, so that a person finds it."""
    places = collections.Counter(
        (ns.provider, ns.volatile, ns.persistence_domain, ns.memdev, ns.serial) for ns in _labelled(snapshot)
    )
    for (provider, volatile, domain, memdev, serial), count in sorted(places.items(), key=str):
        words = [f"persistence domain {domain}" if domain else "", memdev or "", f"serial {serial}" if serial else ""]
        if provider is not None:
            what = f"{count} {'volatile ' if volatile else ''}namespace{'s' if count > 1 else ''}"
            yield finding.ok("hardware", ", ".join([f"{provider}: {what}", *filter(None, words)]))


def nodes(host: Host, snapshot: Snapshot, conf: cfg.ConfigOpts) -> Iterator[Finding]:
    """Check that the device of every namespace with a label can be opened by whoever wipes it."""
    check = "devices"
    namespaces = _labelled(snapshot)
    faulty = False
    for namespace in namespaces:
        assert namespace.device is not None  # noqa: S101  every usable namespace has one
        reason = _not_openable(host, namespace.device)
        if reason is None:
            continue
        faulty = True
        if reason == _DENIED and (conf.vpmem.wipe_command or not host.is_root):
            continue
        yield finding.failure(check, faults.DEVICE, f"{namespace.name}: {namespace.device} {reason}")
        return
    if faulty and conf.vpmem.wipe_command:
        yield finding.ok(check, f"{len(namespaces)} exist; wipe_command opens them")
    elif faulty:
        yield finding.unseen(
            check, f"this user may not open {namespaces[0].device}", "Run this as root, or set wipe_command"
        )
    elif namespaces:
        yield finding.ok(check, f"{len(namespaces)} can be read and written")


_DENIED = "may not be read and written by this user"


def _not_openable(host: Host, device: str) -> str | None:
    path = host.path(device)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "does not exist"
    except OSError:
        return _DENIED
    if not (stat.S_ISCHR(mode) or stat.S_ISREG(mode)):
        return "is neither a character device nor a file"
    return None if os.access(path, os.R_OK | os.W_OK, effective_ids=True) else _DENIED


def losses(snapshot: Snapshot) -> Iterator[Finding]:
    """Check how much of each namespace a guest gets."""
    check = "alignment"
    wasteful = 0
    lost = 0
    sizes_seen = {record.uuid: record.guest_size for record in snapshot.records}
    for namespace in _labelled(snapshot):
        seen = sizes_seen[namespace.uuid] or 0
        lost += namespace.size - seen
        if namespace.size - seen > max(_USUAL_LOSS, namespace.size // _LEAST_SHARE):
            wasteful += 1
            got, of, align = map(sizes.in_words, (seen, namespace.size, namespace.align))
            yield finding.warning(
                check,
                faults.WASTE,
                f"{namespace.name}: a guest gets {got} of {of}, because of the alignment of {align}",
            )
    if not wasteful and _labelled(snapshot):
        yield finding.ok(check, f"labels and alignment take {sizes.in_words(lost)} of all namespaces")


def flushes(snapshot: Snapshot) -> Iterator[Finding]:
    """Check that what the guests of files flush reaches the disk."""
    check = "flushes"
    cached = {ns.uuid for ns in _labelled(snapshot) if ns.mode == "file" and not ns.pmem}
    owned = [record for record in snapshot.records if record.uuid in cached and record.device_model is not None]
    for record in owned:
        if record.device_model == model.DeviceModel.NVDIMM:
            reason = "it is a nvdimm on a file without DAX, so that a flush of its guest does not reach the disk"
            yield finding.warning(check, faults.FLUSH, f"{record.name}: {reason}")
    if owned and all(record.device_model == model.DeviceModel.VIRTIO_PMEM for record in owned):
        yield finding.ok(check, f"virtio-pmem writes what the guests of {len(owned)} files flush")


def numa(host: Host, snapshot: Snapshot) -> Iterator[Finding]:
    """Check that the NUMA node of each namespace is known and exists."""
    check = "NUMA"
    faulty = False
    for namespace in _labelled(snapshot):
        node = namespace.numa_node
        if node is None:
            reason = "its NUMA node is unknown"
        elif not host.exists(f"/sys/devices/system/node/node{node}"):
            reason = f"NUMA node {node} does not exist"
        else:
            continue
        faulty = True
        yield finding.warning(check, faults.NUMA, f"{namespace.name}: {reason}")
    nodes = sorted({namespace.numa_node for namespace in _labelled(snapshot) if namespace.numa_node is not None})
    if nodes and not faulty:
        yield finding.ok(check, f"namespaces on node{'s' if len(nodes) > 1 else ''} {', '.join(map(str, nodes))}")


def media(snapshot: Snapshot, source: interface.Discovery) -> Iterator[Finding]:
    """Check that no namespace with a label has addresses that cannot be read. A claimed one is only reported."""
    rows = snapshot.rows
    for namespace in _labelled(snapshot):
        check = f"namespace {namespace.name}"
        try:
            ranges = source.bad_ranges(namespace.device or "")
        except exception.HostToolError as error:
            yield finding.unseen(check, str(error))
            return
        if ranges:
            row = rows.get(namespace.uuid or "")
            holder = f"; it belongs to {row.owner}" if row is not None and row.owner is not None else ""
            yield finding.failure(check, of_namespaces.BAD_MEDIA, f"{badblocks.text(ranges)}{holder}")


def _labelled(snapshot: Snapshot) -> list[model.Namespace]:
    """Return the usable namespaces with a label."""
    labels = {record.uuid for record in snapshot.records if record.label is not None}
    return [ns for ns in snapshot.found or () if ns.unusable is None and ns.uuid in labels]
