"""A server is deleted between the claim of its namespaces and the start of its guest: no two guests have one."""

import contextlib
import os
import threading
from unittest import mock

import fixtures
import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import guest as libvirt_guest
from novatests.ours import test_defects

from vpmem_driver import guestxml


class Gate:
    """Holds up the thread that comes to it until it is opened."""

    def __init__(self):
        self._reached, self._open = threading.Event(), threading.Event()

    def wait_until_open(self):
        self._reached.set()
        assert self._open.wait(60), "the gate was not opened"

    def wait_until_reached(self):
        assert self._reached.wait(60), "nobody came to the gate"

    def open(self):
        self._open.set()


def _undefine(connection, domain, original=fakelibvirt.Connection._undefine):
    """As libvirt does: a running domain that is undefined stays until it ends."""
    if domain.isActive():
        domain._transient = True
    else:
        original(connection, domain)


class StartsTestCase(test_defects.DefectTestCase):
    @contextlib.contextmanager
    def held_up(self, host, method="plug_vifs"):
        """Threads are held up in a method of the driver: by default between a guest's claim and its definition."""
        original = getattr(self.computes[host.name].driver, method)
        gate = Gate()

        def wait(*args, **kwargs):
            gate.wait_until_open()
            return original(*args, **kwargs)

        try:
            with self.on(host, method, wait):
                yield gate
        finally:
            gate.open()

    def running(self, host, path):
        """The instances whose running guests have the namespace at `path`."""
        return [
            guest.uuid
            for guest in self.computes[host.name].driver._host.list_guests()
            if any(os.path.samefile(used, path) for used in guestxml.memory_paths(guest.get_xml_desc()))
        ]

    def assert_next_server_is_alone(self, host, path):
        """The next server gets the namespace, and no other guest has it."""
        self.assert_wiped(host, [path])
        self.run_periodic(host)  # it is on offer from then on
        server = self.boot("SMALL", host)
        self.assertEqual([path], self.devices(server, host))
        self.assertEqual([server["id"]], self.running(host, path))


class OneHostTest(StartsTestCase):
    def setUp(self):
        super().setUp()
        self.host = self.start_host(1, SMALL=1)
        self.server = self.boot("SMALL", self.host)
        self.written = self.write(self.server, self.host)
        self.path = self.host.path("small0")

    def release(self, *_args, **_kwargs):
        """As 'vpmem release' of another process."""
        self.computes[self.host.name].driver._vpmem._pool.release(self.server["id"])

    def test_deleted_in_the_middle_of_a_start(self):
        self._stop_server(self.server)
        with self.held_up(self.host) as gate:
            self.api.post_server_action(self.server["id"], {"os-start": None})
            gate.wait_until_reached()
            self._delete_server(self.server)
            self.run_periodic(self.host)
            self.assert_state(("claimed", self.server["id"]), self.host, "small0")
            self.assert_kept(self.written)
        self.assert_next_server_is_alone(self.host, self.path)

    def test_deleted_in_the_middle_of_a_resume(self):
        # fakelibvirt's own wants an argument that libvirt's does not.
        remove = "nova.tests.fixtures.libvirt.Domain.managedSaveRemove"
        self.useFixture(fixtures.MonkeyPatch(remove, lambda _domain: None))
        self._suspend_server(self.server)
        with self.held_up(self.host) as gate:
            self.api.post_server_action(self.server["id"], {"resume": None})
            gate.wait_until_reached()
            self._delete_server(self.server)
            self.run_periodic(self.host)
            self.assert_state(("claimed", self.server["id"]), self.host, "small0")
        self.assert_next_server_is_alone(self.host, self.path)

    def test_deleted_by_one_who_has_looked_for_the_guest_before_it_ran(self):
        self.useFixture(fixtures.MonkeyPatch("nova.tests.fixtures.libvirt.Connection._undefine", _undefine))
        self._stop_server(self.server)
        with self.held_up(self.host) as start:
            self.api.post_server_action(self.server["id"], {"os-start": None})
            start.wait_until_reached()
            with self.held_up(self.host, "_undefine_domain") as deletion:
                self.api.delete_server(self.server["id"])
                deletion.wait_until_reached()
                with self.held_up(self.host, "get_info") as end:
                    start.open()
                    end.wait_until_reached()
                    self.assertEqual([self.server["id"]], self.running(self.host, self.path))
                    deletion.open()
                    self._wait_until_deleted(self.server)
                    self.assert_state(("claimed", self.server["id"]), self.host, "small0")
        self.wait_for(lambda: not self.running(self.host, self.path), "the end of the guest")
        self.assert_next_server_is_alone(self.host, self.path)

    def test_released_by_the_operator_before_the_guest_runs(self):
        self._stop_server(self.server)
        with self.on(self.host, "plug_vifs", self.release):
            self.api.post_server_action(self.server["id"], {"os-start": None})
            self._wait_for_action_fail_completion(self.server, "start", "compute_start_instance")
        self.assertEqual([], self.running(self.host, self.path))
        self.run_periodic(self.host)
        self.assert_wiped(self.host, [self.path])

    def test_released_by_the_operator_while_the_guest_is_launched(self):
        self._stop_server(self.server)
        launch = libvirt_guest.Guest.launch

        def launch_and_release(guest, pause=False):
            launch(guest, pause)
            self.release()

        with mock.patch.object(libvirt_guest.Guest, "launch", launch_and_release):
            self.api.post_server_action(self.server["id"], {"os-start": None})
            self._wait_for_action_fail_completion(self.server, "start", "compute_start_instance")
        self.assertEqual([], self.running(self.host, self.path))
        self.run_periodic(self.host)
        self.assert_wiped(self.host, [self.path])


