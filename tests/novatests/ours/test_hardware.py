"""The hardware of a claim in Nova's guest configuration, and what Nova makes of a virtio-pmem."""

import types
import uuid

import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from lxml import etree
from nova import exception as nova_exception
from nova import objects, test
from nova.virt.libvirt import config as vconfig
from nova.virt.libvirt import migration

from vpmem_driver import model
from vpmem_driver.nova import mixin, moves
from vpmem_driver.sizes import MIB

NVDIMM, VIRTIO_PMEM = model.DeviceModel.NVDIMM, model.DeviceModel.VIRTIO_PMEM


def grant(name, hardware):
    return model.Grant(
        owner=str(uuid.uuid4()),
        uuid=str(uuid.uuid4()),
        name=name,
        label="A",
        size=8 * MIB,
        align=4096,
        numa_node=None,
        device=f"/pmem/{name}",
        known_device=None,
        pmem=False,
        hardware=hardware,
    )


def row(name, hardware):
    values = {"name": name, "hardware": hardware, "device_model": hardware.device_model}
    return types.SimpleNamespace(label_size=hardware.label_size, **values)


class GuestConfigTest(test.NoDBTestCase):
    def config(self, *hardware):
        guest = vconfig.LibvirtConfigGuest()
        guest.virt_type, guest.name, guest.memory, guest.vcpus = "kvm", "x", 1 << 20, 1
        grants = [grant(f"ns{number}", each) for number, each in enumerate(hardware)]
        mixin.VPMEMDriverMixin._guest_add_vpmems(None, guest, grants)
        return guest

    def test_each_model_is_written(self):
        guest = self.config(model.IN_TREE, model.Hardware(VIRTIO_PMEM, 0), model.Hardware(NVDIMM, 0))
        self.assertEqual((1 << 20) + 3 * 8192, guest.max_memory_size)
        self.assertEqual(3, guest.max_memory_slots)
        found = etree.fromstring(guest.to_xml()).findall("devices/memory")
        self.assertEqual(["nvdimm", "virtio-pmem", "nvdimm"], [each.get("model") for each in found])
        self.assertEqual(["2048", None, None], [each.findtext("target/label/size") for each in found])
        self.assertEqual(["4", None, "4"], [each.findtext("source/alignsize") for each in found])
        self.assertEqual(["0", None, "0"], [each.findtext("target/node") for each in found])
        self.assertEqual(["8192"] * 3, [each.findtext("target/size") for each in found])
        self.assertEqual(["/pmem/ns0", "/pmem/ns1", "/pmem/ns2"], [each.findtext("source/path") for each in found])

    def test_nova_reads_a_guest_with_a_virtio_pmem_and_leaves_it_out(self):
        read = vconfig.LibvirtConfigGuest()
        read.parse_str(self.config(model.IN_TREE, model.Hardware(VIRTIO_PMEM, 0)).to_xml())
        memory = [each for each in read.devices if isinstance(each, vconfig.LibvirtConfigGuestVPMEM)]
        self.assertEqual(["/pmem/ns0"], [each.source_path for each in memory])

    def test_why_live_migration_is_refused_novas_own_code_would_keep_the_path_of_the_source(self):
        xml = etree.fromstring(self.config(model.Hardware(VIRTIO_PMEM, 0)).to_xml())
        there = objects.LibvirtVPMEMDevice(label="A", name="b", devpath="/pmem/there", size=8 * MIB, align=4096)
        migration._update_vpmems_xml(xml, [there])
        self.assertEqual("/pmem/ns0", xml.findtext("devices/memory/source/path"))

    def test_what_can_be_migrated_live(self):
        instance = objects.Instance(uuid=str(uuid.uuid4()))
        moves.require_live_migratable(instance, [row("ns0", model.IN_TREE)])
        for hardware in (model.Hardware(VIRTIO_PMEM, 0), model.Hardware(NVDIMM, 0)):
            error = self.assertRaises(
                nova_exception.MigrationPreCheckError,
                moves.require_live_migratable,
                instance,
                [row("ns0", model.IN_TREE), row("ns1", hardware)],
            )
            self.assertIn(f"ns1 is a {hardware.device_model} with 0 bytes for labels", str(error))
