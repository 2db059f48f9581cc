"""The cluster: one controller, two compute hosts, and what is needed to look at them."""

import contextlib
import pathlib
import shutil
import time
from collections.abc import Iterator

from tests.cluster import cloud, compute, controller, databases, host, settings, tree
from tests.machine import commands, guest, kernel
from tests.waiting import wait_until

_START_SECONDS = 240

#: What is kept for the next run.
WORK = settings.ROOT / ".tox"


class Cluster:
    """All of it, running.

    :ivar cloud: the client
    :ivar start_times: what was done until it ran, and the seconds since the beginning
    """

    def __init__(self, hosts: dict[str, host.Host]) -> None:
        self.hosts = hosts
        self.controller = hosts[settings.CONTROLLER]
        self.computes = [hosts[name] for name in settings.COMPUTES]
        self.cloud = cloud.Cloud(self.controller)
        self.start_times: list[tuple[str, float]] = []

    def start(self, *hosts: host.Host) -> None:
        """Start the services of compute hosts that are on; returns when Nova can use them."""
        for one in hosts:
            compute.start(one)
        self.start_nova(*hosts)

    def start_nova(self, *hosts: host.Host, driver: str = compute.OURS, **vpmem: object) -> None:
        """Start nova-compute, as :func:`.compute.start_nova` does; returns when Nova can use these hosts."""
        began = self.query("SELECT UTC_TIMESTAMP()")
        for one in hosts:
            compute.start_nova(one, driver, **vpmem)
        for one in hosts:
            seen = f"SELECT COUNT(*) FROM nova.services WHERE host = '{one.name}' AND last_seen_up > '{began}'"  # noqa: S608
            wait_until(lambda seen=seen: int(self.query(seen)), f"{one.name} is in service", _START_SECONDS, pause=0.5)

    def query(self, sql: str) -> str:
        """Ask the databases: the client takes seconds of processor time for each of its answers."""
        return self.controller.run("mariadb", "--skip-column-names", "--execute", sql).strip()

    def keep_logs(self, target: pathlib.Path) -> None:
        """Copy what all services have said to a directory."""
        shutil.rmtree(target, ignore_errors=True)
        for name, one in self.hosts.items():
            for logs in ("var/log/cluster", "var/log/libvirt"):
                if (one.root / logs).exists():
                    shutil.copytree(one.root / logs, target / name, dirs_exist_ok=True)


def prepare() -> tuple[list[pathlib.Path], kernel.Kernel]:
    """The layers of the hosts, and the guests' kernel: made from the network when they are not there."""
    return tree.layers(WORK), kernel.unpacked(WORK / "kernel")


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Start it, and end it. This process must have mount, network and PID namespaces of its own: they end all else."""
    begin = time.monotonic()

    layers, of = prepare()
    work = WORK / "cluster-run"
    work.mkdir(exist_ok=True)
    commands.run("mount", "-t", "tmpfs", "tmpfs", work)
    host.make_network()
    hosts = {name: host.Host(name, layers, work) for name in settings.COMPUTES}
    filled = _filled_databases(layers[-1], work)
    hosts[settings.CONTROLLER] = host.Host(settings.CONTROLLER, [filled, *layers], work)
    made = Cluster(hosts)

    def say(what: str) -> None:
        made.start_times.append((what, time.monotonic() - begin))
        print(f"cluster: {made.start_times[-1][1]:4.0f} s: {what}", flush=True)

    try:
        for one in hosts.values():
            one.power_on()
        say("three hosts are on")
        for one in made.computes:
            compute.set_up(one)
        compute.exchange_keys(made.computes)
        controller.start(made.controller)
        say("the controller's services listen")
        initramfs = guest.build(work / "initramfs", of)
        cloud.provision(made.controller, of.image, initramfs, f"console=ttyS0 {kernel.QUICK}")
        made.start(*made.computes)
        controller.discover(made.controller)
        say("the compute hosts are up")
        yield made
    finally:
        for one in hosts.values():
            one.power_off()


def _filled_databases(tree_files: pathlib.Path, work: pathlib.Path) -> pathlib.Path:
    """The layer that makes a host the controller."""

    def make(home: pathlib.Path) -> None:
        one = host.Host(settings.CONTROLLER, [tree_files], work / "first")
        one.power_on()
        try:
            databases.fill(one)
        finally:
            one.power_off()
        commands.run("cp", "--archive", one.files, home)

    sources = [pathlib.Path(module.__file__).read_bytes() for module in (controller, databases, settings)]
    digest = tree.digest_of([(tree_files.parent / "digest").read_text(), *sources])
    return tree.made(WORK / "cluster-databases", digest, make)
