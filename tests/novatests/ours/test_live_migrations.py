"""A live migration that fails or is aborted at any stage leaves one copy owned, and the other one wiped."""

import contextlib
from unittest import mock

import fixtures
import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import exception
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import driver as libvirt_driver
from novatests.ours import test_defects

DRIVER = "nova.virt.libvirt.driver.LibvirtDriver"
_IN_TIME = 120
#: Nova passes through the first on its way to the second.
FAILED = ("error", "failed")


class LiveMigrationTest(test_defects.DefectTestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch("nova.tests.fixtures.libvirt.Domain.migrateToURI3", self._migrate))
        self.source = self.start_host(1, SMALL=1)
        self.dest = self.start_host(2, SMALL=1)
        self.server = self.boot("SMALL", self.source)
        self.written = self.write(self.server, self.source)
        #: whether the job ends by itself
        self.completes = True
        self.domain_that_moves = None

    def _migrate(self, domain, destination, params, flags):
        """Copy, as QEMU does. The guest at the destination exists from the start, and runs at the end."""
        self.domain_that_moves = domain
        connection = self.computes[self.dest.name].driver._host.get_connection()
        connection.createXML(params["destination_xml"], 0)
        for old, new in zip(self.written, self.devices(self.server, self.dest), strict=True):
            new.write_bytes(old.read_bytes())
        if self.completes:
            domain.complete_job()
        else:
            self.wait_for(lambda: domain._job_type != fakelibvirt.VIR_DOMAIN_JOB_NONE, "its end", seconds=_IN_TIME)

    def live_migrate(self, *status):
        self.api.post_server_action(
            self.server["id"], {"os-migrateLive": {"host": self.dest.name, "block_migration": "auto"}}
        )
        self._wait_for_migration_status(self.server, status)

    def end_job(self):
        """In Nova 31, a fake domain says that it migrates from its start on."""
        connection = self.computes[self.source.name].driver._host.get_connection()
        connection.lookupByUUIDString(self.server["id"])._job_type = fakelibvirt.VIR_DOMAIN_JOB_NONE

    def assert_on(self, host):
        self.server = self._wait_for_server_parameter(
            self.server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE", "OS-EXT-SRV-ATTR:host": host.name}
        )

    def assert_only_at_the_source(self, *, received=True):
        """:param received: whether the destination has had a part of the content"""
        self.assert_on(self.source)
        self.assert_kept(self.written)
        self.assert_holds(["small0"], self.source, self.server)
        self.wait_for(lambda: not self.dest.holds(self.server), "the destination's release", seconds=_IN_TIME)
        if received:
            self.wait_for(
                lambda: self.dest.states()["small0"] == ("clean", None), "the destination's wipe", seconds=_IN_TIME
            )
            self.assert_zero([self.dest.path("small0")])

    def is_wiped_at_the_source(self):
        self.run_periodic(self.source)  # a wipe that has still found the domain is tried again
        return self.source.states()["small0"] == ("clean", None)

    def assert_only_at_the_destination(self):
        (new,) = self.devices(self.server, self.dest)
        self.assertEqual(list(self.written.values()), [new.read_bytes()])
        self.assert_holds(["small0"], self.dest, self.server)
        self.wait_for(self.is_wiped_at_the_source, "the source's wipe", seconds=_IN_TIME)
        self.assert_zero(self.written)

    def test_the_destination_fails_after_it_has_claimed(self):
        with mock.patch(f"{DRIVER}.pre_live_migration", side_effect=exception.NovaException("no volume")):
            self.live_migrate(*FAILED)
            self.assert_only_at_the_source()

    def test_the_destination_cannot_claim(self):
        """Somebody has the namespace open, and it is not clean."""
        with self.held_open(self.dest.path("small0")):
            self.live_migrate(*FAILED)
            self.assert_only_at_the_source(received=False)

    def test_after_a_resize_that_failed_no_guest_gets_the_paths_of_this_host_on_the_other(self):
        """Nova's request spec has the flavor of the resize, and Nova claims nothing for the migration."""
        flavor = self._create_flavor(vcpu=1, memory_mb=512, disk=1, ephemeral=0)
        self.leave_in_request_spec(self.server, flavor)
        with self.errors_of(self.dest, "pre_live_migration") as errors:
            self.live_migrate(*FAILED)
            self.wait_for(lambda: errors, "the refusal at the destination", seconds=_IN_TIME)
        self.assert_only_at_the_source(received=False)
        self.assertIsNone(self.domain_that_moves)
        self.assertIn("needs SMALL, and Nova has claimed no namespace", errors[0])
        self.end_job()
        self.live_migrate("completed")  # the driver has corrected the request spec
        self.assert_on(self.dest)
        self.assert_only_at_the_destination()

    def test_after_a_resize_that_failed_the_source_does_not_send_such_a_guest(self):
        """The destination runs the in-tree driver."""
        flavor = self._create_flavor(vcpu=1, memory_mb=512, disk=1, ephemeral=0)
        self.leave_in_request_spec(self.server, flavor)
        self.end_job()
        with (
            self.errors_of(self.source, "_sorted_migrating_resources") as errors,
            self.end_of(self.source, "live_migration") as ended,
            mock.patch("vpmem_driver.nova.mixin.VPMEMDriverMixin.pre_live_migration", self.as_in_tree),
        ):
            self.live_migrate(*FAILED)
            self.wait_for(lambda: ended, "the end of the migration", seconds=_IN_TIME)
        self._wait_for_server_parameter(self.server, {"OS-EXT-STS:task_state": None})
        self.assertIsNone(self.domain_that_moves)
        self.assertIn("needs SMALL, and Nova has claimed no namespace", errors[0])
        self.assert_kept(self.written)

    @contextlib.contextmanager
    def errors_of(self, host, method):
        """The errors that a method of the driver raises there."""
        driver, errors = self.computes[host.name].driver, []
        original = getattr(driver, method)

        def look(*arguments, **keywords):
            try:
                return original(*arguments, **keywords)
            except exception.MigrationError as error:
                errors.append(str(error))
                raise

        with mock.patch.object(driver, method, side_effect=look):
            yield errors

    @contextlib.contextmanager
    def end_of(self, host, method):
        """Whether a method of the driver has ended there."""
        driver, ended = self.computes[host.name].driver, []
        original = getattr(driver, method)

        def run(*arguments, **keywords):
            try:
                return original(*arguments, **keywords)
            finally:
                ended.append(True)

        with mock.patch.object(driver, method, side_effect=run):
            yield ended

    @staticmethod
    def as_in_tree(driver, *arguments, **keywords):
        return libvirt_driver.LibvirtDriver.pre_live_migration(driver, *arguments, **keywords)

    def test_aborted_by_the_user_while_it_runs(self):
        self.completes = False

        def cancel(domain):
            destination = self.computes[self.dest.name].driver._host.get_connection()
            destination.lookupByUUIDString(self.server["id"]).destroy()  # as QEMU's, when the stream ends
            domain._job_type = fakelibvirt.VIR_DOMAIN_JOB_CANCELLED

        self.useFixture(fixtures.MonkeyPatch("nova.tests.fixtures.libvirt.Domain.abortJob", cancel))
        self.live_migrate("running")
        self.wait_for(lambda: self.domain_that_moves is not None, "the copy", seconds=_IN_TIME)
        # Nova 33 refuses to list the active migrations of a server while no byte of a disk was copied.
        migration = self._wait_for_migration_status(self.server, ["running"])
        self.api.delete_migration(self.server["id"], migration["id"])
        self._wait_for_migration_status(self.server, ["cancelled"])
        self.assert_only_at_the_source()

    def test_the_destination_cannot_be_told_that_it_has_failed(self):
        """The cast is lost with the destination's network. It finds out by itself."""
        self.completes = False
        with mock.patch("nova.compute.rpcapi.ComputeAPI.rollback_live_migration_at_destination"):
            self.live_migrate("running")
            self.wait_for(lambda: self.domain_that_moves is not None, "the copy", seconds=_IN_TIME)
            destination = self.computes[self.dest.name].driver._host.get_connection()
            destination.lookupByUUIDString(self.server["id"]).destroy()
            self.domain_that_moves.fail_job()
            self._wait_for_migration_status(self.server, ["failed"])
        self.assert_on(self.source)
        self.assert_holds(["small0"], self.dest, self.server)
        self.run_periodic(self.dest)
        self.assert_only_at_the_source()

    def test_the_source_fails_after_the_guest_has_left(self):
        with mock.patch(f"{DRIVER}.cleanup", side_effect=exception.NovaException("no network")):
            self.live_migrate(*FAILED, "completed")
        source = self.computes[self.source.name].driver._host.get_connection()
        left = source.lookupByUUIDString(self.server["id"])
        left.destroy()  # with VIR_MIGRATE_UNDEFINE_SOURCE, libvirt has done both
        left.undefine()
        self.run_periodic(self.dest)
        self.assert_only_at_the_destination()

    def test_the_destination_fails_after_the_guest_has_arrived(self):
        with mock.patch(
            f"{DRIVER}.post_live_migration_at_destination", side_effect=exception.NovaException("no network")
        ):
            self.live_migrate(*FAILED, "completed")
        self.assert_only_at_the_destination()
