"""Run all checks of a host."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from oslo_config import cfg

from vpmem_driver import discovery
from vpmem_driver.checkup import devices, kernel, ledger, namespaces, nova, programs, virtualization
from vpmem_driver.checkup.finding import Finding, Level
from vpmem_driver.checkup.host import Host
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import snapshot

#: The discoveries that need the kernel's persistent memory; `directory` does not.
_WITH_DEVICES = frozenset({"ndctl", "sysfs"})


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """What is checked, and with what."""

    conf: cfg.ConfigOpts
    host: Host
    domains: Domains
    now: snapshot.Snapshot

    @classmethod
    def of(cls, conf: cfg.ConfigOpts, host: Host | None = None, domains: Domains | None = None) -> "Subject":
        """Return the host that `conf` describes.

        :raises ConfigurationError: an option has the wrong form
        """
        return cls(conf, host or Host(), domains or Domains(conf.vpmem.connection_uri), snapshot.read(conf))


def _kernel(subject: Subject) -> Iterator[Finding]:
    if subject.conf.vpmem.discovery in _WITH_DEVICES:
        yield from kernel.modules(subject.host)
        yield from kernel.regions(subject.host)
        yield from kernel.drivers(subject.host)
        yield from kernel.media(subject.host)
        yield from kernel.poison(subject.host)


def _namespaces(subject: Subject) -> Iterator[Finding]:
    yield from devices.configured(subject.now)
    yield from devices.hardware(subject.now)
    yield from devices.nodes(subject.host, subject.now, subject.conf)
    yield from devices.media(subject.now, discovery.from_conf(subject.conf))
    yield from devices.losses(subject.now)
    yield from devices.flushes(subject.now)
    yield from devices.numa(subject.host, subject.now)
    yield from namespaces.check(subject.now)


def _ledger(subject: Subject) -> Iterator[Finding]:
    yield from ledger.content(subject.now)
    yield from ledger.directory(subject.now.ledger.parent)


def _programs(subject: Subject) -> Iterator[Finding]:
    pmem = any(ns.pmem for ns in subject.now.found or () if ns.unusable is None)
    yield from programs.ndctl(subject.host, subject.conf.vpmem.discovery)
    yield from programs.libpmem()
    yield from programs.qemu(subject.host, pmem=pmem)


def _libvirt(subject: Subject) -> Iterator[Finding]:
    yield from virtualization.versions(subject.domains)
    yield from virtualization.hook(subject.host, is_nova=nova.configured_driver(subject.conf) is not None)
    yield from virtualization.locked_memory(subject.host)
    yield from virtualization.pid_namespace(subject.host, subject.domains)


def _nova(subject: Subject) -> Iterator[Finding]:
    driver = nova.configured_driver(subject.conf)
    if driver is not None:
        yield from nova.version(driver)
    yield from nova.wipe_command(subject.host, subject.conf.vpmem.wipe_command)


#: All checks, from the kernel up to Nova.
GROUPS: dict[str, Callable[[Subject], Iterator[Finding]]] = {
    "Kernel": _kernel,
    "Namespaces": _namespaces,
    "Ledger": _ledger,
    "Programs": _programs,
    "libvirt": _libvirt,
    "Nova": _nova,
}


def run(subject: Subject) -> list[Finding]:
    """Return the findings of all checks."""
    return [finding for check in GROUPS.values() for finding in check(subject)]


def worst(findings: Iterable[Finding]) -> Level:
    """Return the most serious level."""
    order = list(Level)
    return max((finding.level for finding in findings), key=order.index, default=Level.OK)
