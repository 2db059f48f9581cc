"""What Nova's guests are found to use, whatever libvirt does in the meantime."""

import pathlib
import threading
import uuid
from unittest import mock

import fixtures
import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from contract import cases
from nova import exception as nova_exception
from nova import test
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import host as libvirt_host
from novatests.ours import base

from vpmem_driver import exception, libvirt_domains
from vpmem_driver.nova import guests


def _error(code):
    return fakelibvirt.make_libvirtError(fakelibvirt.libvirtError, "as libvirt says it", error_code=code)


def _is_gone(*_args, **_kwargs):
    raise _error(fakelibvirt.VIR_ERR_NO_DOMAIN)


class HostGuestsTest(cases.Domains, test.NoDBTestCase):
    domain_type = "kvm"

    def setUp(self):
        super().setUp()
        self.useFixture(fakelibvirt.LibvirtFixture())
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.useFixture(fixtures.MockPatchObject(libvirt_host.Host, "_event_emit_delayed"))
        self.host = libvirt_host.Host("qemu:///system")
        self.connection = self.host.get_connection()
        self.owners = [str(uuid.uuid4()) for _ in range(2)]
        self.paths = []
        for owner in self.owners:
            grant = self.grant(owner)
            self.paths.append(grant.device)
            self.define(self.written(owner, [grant])).create()
        self.guests = guests.HostGuests(self.host)

    def of(self, *owners):
        return {self.paths[self.owners.index(owner)]: f"the guest of instance {owner}" for owner in owners}

    def test_all_in_one_listing(self):
        self.assertEqual(self.of(*self.owners), self.guests.users_of([*self.paths, "/dev/dax0.0"]))

    def test_a_guest_that_was_deleted_meanwhile_raised(self):
        listed = self.host.list_guests()
        (gone,) = [guest for guest in listed if guest.uuid == self.owners[0]]
        with (
            mock.patch.object(self.host, "list_guests", return_value=listed),
            mock.patch.object(gone, "get_xml_desc", side_effect=_is_gone),
        ):
            self.assertEqual(self.of(self.owners[1]), self.guests.users_of(self.paths))
            self.assertIsNone(self.guests.user_of(self.paths[0], defined=True))

    def test_any_other_error_of_libvirts_is_typed(self):
        for target, name, error in (
            (libvirt_guest.Guest, "get_xml_desc", _error(fakelibvirt.VIR_ERR_INTERNAL_ERROR)),
            (self.host, "list_guests", _error(fakelibvirt.VIR_ERR_INTERNAL_ERROR)),
            (self.host, "list_guests", nova_exception.HypervisorUnavailable()),
        ):
            with mock.patch.object(target, name, side_effect=error):
                raised = self.assertRaises(exception.LibvirtError, self.guests.user_of, self.paths[0])
            self.assertIs(error, raised.__cause__)

    def test_a_libvirt_that_says_nothing_stopped_a_boot_for_ever(self):
        answers = threading.Event()
        self.addCleanup(answers.set)

        def list_guests(only_running=True):
            answers.wait()
            return []

        with (
            mock.patch.object(self.host, "list_guests", side_effect=list_guests),
            mock.patch.object(libvirt_domains, "LIMIT_SECONDS", 0.2),
        ):
            raised = self.assertRaises(exception.LibvirtError, self.guests.user_of, self.paths[0])
            self.assertIn("no answer after 0.2 seconds", str(raised))


class BootTest(base.VPMEMTestCase):
    def test_the_boot_of_another_instance_failed(self):
        """One that is deleted while libvirt is asked who has the namespace that is wiped for the other."""
        host = self.start_host(1, SMALL=2)
        first = self.boot("SMALL", host)
        original, asked = libvirt_guest.Guest.get_xml_desc, []

        def get_xml_desc(guest, *args, **kwargs):
            if guest.uuid == first["id"]:
                asked.append(guest)
                _is_gone()
            return original(guest, *args, **kwargs)

        with mock.patch.object(libvirt_guest.Guest, "get_xml_desc", get_xml_desc):
            second = self.boot("SMALL", host)
        self.assertTrue(asked)
        self.assertEqual(1, len(self.devices(second, host)))
