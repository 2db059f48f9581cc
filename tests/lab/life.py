"""The life of a guest's memory of one kind. The stations are tests, in order; a host's module says of which kinds."""

import dataclasses
import pathlib
import uuid
from collections.abc import Callable

from tests.lab import daemon, ready
from tests.lab.host import STATE, VirtualHost
from tests.lab.test_power import wait_until
from tests.machine import guest, kernel
from tests.proofs import proves
from vpmem_driver.sizes import MIB

#: The configuration of the other host, to which content moves: another ledger, and one namespace.
OTHER = "/etc/vpmem/other.conf"
SIZE = 16 * MIB
#: One for the guest, one that is plugged in, one to migrate to, and one of the other host.
NAMES = tuple(f"life{number}" for number in range(4))

#: Kinds whose host keeps the content, and those whose guest has it as a nvdimm.
_LASTING = ("devdax", "dax file", "cxl", "virtio-pmem")
_NVDIMM = ("devdax", "dax file", "cxl", "volatile")

_WIPED = "the content is lost with the host; its owner gets the memory back, wiped"
_NO_NODE = "the kernel does not say on which node CXL RAM is that is not system memory"
_NOT_SENT = "QEMU does not send the content, so the Nova driver refuses it; a cold move copies it"

_MAKE_FILES = f"""
set -e
cd "$1"
mkdir -p here there
for file in {" ".join(f"here/{name}" for name in NAMES[:3])} there/{NAMES[3]}; do
    [ -e $file ] || (umask 077 && fallocate -l {SIZE} $file)
done
sync
"""
_MOVER = pathlib.Path(__file__).with_name("mover.py")
_MONITOR, _INCOMING = "/run/source.monitor", "/run/incoming"
_LOGS = ("/run/source.log", "/run/target.log")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of memory on a host.

    :ivar name: as in tests/proofs.py
    :ivar prepare: makes its namespaces ready after a boot; returns the names of the four, and lines of [vpmem] for the
        host and for the other host
    :ivar backend: what libvirt tells QEMU of such a memory
    :ivar pins: the host node that each cell of its guest is pinned to
    :ivar node: where the kernel says that it is; cell 1 is pinned to that
    """

    name: str
    prepare: Callable[[VirtualHost], tuple[tuple[str, ...], str, str]]
    backend: str = ""
    label: str = "LIFE"
    pins: tuple[int | None, ...] = (None,)
    node: int | None = None

    @property
    def virtio(self) -> bool:
        return self.name == "virtio-pmem"

    @property
    def lasts(self) -> bool:
        """Whether a restart of the host keeps its content."""
        return self.name in _LASTING


def files(host: VirtualHost, directory: str) -> tuple[tuple[str, ...], str, str]:
    """The four as files below `directory`, as :attr:`Kind.prepare` returns them."""
    host.run("sh", "-c", _MAKE_FILES, "sh", directory)
    options = "discovery = directory\ndirectory = {0}/{1}\nstate_path = {2}/{1}-life\n"
    return NAMES, *(options.format(directory, name, STATE) for name in ("here", "there"))


class Story:
    """One guest on a host, and its memory."""

    def __init__(self, host: VirtualHost, kind: Kind) -> None:
        self.host, self.kind = host, kind
        self.prepare()
        daemon.start(host)
        self.owner, definition = daemon.small_guest(pins=kind.pins, mode="vpmem.plug")
        daemon.define(host, definition)

    def prepare(self) -> None:
        """Make namespaces and configurations ready, after a boot."""
        names, here, there = self.kind.prepare(self.host)
        for path, its, options in ((ready.CONFIG, names[:3], here), (OTHER, names[3:], there)):
            text = f"[libvirt]\npmem_namespaces = {self.kind.label}:{'|'.join(its)}\n[vpmem]\n{options}"
            self.host.call("write", path, text)
        self.names = names

    def rows(self, *words: str) -> dict[str, dict]:
        return {row["name"]: row for row in self.host.vpmem(*words, "namespace", "list", "-f", "json").json}

    def held(self) -> list[dict]:
        """What the guest has, in order."""
        return sorted((row for row in self.rows().values() if row["owner"] == self.owner), key=lambda row: row["name"])

    def start(self) -> tuple[guest.Device, ...]:
        """Start the guest; the devices that it finds."""
        self.host.run("virsh", "start", "guest")
        (report,) = wait_until(self.host, lambda: guest.reports(self.host.call("read", daemon.LOG)))
        return report.devices

    def content(self, row: dict) -> str:
        return self.host.call("content", row["device"], row["guest_size"])

    def written(self, slot: int) -> str:
        """What the guest fills its device in `slot` with, as :func:`inside.content` says it."""
        slot = 0 if self.kind.virtio else slot
        return guest.pattern(self.owner, slot, 64).decode()

    def qemu(self, row: dict, log: str, *words: str) -> int:
        """Start the guest without libvirt, with libvirt's arguments, on that namespace; its process id."""
        size = row["size"] // (2 * MIB) * 2 * MIB
        options = f"id=mem0,share=on,mem-path={row['device']},size={size}{self.kind.backend}"
        model = "virtio-pmem-pci" if self.kind.virtio else f"nvdimm,label-size={2 * MIB}"
        line = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-accel", "kvm"]
        line += ["-uuid", self.owner, "-machine", "q35,nvdimm=on", "-m", "256M,slots=1,maxmem=1G"]
        line += ["-object", f"memory-backend-file,{options}", "-device", f"{model},memdev=mem0,id=pmem0"]
        line += ["-kernel", f"{daemon.BOOT}/vmlinuz", "-initrd", f"{daemon.BOOT}/initramfs", "-serial", f"file:{log}"]
        return self.host.call("start", [*line, "-append", f"console=ttyS0 {kernel.QUICK}", *words])


