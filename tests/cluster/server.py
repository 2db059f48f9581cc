"""A server of the cloud and its guest: what the user does with it, and where its memory is."""

import dataclasses
import json
import pathlib

from tests.cluster import compute
from tests.cluster.cluster import Cluster
from tests.cluster.host import Host
from tests.machine import guest
from tests.waiting import wait_until

#: What Nova's database has for a status of its API.
_VM_STATES = {"ACTIVE": "active", "SHUTOFF": "stopped", "VERIFY_RESIZE": "resized", "ERROR": "error"}

#: What a wipe, a boot and what Nova does at intervals may take here.
_SECONDS = 240


@dataclasses.dataclass(frozen=True)
class Namespace:
    """One namespace of a compute host, as its ledger has it.

    :ivar path: its file, as this process sees it
    :ivar device_model: of its owner's device
    :ivar seen_size: what its owner's guest sees of it
    """

    host: Host
    name: str
    state: str
    owner: str | None
    device_model: str | None
    seen_size: int

    @property
    def path(self) -> pathlib.Path:
        return self.host.root / compute.MEMORY.lstrip("/") / self.name


def namespaces(host: Host) -> list[Namespace]:
    """All namespaces of a compute host."""
    text = host.run("vpmem", "--config-file", "/etc/nova/nova.conf", "namespace", "list", "--format", "json")
    keys = ("name", "state", "owner", "device_model", "guest_size")
    return [Namespace(host, *(row[key] for key in keys)) for row in json.loads(text)]


class Server:
    """One server, from its creation on."""

    def __init__(self, cluster: Cluster, name: str, flavor: str, host: Host, *, image: str = "guest") -> None:
        """Create it on that host; returns when it is ACTIVE."""
        self._cluster = cluster
        self.name = name
        where = ("--flavor", flavor, "--image", image, "--no-network", "--host", host.name)
        shown = cluster.cloud.show("server", "create", *where, "--wait", name)
        self.uuid = shown["id"]

    def do(self, *words: object) -> str:
        """Run ``openstack server`` with these arguments and the server's name."""
        return self._cluster.cloud.run("server", *words, self.uuid)

    def status(self) -> tuple[str, str | None]:
        """Its status, and the name of its host."""
        shown = self._cluster.cloud.show("server", "show", self.uuid)
        return shown["status"], shown["OS-EXT-SRV-ATTR:host"]

    def wait_for(self, status: str) -> None:
        """Wait until it has that status, and no task.

        :raises AssertionError: it has not in time, or it is in ERROR; the fault is in the message
        """
        query = f"SELECT vm_state, task_state FROM nova.instances WHERE uuid = '{self.uuid}'"  # noqa: S608  our own
        ends = {f"{_VM_STATES[status]}\tNULL", "error\tNULL"}
        wait_until(lambda: self._cluster.query(query) in ends, f"{self.name} is {status}", _SECONDS, pause=0.5)
        shown = self._cluster.cloud.show("server", "show", self.uuid)
        assert shown["status"] == status, f"{self.name}: {shown['status']}, not {status}: {shown.get('fault')}"

    def log(self, host: Host) -> pathlib.Path:
        """The file that its guest's serial port writes to on that host."""
        return host.root / f"var/lib/nova/instances/{self.uuid}/console.log"

    def report(self, host: Host, *, seconds: float = guest.BOOT_SECONDS) -> guest.Report:
        """What its guest tells of its first boot in the log on that host."""
        return guest.wait_for_report(self.log(host), seconds=seconds)

    def again(self, host: Host, *words: object) -> guest.Report:
        """Run ``openstack server``, which boots the guest anew on that host; returns what that tells."""
        self.log(host).unlink(missing_ok=True)
        # What a migration has left here, and a revert brings back.
        (self.log(host).parent.with_name(f"{self.uuid}_resize") / "console.log").unlink(missing_ok=True)
        self.do(*words)
        return self.report(host)

    def held(self, host: Host) -> list[Namespace]:
        """The namespaces that a host's ledger has for it, in the order of its devices."""
        return [row for row in namespaces(host) if row.owner == self.uuid]

    def delete(self) -> None:
        """Delete it; returns when it is gone."""
        self._cluster.cloud.run("server", "delete", "--wait", self.uuid)


def assert_new(server: Server, report: guest.Report, held: list[Namespace]) -> None:
    """The guest has found nothing but zeros, has filled all of it, and that is in the files of `held`."""
    assert report.uuid == server.uuid
    assert [device.size for device in report.devices] == [one.seen_size for one in held]
    assert all(device.zeros for device in report.devices), f"not only zeros: {report}"
    assert_filled(server, held)


def assert_same(server: Server, report: guest.Report) -> None:
    """The guest has found all that it had written, and nothing else."""
    assert report.devices
    assert not any(device.zeros for device in report.devices), f"lost: {report}"
    assert all(device.holds(server.uuid, device.slot) for device in report.devices), f"other: {report}"


def assert_filled(server: Server, held: list[Namespace]) -> None:
    """The files of `held` have what the guest fills its devices with."""
    assert held
    for slot, one in enumerate(held):
        assert one.state == "claimed"
        assert guest.holds(one.path, server.uuid, slot, one.seen_size), (
            f"{one.host.name}: {one.name} has lost its bytes"
        )


def assert_wiped(lost: list[Namespace]) -> None:
    """These namespaces become clean and unowned, and then are zeros to their last byte."""
    for one in lost:

        def wiped(host=one.host, name=one.name):
            (now,) = [row for row in namespaces(host) if row.name == name]
            return (now.state, now.owner) == ("clean", None)

        wait_until(wiped, f"{one.host.name}: {one.name} is clean", _SECONDS, pause=0.5)
        assert guest.is_zero(one.path), f"{one.host.name}: {one.name} is not all zeros"
