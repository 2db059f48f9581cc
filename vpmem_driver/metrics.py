"""Metrics of a host for Prometheus.

All are gauges of the present, or of the last day in the history: this process ends at once, and counts nothing.
Names follow https://prometheus.io/docs/practices/naming/.
"""

import collections
import datetime
import os
from collections.abc import Iterable

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge

from vpmem_driver import __version__, model
from vpmem_driver.checkup import Finding
from vpmem_driver.ledger import Move
from vpmem_driver.model import State
from vpmem_driver.pool.snapshot import Snapshot, recent_moves

_DAY = datetime.timedelta(days=1)
_GROUP = ("state", "label", "node")
_ENDED = (State.CLEAN.value, State.CLAIMED.value)


def registry(now: Snapshot, faults: Iterable[Finding]) -> CollectorRegistry:
    """Return the metrics of a host."""
    made = CollectorRegistry()
    Gauge("vpmem_info", "Version of vpmem_driver.", ["version"], registry=made).labels(__version__).set(1)
    time = Gauge("vpmem_metrics_timestamp_seconds", "Time at which these metrics were made.", registry=made)
    time.set(datetime.datetime.now(datetime.UTC).timestamp())
    _namespaces(made, now)
    _waiting(made, now)
    _history(made, now)
    _health(made, now, faults)
    return made


def text(made: CollectorRegistry) -> str:
    """Return the metrics in Prometheus' text format."""
    return str(prometheus_client.generate_latest(made), "utf-8")


def write(made: CollectorRegistry, path: str) -> None:
    """Replace the file `path` in one step.

    :raises OSError: it cannot be written; an older file is unchanged
    """
    prometheus_client.write_to_textfile(path, made)


def _namespaces(made: CollectorRegistry, now: Snapshot) -> None:
    count = Gauge("vpmem_namespaces", "Namespaces by state, label and NUMA node.", _GROUP, registry=made)
    size = Gauge("vpmem_namespaces_bytes", "Bytes of the namespaces.", _GROUP, registry=made)
    # Without these, a state that has no namespace any more would keep its last value in an alert.
    labels = {record.label or "" for record in now.records if record.state != "unusable"}
    nodes = {_node(record) for record in now.records}
    for state in (*(state.value for state in State), "missing"):
        for label in labels:
            for node in nodes:
                count.labels(state, label, node).set(0)
                size.labels(state, label, node).set(0)
    for record in now.records:
        count.labels(record.state, record.label or "", _node(record)).inc()
        size.labels(record.state, record.label or "", _node(record)).inc(record.size)


def _node(record: model.Record) -> str:
    return "" if record.numa_node is None else str(record.numa_node)


def _waiting(made: CollectorRegistry, now: Snapshot) -> None:
    work = {uuid: progress for uuid in now.rows if (progress := now.progress(uuid)) is not None}
    active = Gauge("vpmem_active_jobs", "Wipes and copies that make progress.", registry=made)
    active.set(len(now.active))
    stalled = Gauge("vpmem_stalled_jobs", "Wipes and copies that have begun and make no progress.", registry=made)
    stalled.set(len(work.keys() - now.active))
    left = Gauge("vpmem_jobs_remaining_bytes", "Bytes that begun wipes and copies have still to do.", registry=made)
    left.set(sum(progress.total - progress.done for progress in work.values()))
    waiting = {row.owner for row in now.rows.values() if row.reservation is not None}
    owners = Gauge("vpmem_waiting_owners", "Owners whose claim waits for wipes, as a boot does.", registry=made)
    owners.set(len(waiting))
    dirty = [now.moved_at[uuid] for uuid, row in now.rows.items() if row.state is State.DIRTY and uuid in now.moved_at]
    if dirty:
        oldest = Gauge("vpmem_oldest_dirty_timestamp_seconds", "Since when the oldest is dirty.", registry=made)
        oldest.set(min(dirty).timestamp())


def _history(made: CollectorRegistry, now: Snapshot) -> None:
    begin = datetime.datetime.now(datetime.UTC) - _DAY
    wipes: collections.Counter[str] = collections.Counter(wiped=0, failed=0)
    ended: dict[str, datetime.datetime] = {}
    wiped_bytes = 0
    longest = 0.0
    for move, at in recent_moves(now, begin):  # newest first
        if _is_wiped(move):
            wipes["wiped"] += 1
            wiped_bytes += now.rows[move.uuid].size if move.uuid in now.rows else 0
            ended[move.uuid] = at
        elif move.to_state == State.QUARANTINED:
            wipes["failed"] += 1
        elif move.to_state == State.DIRTY and move.uuid in ended:
            longest = max(longest, (ended.pop(move.uuid) - at).total_seconds())
    wiped = Gauge("vpmem_wipes_last_day", "Wipes that ended in the last 24 hours.", ["result"], registry=made)
    for result, number in wipes.items():
        wiped.labels(result).set(number)
    size = Gauge("vpmem_wiped_last_day_bytes", "Bytes of the namespaces wiped in the last 24 hours.", registry=made)
    size.set(wiped_bytes)
    time = Gauge("vpmem_longest_dirty_last_day_seconds", "Longest time from dirty to wiped.", registry=made)
    time.set(longest)


def _is_wiped(move: Move) -> bool:
    return move.from_state == State.DIRTY and move.to_state in _ENDED and move.reason.startswith("wiped")


def _health(made: CollectorRegistry, now: Snapshot, faults: Iterable[Finding]) -> None:
    readable = Gauge("vpmem_ledger_readable", "Whether the ledger was read, or does not exist yet.", registry=made)
    readable.set(int(now.has_ledger or not os.path.lexists(now.ledger)))
    found = Gauge("vpmem_discovery_up", "Whether the namespaces of the host could be listed.", registry=made)
    found.set(int(now.found is not None))
    try:
        space = os.statvfs(now.ledger.parent)
        size = now.ledger.stat().st_size
    except OSError:
        pass
    else:
        free = Gauge("vpmem_ledger_free_bytes", "Free space on the filesystem of the ledger.", registry=made)
        free.set(space.f_bavail * space.f_frsize)
        Gauge("vpmem_ledger_size_bytes", "Size of the ledger file.", registry=made).set(size)
    by_id = collections.Counter(fault.id or "" for fault in faults)
    count = Gauge("vpmem_faults", "Faults that need a person, by id; see 'vpmem explain'.", ["id"], registry=made)
    for name, number in by_id.items():
        count.labels(name).set(number)
    Gauge("vpmem_faults_all", "All faults that need a person.", registry=made).set(by_id.total())