class Life:
    """The stations of one kind after the other. The fixture ``life`` of a module gives a :class:`Story` of each."""

    @proves("claim", "wipe", kinds=(*_LASTING, "volatile"))
    def test_a_claim_wipes_what_somebody_left(self, life, seen):
        before = life.rows()
        for name in life.names[:3]:
            assert before[name]["state"] == "unknown"
            life.host.call("fill", before[name]["device"], "somebody's")
        reserve = f"1:{SIZE // MIB}M"
        (row,) = life.host.vpmem("domain", "attach", "guest", life.kind.label, "--reserve", reserve, "-f", "json").json
        assert (row["name"], row["state"], row["owner"]) == (life.names[0], "claimed", life.owner)
        assert row["device_model"] == ("virtio-pmem" if life.kind.virtio else "nvdimm")
        assert ("<pmem/>" in life.host.run("virsh", "dumpxml", "guest").out) == ("pmem=on" in life.kind.backend)
        assert not life.host.call("content", row["device"])
        assert life.host.call("content", before[life.names[1]]["device"]) == "somebody's"
        seen(f"{life.kind.name}: claim", f"{row['name']}, {row['size'] // MIB} MiB, all zeros")

    @proves("NUMA", kinds=("devdax", "dax file", "cxl"))
    @proves("NUMA", kinds=("volatile",), no=_NO_NODE)
    def test_the_guest_finds_zeros_in_it_on_the_node_of_the_host(self, life, seen):
        (device,) = life.start()
        (row,) = life.held()
        assert (device.size, device.zeros, device.holds(life.owner, 0)) == (row["guest_size"], True, True)
        assert life.content(row) == life.written(0)
        assert row["numa_node"] == life.kind.node
        if not life.kind.virtio:
            assert device.node == (0 if life.kind.node is None else 1)
        seen(f"{life.kind.name}: the guest", f"sees {device.size // MIB} MiB on node {device.node}, and fills them")

    @proves("hot plug", kinds=(*_LASTING, "volatile"))
    def test_the_running_guest_gets_another_one(self, life, seen):
        (row,) = life.host.vpmem("domain", "attach", "guest", life.kind.label, "--live", "-f", "json").json
        assert row["name"] == life.names[1]
        wait_until(life.host, lambda: guest.plugged(life.host.call("read", daemon.LOG)))
        (device,) = guest.plugged(life.host.call("read", daemon.LOG))
        assert (device.size, device.zeros) == (row["guest_size"], True)
        assert life.content(row) == life.written(1)
        seen(f"{life.kind.name}: attach --live", f"the running guest sees {device.name}, and fills it")

    @proves("survives guest stop", kinds=(*_LASTING, "volatile"))
    def test_it_keeps_them_when_it_is_stopped_and_started(self, life, seen):
        life.host.run("virsh", "destroy", "guest")
        devices = life.start()
        assert [device.zeros for device in devices] == [False, False]
        assert all(device.holds(life.owner, device.slot) for device in devices)
        assert [life.content(row) for row in life.held()] == [life.written(0), life.written(1)]
        seen(f"{life.kind.name}: stop and start", "all bytes kept")

    @proves("survives power loss", kinds=_LASTING)
    @proves("survives power loss", kinds=("volatile",), no=_WIPED)
    def test_the_host_loses_power_while_it_runs(self, life, seen):
        life.host.power_off()
        life.host.boot()
        life.prepare()
        seen(f"{life.kind.name}: power loss", self.after_restart(life))
        daemon.start(life.host)
        life.host.vpmem("release", life.owner, "--namespace", life.names[1], "--wait")

    @proves("cold move", kinds=(*_LASTING, "volatile"))
    def test_it_moves_to_another_host(self, life, seen):
        (row,) = life.held()
        receive = ("vpmem", "--config-file", OTHER, "receive")
        life.host.run("python", "-P", _MOVER, ready.CONFIG, life.owner, *receive)
        there = life.rows("--config-file", OTHER)[life.names[3]]
        assert (there["state"], there["owner"]) == ("claimed", life.owner)
        assert (there["device_model"], there["guest_size"]) == (row["device_model"], row["guest_size"])
        assert life.content(there) == life.content(row) != ""
        life.host.vpmem("--config-file", OTHER, "release", life.owner, "--wait")
        assert not life.host.call("content", there["device"])
        seen(f"{life.kind.name}: cold move", "all bytes are there, and claimed")

    @proves("live migration", kinds=_NVDIMM)
    @proves("live migration", kinds=("virtio-pmem",), no=_NOT_SENT)
    def test_qemu_migrates_it_live(self, life, seen):
        (row,) = life.held()
        target = str(uuid.uuid4())
        (there,) = life.host.vpmem("claim", target, life.kind.label, "-f", "json").json
        source = life.qemu(row, _LOGS[0], "-qmp", f"unix:{_MONITOR},server=on,wait=off")
        wait_until(life.host, lambda: guest.reports(life.host.call("read", _LOGS[0])))
        waiting = life.qemu(there, _LOGS[1], "-incoming", f"unix:{_INCOMING}")
        wait_until(life.host, lambda: life.host.call("run", ["test", "-S", _INCOMING])["code"] == 0)
        status = life.host.call("migrate", _MONITOR, f"unix:{_INCOMING}")
        life.host.run("sh", "-c", f"kill -9 {source} {waiting}")  # Debian 13 has no program kill without procps
        arrived = life.content(there) == life.content(row) != ""
        assert (status == "completed" and arrived) == (not life.kind.virtio)
        life.host.vpmem("release", target, "--wait")
        seen(f"{life.kind.name}: live migration", f"{status}, the content {'has' if arrived else 'has not'} arrived")

    @proves("survives host reboot", kinds=_LASTING)
    @proves("survives host reboot", kinds=("volatile",), no=_WIPED)
    def test_the_host_reboots(self, life, seen):
        life.host.reboot()
        life.prepare()
        seen(f"{life.kind.name}: reboot", self.after_restart(life))
        life.host.vpmem("release", life.owner, "--wait")

    def after_restart(self, life):
        """Check what the guest has, and say it; it has something in the end."""
        held = life.held()
        if life.kind.lasts:
            assert {row["state"] for row in held} == {"claimed"}
            assert [life.content(row) for row in held] == [life.written(slot) for slot in range(len(held))]
            return "all bytes kept"
        assert {row["state"] for row in held} == {"dirty"}
        for row in held:
            life.host.call("fill", row["device"], "what a boot leaves")
        life.host.vpmem("wipe")
        assert [(row["state"], life.host.call("content", row["device"])) for row in life.held()] == [
            ("claimed", "") for _ in held
        ]
        for row in held:
            life.host.call("fill", row["device"], "the guest's")
        return "reserved for its owner, and wiped"
