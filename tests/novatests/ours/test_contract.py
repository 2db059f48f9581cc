"""The contract, over fakelibvirt: what our other tests here may count on.

It gives back a template of its own. Of a nvdimm that keeps path, size, alignment and cell, as bare numbers, so that all
but KiB are wrong; whatever was defined, the device is shared, has ``<pmem/>``, and a label of 2097152, without a unit:
2 GiB. The alias, which tells the namespace, is gone. So are guest cells and ``<maxMemory>``: nothing can be added to
what it tells. It refuses nothing, and a domain that is defined anew is off. What all that hides is tested against
libvirtd and QEMU: tests/integration.
"""

import dataclasses
import pathlib
import uuid

import fixtures
import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from contract import cases
from nova import test
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import host

from vpmem_driver import exception, guestxml
from vpmem_driver.nova import guests


class ContractTest(cases.Contract, test.NoDBTestCase):
    domain_type = "kvm"

    def setUp(self):
        super().setUp()
        self.useFixture(fakelibvirt.LibvirtFixture())
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        # Its events are for a driver, which there is none of; with native threads they need what that starts.
        self.useFixture(fixtures.MockPatchObject(host.Host, "_event_emit_delayed"))
        self.host = host.Host("qemu:///system")
        self.connection = self.host.get_connection()

    def user_of(self, path, *, defined=False):
        return guests.HostGuests(self.host).user_of(path, defined=defined)

    def users_of(self, paths):
        return guests.HostGuests(self.host).users_of(paths)

    def returned(self, device):
        return dataclasses.replace(device, access="shared", pmem=True, label_size=2048 * cases.MIB)

    def test_its_sizes_have_no_unit(self):
        owner = str(uuid.uuid4())
        self.define(self.written(owner, [self.grant(owner)]).replace('"KiB">8192<', '"MiB">8<'))
        (device,) = guestxml.devices(self.told(owner))
        self.assertEqual(8 * guestxml.KIB, device.size)

    def test_it_does_not_keep_what_tells_a_namespace(self):
        owner = str(uuid.uuid4())
        text = self.written(owner, [self.grant(owner)])
        self.define(text)
        self.assertTrue(all(identity for _, identity in guestxml.identified(text)))
        self.assertEqual([None], [identity for _, identity in guestxml.identified(self.told(owner))])

    def test_nothing_can_be_added_to_what_it_tells(self):
        owner = str(uuid.uuid4())
        self.define(self.written(owner))
        self.assertRaises(exception.InvalidDomainXML, guestxml.check, self.told(owner))

    def test_what_is_defined_anew_is_off(self):
        owner = str(uuid.uuid4())
        self.define(self.written(owner)).create()
        self.define(self.written(owner))
        self.assertFalse(self.domain(owner).isActive())

    def test_it_refuses_nothing(self):
        """Not even a cell that is not there."""
        owner = str(uuid.uuid4())
        self.define(self.written(owner, [self.grant(owner)]).replace("<node>0<", "<node>9<")).create()
        self.assertTrue(self.domain(owner).isActive())
