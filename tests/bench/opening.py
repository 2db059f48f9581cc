"""Opening a pool on a host whose ledger has all of its namespaces, half of them claimed."""

import pathlib
import sqlite3
import uuid

from bench import hosts
from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver import ledger
from vpmem_driver.discovery.ndctl import NdctlDiscovery
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import Pool

SIZES = (8, 64, 512, 4096)


def _loops(size: int) -> int:
    return max(1, 256 // size)


def ours(measure: Measure) -> None:
    """Discovery (JSON in hand), ledger, matching; and the same until the table is ready to choose."""
    for size in SIZES:
        with hosts.on_disk() as state_path:
            options = hosts.configured(size, state_path)
            text = hosts.listing(size)
            source = NdctlDiscovery(run=lambda text=text: text)
            _claim_half(Pool.from_conf(options, source=source, domains=Domains(None)))

            def opened(options=options, source=source) -> None:
                Pool.from_conf(options, source=source, domains=Domains(None)).close()

            def ready(options=options, source=source) -> None:
                pool = Pool.from_conf(options, source=source, domains=Domains(None))
                pool.inventory()
                pool.close()

            measure.calls(size, _loops(size), opened)
            measure.calls(f"{size}, and its table", _loops(size), ready)


def _claim_half(pool: Pool) -> None:
    """Give every second namespace to a guest."""
    owners: dict[str, list[str]] = {}
    for record in pool.records()[::2]:
        owners.setdefault(str(uuid.uuid4()) if len(owners) < 64 else next(iter(owners)), []).append(record.uuid or "")
    for owner, uuids in owners.items():
        pool.adopt(owner, uuids)
    pool.close()


def nova(measure: Measure) -> None:
    """What LibvirtDriver.__init__ does of it: discovery. It has no ledger."""
    from bench import novas

    for size in SIZES:
        discover, option = novas.discovery(hosts.listing(size)), hosts.pmem_namespaces(size)
        measure.calls(size, max(1, _loops(size) // 8), lambda discover=discover, option=option: discover(option))


def limit(measure: Measure) -> None:
    """SQLite reads the table."""
    for size in SIZES:
        with hosts.on_disk() as state_path:
            options = hosts.configured(size, state_path)
            text = hosts.listing(size)
            source = NdctlDiscovery(run=lambda text=text: text)
            _claim_half(Pool.from_conf(options, source=source, domains=Domains(None)))
            path = pathlib.Path(state_path, ledger.FILE_NAME)

            def read(path=path) -> None:
                connection = sqlite3.connect(path)
                connection.execute("SELECT * FROM namespace ORDER BY name, uuid").fetchall()
                connection.close()

            measure.calls(size, _loops(size), read)


ROW = Row(
    name="open",
    work="opening a pool: ledger of N namespaces, discovered and reconciled",
    kinds={"ours": ours, "nova": nova, "limit": limit},
    targets=tuple(Target(case=str(size), against="limit", most=3) for size in SIZES),
)
