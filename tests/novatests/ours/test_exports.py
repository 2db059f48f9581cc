"""With ``on_shelve = export``, the content of a server's memory is in files while it is offloaded, and comes back."""

import contextlib
import errno
import pathlib
import stat
from unittest import mock

import fixtures
import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import context, exception
from novatests.ours import base, test_moves

from vpmem_driver.nova import exports


class ExportTest(test_moves.MoveTestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.root, "exports")
        self.path.mkdir(mode=0o700)
        self.flags(on_shelve="export", export_path=str(self.path), group="vpmem")
        self.flags(shelved_offload_time=0)
        self.useFixture(fixtures.MockPatch("vpmem_driver.nova.exports._INTERVAL_SECONDS", 0.0))
        self.host1 = self.start_host(1, SMALL=2)
        self.host2 = self.start_host(2, SMALL=2)
        self.server = self.boot("SMALL,SMALL", self.host1)
        self.written = self.write(self.server, self.host1)

    def files(self):
        """The files of the exports, with their modes."""
        return {path.name: stat.S_IMODE(path.stat().st_mode) for path in self.path.rglob("*") if path.is_file()}

    def mark(self):
        return self.instance(self.server).system_metadata.get(exports.MARK)

    def run_periodic(self, host):
        self.computes[host.name].manager.update_available_resource(context.get_admin_context())

    def driver(self, host):
        return self.computes[host.name].driver

    def shelve(self):
        self.server = self._shelve_server(self.server, expected_state="SHELVED_OFFLOADED")

    def unshelve(self, host):
        self.api.post_server_action(self.server["id"], {"unshelve": {"host": host.name}})
        self.server = self._wait_for_server_parameter(
            self.server, {"status": "ACTIVE", "OS-EXT-STS:task_state": None, "OS-EXT-SRV-ATTR:host": host.name}
        )

    def assert_unshelving_fails(self, host, text):
        seen = []

        with mock.patch("nova.compute.utils.add_instance_fault_from_exc", look_at(seen)):
            self.api.post_server_action(self.server["id"], {"unshelve": {"host": host.name}})
            self.wait_for(lambda: seen, "the fault", seconds=120)
        self._wait_for_server_parameter(
            self.server, {"status": "SHELVED_OFFLOADED", "OS-EXT-STS:task_state": None, "OS-EXT-SRV-ATTR:host": None}
        )
        self.assertIn(text, seen[0])
        self.assert_holds([], host, self.server)
        self.assertEqual({"0.vpmem", "1.vpmem", "manifest.json"}, set(self.files()))

    def test_it_comes_back_on_another_host(self):
        self.shelve()
        self.assertEqual(["0.vpmem", "1.vpmem", "manifest.json"], sorted(self.files()))
        self.assertEqual({0o600}, set(self.files().values()) - {self.files()["manifest.json"]})
        self.assertEqual({0o700}, {stat.S_IMODE(path.stat().st_mode) for path in self.path.rglob("*") if path.is_dir()})
        self.assert_wiped(self.host1, [path.name for path in self.written])
        for host in (self.host1, self.host2):
            self.run_periodic(host)
        self.assertIsNotNone(self.mark())
        self.unshelve(self.host2)
        self.assertEqual(list(self.written.values()), self.content(self.server, self.host2))
        after = self.write(self.server, self.host2)
        self.run_periodic(self.host1)
        self.assertEqual(3, len(self.files()))
        self.run_periodic(self.host2)
        self.assertEqual([], list(self.path.iterdir()))
        self.assertIsNone(self.mark())
        self.assert_kept(after)

    def test_it_is_refused_before_anything_is_touched(self):
        def unset():
            return mock.patch.object(self.driver(self.host1)._vpmem_exports, "_path", None)

        @contextlib.contextmanager
        def open_to_others():
            self.path.chmod(0o777)
            yield
            self.path.chmod(0o700)

        @contextlib.contextmanager
        def missing():
            self.path.rename(self.path.with_name("elsewhere"))
            yield
            self.path.with_name("elsewhere").rename(self.path)

        def full():
            return mock.patch.object(exports, "free_bytes", return_value=2 * base.SIZE - 1)

        cases = {
            "export_path": unset(),
            "another user may write to it": open_to_others(),
            "No such file or directory": missing(),
            f"{2 * base.SIZE} bytes are needed, and {2 * base.SIZE - 1} are free": full(),
        }
        for text, broken in cases.items():
            with broken, mock.patch.object(self.driver(self.host1), "_destroy", side_effect=AssertionError):
                self.api.post_server_action(self.server["id"], {"shelve": {}})
                self.wait_for(lambda text=text: text in self.last_fault(), text, seconds=120)
                self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"})
            self.assertTrue(self.domain_runs(self.server, self.host1))
            self.assert_kept(self.written)
        self.assertEqual([], list(self.path.iterdir()))

    def last_fault(self):
        try:
            return self.fault(self.server)
        except AttributeError:  # there is none yet
            return ""

    def test_a_file_that_cannot_be_written(self):
        with mock.patch("vpmem_driver.transfer.manifest.write", side_effect=OSError(errno.ENOSPC, "No space")):
            self.api.post_server_action(self.server["id"], {"shelve": {}})
            self._wait_for_action_fail_completion(self.server, "shelve", "compute_shelve_instance")
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "SHELVED"})
        self.assertIn("No space", self.fault(self.server))
        self.assertEqual([], list(self.path.iterdir()))
        self.assertIsNone(self.mark())
        self.assert_kept(self.written)
        self._unshelve_server(self.server)
        self.assert_kept(self.written)
        self.assertEqual(list(self.written), self.devices(self.server, self.host1))
        self.assertTrue(self.domain_runs(self.server, self.host1))

    def test_a_volume_backed_server(self):
        """Nova powers it off once, and offloads it at once. If that fails, it runs again."""
        self.flags(shelved_offload_time=3600)
        self.useFixture(fixtures.MockPatch("nova.compute.utils.is_volume_backed_instance", return_value=True))
        with mock.patch("vpmem_driver.transfer.manifest.write", side_effect=OSError(errno.ENOSPC, "No space")):
            self.api.post_server_action(self.server["id"], {"shelve": {}})
            self._wait_for_action_fail_completion(self.server, "shelve", "compute_shelve_offload_instance")
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"})
        self.assertTrue(self.domain_runs(self.server, self.host1))
        self.assert_kept(self.written)
        self.shelve()
        self.assert_wiped(self.host1, [path.name for path in self.written])
        self.unshelve(self.host2)
        self.assertEqual(list(self.written.values()), self.content(self.server, self.host2))

    def test_a_guest_that_somebody_starts_meanwhile(self):
        """The fault was that the domain is already running: it was to run again, and why was lost."""
        self.flags(shelved_offload_time=3600)
        self.useFixture(fixtures.MockPatch("nova.compute.utils.is_volume_backed_instance", return_value=True))
        seen = []

        def start(*_arguments):
            self.driver(self.host1)._host.get_connection().lookupByUUIDString(self.server["id"]).create()
            raise OSError(errno.ENOSPC, "No space")

        with (
            mock.patch("vpmem_driver.transfer.manifest.write", side_effect=start),
            mock.patch("nova.compute.utils.add_instance_fault_from_exc", look_at(seen)),
            mock.patch("nova.virt.libvirt.guest.Guest.launch") as launch,  # libvirt refuses it, fakelibvirt does not
        ):
            self.api.post_server_action(self.server["id"], {"shelve": {}})
            self._wait_for_action_fail_completion(self.server, "shelve", "compute_shelve_offload_instance")
        launch.assert_not_called()
        self.assertIn("No space", seen[0])
        self.assert_kept(self.written)

    def test_an_unshelving_that_fails_keeps_the_export(self):
        self.shelve()
        with mock.patch.object(self.driver(self.host2)._vpmem_exports, "_path", None):
            self.assert_unshelving_fails(self.host2, "export_path")
        (file,) = self.path.rglob("1.vpmem")
        sound = file.read_bytes()
        file.write_bytes(sound[: base.SIZE // 2] + bytes([sound[base.SIZE // 2] ^ 1]) + sound[base.SIZE // 2 + 1 :])
        self.assert_unshelving_fails(self.host2, "were changed on the way")
        file.write_bytes(sound)
        with mock.patch.object(
            self.driver(self.host2), "_create_guest_with_network", side_effect=exception.NovaException("no guest")
        ):
            self.assert_unshelving_fails(self.host2, "no guest")
        self.unshelve(self.host2)
        self.assertEqual(list(self.written.values()), self.content(self.server, self.host2))

    def test_it_is_removed_when_the_server_is_deleted_and_not_when_nova_does_not_know_it(self):
        unknown = self.path / "00000000-0000-0000-0000-000000000001" / "0123456789abcdef"
        unknown.mkdir(parents=True)
        self.shelve()
        self.api.delete_server(self.server["id"])
        self._wait_until_deleted(self.server)
        self.assertEqual(3, len(self.files()))
        self.run_periodic(self.host2)
        self.assertEqual([unknown.parent], list(self.path.iterdir()))
        self.assertTrue(unknown.is_dir())

    def test_content_that_is_discarded_later_does_not_come_back(self):
        self.shelve()
        self.unshelve(self.host1)
        self.write(self.server, self.host1)
        self.flags(on_shelve="discard", group="vpmem")
        self.shelve()
        self.assertIsNone(self.mark())
        self.unshelve(self.host1)
        self.assertEqual([bytes(base.SIZE)] * 2, self.content(self.server, self.host1))
        self.run_periodic(self.host1)
        self.assertEqual([], list(self.path.iterdir()))


def look_at(seen):
    """Note the faults of instances."""

    def add(_context, _instance, fault, *_arguments, **_keywords):
        seen.append(str(fault))

    return add
