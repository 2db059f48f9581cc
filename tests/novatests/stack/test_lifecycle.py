"""A server's life through the API, its guest's memory looked at after each step."""

import hashlib
import io
import os
import pathlib
import sys
import time

import fixtures
import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import context, objects
from nova.conf import CONF
from nova.tests.functional import integrated_helpers
from nova.virt.libvirt import utils as libvirt_utils
from novatests import longer_waits

from tests.machine import guest, kernel, libvirtd
from vpmem_driver import conf, ledger
from vpmem_driver.sizes import MIB

LARGE, SMALL = 32 * MIB, 16 * MIB
LABEL = 2 * MIB

#: Of Nova's fixtures, those that forbid what this is about: libvirt, /sys, the host's network, privsep.
FORBIDDING = (
    "GenericPoisonFixture",
    "ImportModulePoisonFixture",
    "PrivsepNoHelperFixture",
    "SysFsPoisonFixture",
)

KERNEL = pathlib.Path(os.environ["VPMEM_KERNEL"])
SEEN = pathlib.Path(os.environ["VPMEM_SEEN"])


class LifecycleTest(longer_waits.LongerWaits, integrated_helpers._IntegratedTestBase):
    ADMIN_API = True
    microversion = "latest"
    CAST_AS_CALL = False

    def setUp(self):
        for name in FORBIDDING:
            self.useFixture(fixtures.MonkeyPatch(f"nova.tests.fixtures.{name}", _Nothing))
            self.useFixture(fixtures.MonkeyPatch(f"nova.tests.fixtures.nova.{name}", _Nothing))
        # It has a thread that never ends, and what comes through it are hints only.
        self.useFixture(fixtures.MockPatch("nova.virt.libvirt.host.Host._init_events"))
        self.root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.root.chmod(0o755)
        self.pmem = self.root / "pmem"
        self.pmem.mkdir()
        for name, size in {"large0": LARGE, "large1": LARGE, "small0": SMALL, "small1": SMALL}.items():
            self.path(name).touch(mode=0o600)
            self.path(name).write_bytes(os.urandom(4096) * (size // 4096))
        super().setUp()
        image = self.root / "initramfs"
        of = kernel.unpacked(KERNEL)
        guest.build(image, of)
        properties = {"kernel_id": self.image("aki", of.image), "ramdisk_id": self.image("ari", image)}
        properties |= {"os_command_line": "console=ttyS0 quiet panic=-1", "hw_machine_type": "q35"}
        self.disk = self.image("raw", bytes(MIB), **properties)

    def _setup_compute_service(self):
        uri = self.enterContext(libvirtd.running())
        conf.register_opts(CONF)
        self.flags(
            compute_driver="vpmem.VPMEMLibvirtDriver",
            instances_path=str(self.root / "instances"),
            allow_resize_to_same_host=True,
        )
        (self.root / "instances").mkdir()
        self.flags(
            virt_type="qemu",
            connection_uri=uri,
            images_type="raw",
            pmem_namespaces=["LARGE:large0|large1", "SMALL:small0|small1"],
            group="libvirt",
        )
        self.flags(discovery="directory", directory=str(self.pmem), state_path=str(self.root / "state"), group="vpmem")
        helper = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
        helper.append(str(pathlib.Path(sys.executable).parent / "privsep-helper"))
        self.flags(helper_command=" ".join(helper), group="nova_sys_admin")
        return self.start_service("compute", host="compute")

    def image(self, kind, content, **properties):
        """Give the image service an image; returns its id."""
        data = content if isinstance(content, bytes) else content.read_bytes()
        image = {
            "name": kind,
            "container_format": "bare" if kind == "raw" else kind,
            "disk_format": kind,
            "size": len(data),
            "properties": properties,
            "min_ram": 0,
            "min_disk": 0,
        }
        return self.glance.create(None, image, data=io.BytesIO(data))["id"]

    # the server

    def flavor(self, pmem):
        return self._create_flavor(vcpu=1, memory_mb=256, disk=1, ephemeral=0, extra_spec={"hw:pmem": pmem})

    def boot(self, pmem):
        server = self._create_server(flavor_id=self.flavor(pmem), image_uuid=self.disk, networks="none")
        return server, self.report(server)

    def log(self, server):
        instance = objects.Instance.get_by_uuid(context.get_admin_context(), server["id"])
        return pathlib.Path(libvirt_utils.get_instance_path(instance), "console.log")

    def report(self, server):
        """What the guest says of its boot."""
        return guest.wait_for_report(self.log(server))

    def again(self, server, step):
        """Do `step`, which boots the server's guest anew, and return what that says."""
        self.log(server).unlink()
        step(server)
        return self.report(server)

    # its memory

    def path(self, name):
        return self.pmem / name

    def names(self, server):
        """The names of what the ledger has for the server, in the order of its devices."""
        records = ledger.Ledger(self.root / "state")
        names = [row.name for row in records.held(server["id"])]
        records.close()
        return names

    def assert_new(self, report, server, sizes):
        """The guest found nothing but zeros in devices of these sizes, and has filled them."""
        self.assertEqual(server["id"], report.uuid)
        self.assertEqual([size - LABEL for size in sizes], [device.size for device in report.devices])
        self.assertTrue(all(device.zeros for device in report.devices), f"not only zeros: {report}")
        self.assert_kept(server, self.names(server), sizes)

    def assert_same(self, report, server):
        """The guest found all that it had written, and nothing else."""
        self.assertFalse(any(device.zeros for device in report.devices), f"lost: {report}")
        self.assertTrue(all(device.holds(server["id"], device.slot) for device in report.devices), f"other: {report}")

    def assert_kept(self, server, names, sizes):
        for slot, (name, size) in enumerate(zip(names, sizes, strict=True)):
            self.assertTrue(
                guest.holds(self.path(name), server["id"], slot, size - LABEL), f"{name} has lost its bytes"
            )

    def assert_wiped(self, names):
        deadline = time.monotonic() + 60
        while True:
            records = ledger.Ledger(self.root / "state")
            states = {row.name: row.state.value for row in records.rows() if row.name in names}
            records.close()
            if set(states.values()) == {"clean"}:
                break
            self.assertLess(time.monotonic(), deadline, f"not wiped: {states}")
            time.sleep(0.1)
        for name in names:
            self.assertTrue(guest.is_zero(self.path(name)), f"{name} is not all zero")

    def saw(self, what, result):
        """A line for the table at the end."""
        with SEEN.open("a", encoding="utf-8") as file:
            file.write(f"{what}\t{result}\n")

    # the lives

    def test_create_stop_start_reboot_rebuild_delete(self):
        sizes = (LARGE, SMALL)
        server, report = self.boot("LARGE,SMALL")
        self.assert_new(report, server, sizes)
        names = self.names(server)
        self.saw("create with hw:pmem=LARGE,SMALL", f"{', '.join(names)}: all zeros; the guest fills them")
        self._stop_server(server)
        self.assert_kept(server, names, sizes)
        self.assert_same(self.again(server, self._start_server), server)
        self.saw("stop, start", "the same bytes, in the file and in the guest")
        self.assert_same(self.again(server, lambda server: self._reboot_server(server, hard=True)), server)
        self.assert_kept(server, names, sizes)
        self.assertEqual(names, self.names(server))
        self.saw("hard reboot", "the same bytes")
        rebuilt = self.again(server, lambda server: self._rebuild_server(server, self.disk))
        self.assertEqual(names, self.names(server))
        self.assert_new(rebuilt, server, sizes)
        self.saw("rebuild", "the same namespaces, all zeros")
        self._delete_server(server)
        self.assertEqual([], self.names(server))
        self.assert_wiped(names)
        self.saw("delete", "nobody's; all zeros")

    def test_resize_confirm_and_revert(self):
        server, report = self.boot("SMALL")
        self.assert_new(report, server, (SMALL,))
        (old,) = self.names(server)
        new = self.resize(server, old)
        self.assert_same(self.again(server, self._revert_resize), server)
        self.assertEqual([old], self.names(server))
        self.assert_wiped([new])
        self.saw("resize to the same host, revert", f"{old} has the same bytes; {new} is nobody's, and all zeros")
        new = self.resize(server, old)
        self._confirm_resize(server)
        self.assertEqual([new], self.names(server))
        self.assert_wiped([old])
        self.assert_kept(server, [new], [SMALL])
        self.saw("resize to the same host, confirm", f"{new} has the same bytes; {old} is nobody's, and all zeros")
        self._delete_server(server)
        self.assert_wiped([new])

    def resize(self, server, old):
        """Resize from SMALL to LARGE; returns the name of the new namespace. The old one is looked at, too.

        The guest finds the bytes of the old one, and zeros behind them.
        """
        report = self.again(server, lambda server: self._resize_server(server, self.flavor("LARGE")))
        content = guest.pattern(server["id"], 0, SMALL - LABEL) + bytes(LARGE - SMALL)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        self.assertEqual([(LARGE - LABEL, md5)], [(device.size, device.md5) for device in report.devices])
        self.assert_kept(server, [old], [SMALL])
        (new,) = set(self.names(server)) - {old}
        return new


class _Nothing(fixtures.Fixture):
    def __init__(self, *_args):
        super().__init__()