class TwoHostsTest(StartsTestCase):
    def setUp(self):
        super().setUp()
        self.source = self.start_host(1, SMALL=1)
        self.dest = self.start_host(2, SMALL=1)
        self.server = self.boot("SMALL", self.source)
        self.path = self.dest.path("small0")

    def test_deleted_in_the_middle_of_finish_resize(self):
        with self.held_up(self.dest) as gate:
            self.api.post_server_action(self.server["id"], {"resize": {"flavorRef": self.flavor("SMALL", x="y")}})
            gate.wait_until_reached()
            self._delete_server(self.server)
            self.run_periodic(self.dest)
            self.assert_state(("claimed", self.server["id"]), self.dest, "small0")
        self.assert_next_server_is_alone(self.dest, self.path)

    def test_deleted_in_the_middle_of_an_evacuation(self):
        self.take_down(self.source)
        with self.held_up(self.dest) as gate:
            self.api.post_server_action(self.server["id"], {"evacuate": {}})
            gate.wait_until_reached()
            self._delete_server(self.server)
            self.run_periodic(self.dest)
            self.assert_state(("claimed", self.server["id"]), self.dest, "small0")
        self.wait_for(lambda: self.server["id"] in self.running(self.dest, self.path), "the guest")
        self.assert_state(("claimed", self.server["id"]), self.dest, "small0")
        self.reap(self.dest)
        self.assert_next_server_is_alone(self.dest, self.path)


class LiveMigrationTest(StartsTestCase):
    def test_a_guest_that_is_on_its_way_here_keeps_what_was_claimed_for_it(self):
        self.useFixture(fixtures.MonkeyPatch("nova.tests.fixtures.libvirt.Domain.migrateToURI3", self._migrate))
        self.source, self.dest = self.start_host(1, SMALL=1), self.start_host(2, SMALL=1)
        self.server = self.boot("SMALL", self.source)
        self.held = None
        self._live_migrate(self.server)
        self.assertEqual(("claimed", self.server["id"]), self.held)

    def _migrate(self, domain, destination, params, flags):
        driver = self.computes[self.dest.name].driver
        with mock.patch.object(driver, "_is_deleted", return_value=True):
            self.run_periodic(self.dest)
        self.held = self.dest.states()["small0"]
        driver._host.get_connection().createXML(params["destination_xml"], 0)
        domain.complete_job()
