"""Hosts with namespaces, servers with flavors that ask for some, and what became of their bytes."""

import contextlib
import functools
import json
import os
import pathlib
import time
import uuid

import fixtures
import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from lxml import etree
from nova import context, exception, objects
from nova.conf import CONF
from nova.tests.functional.libvirt import base
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import utils as libvirt_utils
from novatests import longer_waits, switch
from novatests.ours import receiving
from oslo_concurrency import processutils
from oslo_utils import fileutils

from vpmem_driver import conf, ledger
from vpmem_driver.nova import known_methods
from vpmem_driver.sizes import MIB

switch.by_option(wipes=True)

SIZE = 4 * MIB

#: Nova's fake image service has it.
IMAGE = "76fa36fc-c930-4bf3-8c8a-ea2a2420deb6"


#: Each start of a driver reads 13,000 lines of Nova with it, which are the same in all tests.
_known_methods = functools.cache(known_methods.methods)

#: The in-tree driver has no ledger, and takes its namespaces for clean: of it only the bytes are looked at.
INTREE = os.environ.get("VPMEM_COMPUTE_DRIVER", switch.OURS) == switch.INTREE


class Host:
    """What one compute host has, and how it is configured."""

    def __init__(self, root, index, labels):
        """:param labels: label -> number of namespaces, or their names"""
        self.name = f"host{index}"
        self.directory = pathlib.Path(root, self.name, "pmem")
        self.state_path = pathlib.Path(root, self.name, "state")
        self.directory.mkdir(parents=True)
        self.pmem_namespaces = []
        for label, count in labels.items():
            names = [f"{label.lower()}{number}" for number in range(count)] if isinstance(count, int) else count
            self.pmem_namespaces.append(f"{label}:{'|'.join(names)}")
            for name in names:
                self.make(name)

    def make(self, name):
        """A namespace full of what somebody left in it."""
        path = self.path(name)
        path.touch(mode=0o600)
        path.write_bytes((bytes(4096) if INTREE else os.urandom(4096)) * (SIZE // 4096))
        return path

    def forget(self):
        """Take the ledger away, with its log."""
        for path in self.state_path.glob(f"{ledger.FILE_NAME}*"):
            path.unlink()

    def path(self, name):
        return self.directory / name

    def config_file(self):
        """The configuration of this host for programs that do not run in this process."""
        path = self.directory.parent / "vpmem.conf"
        lines = ["[libvirt]", f"pmem_namespaces = {','.join(self.pmem_namespaces)}", "[vpmem]", "discovery = directory"]
        path.write_text(
            "\n".join(
                [
                    *lines,
                    f"directory = {self.directory}",
                    f"state_path = {self.state_path}",
                    "device_model = nvdimm",
                    "",
                ]
            )
        )
        return path

    def ndctl(self):
        """What ndctl would say of it, for the in-tree driver. One of another size is in mode fsdax."""
        found = []
        for path in sorted(self.directory.iterdir()):
            one = {"name": path.name, "size": SIZE, "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, str(path)))}
            dax = {"daxregion": {"align": 4096, "devices": [{"chardev": os.path.relpath(path, "/dev")}]}}
            found.append(one | (dax if path.stat().st_size == SIZE else {"blockdev": "pmem0"}))
        return json.dumps(found)

    def states(self):
        """state and owner of each namespace, by name, as the ledger has them."""
        records = ledger.Ledger(self.state_path)
        rows = {row.name: (row.state.value, row.owner) for row in records.rows()}
        records.close()
        return rows

    def holds(self, server):
        """The names of what the ledger has for a server."""
        return sorted(name for name, (_state, owner) in self.states().items() if owner == server["id"])


class VPMEMTestCase(longer_waits.LongerWaits, base.ServersTestBase):
    microversion = "latest"
    ADMIN_API = True
    #: Casts stay casts, as in a deployment: an error on the other host does not come back to the caller.
    CAST_AS_CALL = False

    def setUp(self):
        super().setUp()
        self.hosts = {}
        conf.register_opts(CONF)
        self.root = self.useFixture(fixtures.TempDir()).path
        # In-tree only: its listing, and its erasing, done to the file.
        self.ndctl = self.useFixture(fixtures.MockPatch("nova.privsep.libvirt.get_pmem_namespaces")).mock
        self.useFixture(fixtures.MockPatch("nova.privsep.libvirt.cleanup_vpmem", side_effect=self._erase))
        self.busy = set()
        self.addCleanup(self._end_wipes)
        self.useFixture(
            fixtures.MonkeyPatch(
                "vpmem_driver.nova.known_methods.methods", lambda source, names: _known_methods(source, tuple(names))
            )
        )
        self.useFixture(fixtures.MockPatch("vpmem_driver.transfer.sender._RETRIES", (0.0, 0.0)))
        self.connections = []
        if not INTREE:
            self.useFixture(
                fixtures.MockPatch(
                    "vpmem_driver.nova.moves_mixin.MovesMixin._vpmem_connect", lambda _driver, dest: self.connect(dest)
                )
            )
        # No disks: ServersTestBase replaces _create_image; here it makes the instance's directory, which a resize
        # renames, and there are no disks to copy.
        libvirt_driver.LibvirtDriver._create_image.side_effect = self._image
        for name in ("_get_instance_disk_info", "_get_instance_disk_info_from_config"):
            self.useFixture(fixtures.MockPatch(f"nova.virt.libvirt.LibvirtDriver.{name}", return_value=[]))

    @staticmethod
    def _image(_context, instance, *_args, **_kwargs):
        fileutils.ensure_tree(libvirt_utils.get_instance_path(instance))
        return False, False

    def _end_wipes(self):
        """Nova 31 fails a test that leaves a green thread behind."""
        for compute in self.computes.values():
            pool = getattr(compute.driver, "_vpmem", None)
            if pool is not None:
                pool.background.stop.set()
                self.wait_for(lambda pool=pool: not pool.background._workers, "the end of wiping")

    # hosts

    def start_host(self, index, **labels):
        """Start nova-compute on a new host. A driver reads CONF when it is made, so each can have its own."""
        host = self.hosts[f"host{index}"] = Host(self.root, index, labels)
        self.configure(host)
        self.start_compute(hostname=host.name)
        return host

    def restart_host(self, host):
        """Stop nova-compute there and start it again."""
        self.configure(host)
        self.restart_compute_service(host.name)

    def assert_does_not_start(self, host, restart=None):
        """Restart nova-compute there, which it refuses; returns the error."""
        stopped, provider = self.computes[host.name], self.compute_rp_uuids[host.name]
        error = self.assertRaises(exception.GetPMEMNamespacesFailed, restart or self.restart_host, host)
        # Restarting takes these out first, and puts the new ones in at its end.
        self.computes[host.name], self.compute_rp_uuids[host.name] = stopped, provider
        return error

    def configure(self, host):
        self.flags(pmem_namespaces=host.pmem_namespaces, group="libvirt")
        # Files would be virtio-pmem with a newer libvirt, and these tests are about nvdimms.
        values = {"directory": str(host.directory), "state_path": str(host.state_path), "device_model": ["nvdimm"]}
        self.flags(discovery="directory", group="vpmem", **values)
        self.ndctl.return_value = host.ndctl()

    def connect(self, _dest):
        """Connect to the destination of a migration: a process of its own, as with ssh."""
        self.connections.append(receiving.ReceivingConnection(self.hosts))
        return self.connections[-1]

    # servers

    def flavor(self, pmem, **extra_specs):
        """A new flavor that asks for the labels `pmem`, comma-separated."""
        specs = {"hw:pmem": pmem} | extra_specs
        return self._create_flavor(vcpu=1, memory_mb=512, disk=1, ephemeral=0, extra_spec=specs)

    def boot(self, pmem, host, expected_state="ACTIVE", **kwargs):
        return self._create_server(
            flavor_id=self.flavor(pmem), host=host.name, networks="none", expected_state=expected_state, **kwargs
        )

    def instance(self, server):
        return objects.Instance.get_by_uuid(
            context.get_admin_context(read_deleted="yes"),
            server["id"],
            expected_attrs=["resources", "migration_context", "flavor"],
        )

    def request_spec(self, server):
        """What Nova claims by when the server is unshelved, evacuated or migrated live."""
        return objects.RequestSpec.get_by_instance_uuid(context.get_admin_context(), server["id"])

    def leave_in_request_spec(self, server, flavor):
        """Have the request spec as a resize to that flavor leaves it, if the resize fails."""
        spec = self.request_spec(server)
        spec.flavor = objects.Flavor.get_by_flavor_id(context.get_admin_context(), flavor)
        spec.save()

    def usage(self, server, host):
        """The resource classes of persistent memory that Placement has for the server on `host`."""
        allocations = self._get_allocations_by_server_uuid(server["id"])
        resources = allocations.get(self.compute_rp_uuids[host.name], {}).get("resources", {})
        return {name: amount for name, amount in resources.items() if name.startswith("CUSTOM_PMEM")}

    # the guest

    def domain(self, server, host):
        """The definition of the server's domain on `host`, as an lxml element."""
        connection = self.computes[host.name].driver._host.get_connection()
        return etree.fromstring(connection.lookupByUUIDString(server["id"]).XMLDesc(0))

    def devices(self, server, host):
        """The files that the server's domain on `host` has, in its order."""
        paths = self.domain(server, host).iterfind("devices/memory[@model='nvdimm']/source/path")
        return [pathlib.Path(os.path.normpath(path.text)) for path in paths]

    def write(self, server, host):
        """Have the guest write into all of its memory; returns what it wrote, by file."""
        written = {}
        for path in self.devices(server, host):
            written[path] = os.urandom(4096) * (SIZE // 4096)
            path.write_bytes(written[path])
        return written

    @contextlib.contextmanager
    def held_open(self, path):
        """Somebody has the namespace open, so that it cannot be wiped."""
        with open(path, "r+b"):
            self.busy.add(path)
            yield
        self.busy.discard(path)

    def _erase(self, path):
        """What the in-tree driver does to a namespace."""
        path = pathlib.Path(os.path.normpath(path))
        if path in self.busy:
            raise processutils.ProcessExecutionError(cmd="daxio", stderr=f"{path} is busy")
        path.write_bytes(bytes(SIZE))

    # what became of it

    def assert_kept(self, written):
        for path, pattern in written.items():
            self.assertTrue(path.read_bytes() == pattern, f"{path} has lost what was written")

    def assert_zero(self, paths):
        for path in paths:
            self.assertFalse(any(path.read_bytes()), f"{path} is not all zero")

    def wait_for(self, condition, what, seconds=20):
        deadline = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"it did not come: {what}")
            time.sleep(0.05)

    def wait_for_error(self, server):
        """The state comes first, and Nova takes no other request until it has ended the task as well."""
        return self._wait_for_server_parameter(server, {"status": "ERROR", "OS-EXT-STS:task_state": None}, 40)

    def assert_holds(self, names, host, server):
        """`names` is what the ledger of `host` has for the server."""
        if not INTREE:
            self.assertEqual(names, host.holds(server))

    def assert_state(self, state, host, name):
        """State and owner of a namespace in the ledger of `host`."""
        if not INTREE:
            self.assertEqual(state, host.states()[name])

    def assert_wiped(self, host, paths):
        """They are nobody's, and all zero, as soon as the wipe in the background is done."""
        names = [path.name for path in paths]
        self.wait_for(
            lambda: INTREE or all(host.states()[name] == ("clean", None) for name in names),
            f"{names} clean on {host.name}",
        )
        self.assert_zero(paths)
