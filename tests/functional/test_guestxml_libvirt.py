"""Domain XML against libvirt itself: its schema, its test driver, and what the driver does and does not check."""

import dataclasses
import os
import pathlib
import random
import uuid

import pytest
from lxml import etree

from tests.contract.real import DOMAINS, GOLDEN
from tests.proofs import proves
from vpmem_driver import guestxml, model
from vpmem_driver.guestxml import KIB, MIB, MemoryDevice

GIB = 1024 * MIB
SCHEMA = pathlib.Path("/usr/share/libvirt/schemas/domain.rng")

try:
    import libvirt
except ImportError:
    if os.environ.get("CI"):
        raise
    pytest.skip("libvirt-python is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def schema():
    if not SCHEMA.exists() and not os.environ.get("CI"):
        pytest.skip(f"there is no {SCHEMA}: it comes with libvirt's library")
    return etree.RelaxNG(etree.parse(SCHEMA))


@pytest.fixture(scope="module")
def connection():
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # it would print each to stderr
    opened = libvirt.open("test:///default")
    yield opened
    opened.close()
    libvirt.registerErrorHandler(None, None)


@pytest.fixture
def define(connection):
    """Defines a domain, started or not, and returns what libvirt then says it is."""
    defined = []

    def run(text, *, start=True, flags=0):
        domain = connection.defineXML(text)
        defined.append(domain)
        if start and not domain.isActive():
            domain.create()
        return domain.XMLDesc(flags)

    yield run
    for domain in {each.name(): each for each in defined}.values():
        if domain.isActive():
            domain.destroy()
        domain.undefine()


def some_grants(*sizes, align=2 * MIB, **changes):
    return [
        model.Grant(
            owner=str(uuid.uuid4()),
            uuid=str(uuid.uuid4()),
            name=f"ns{number}",
            label="LARGE",
            size=size,
            align=align,
            numa_node=number % 2,
            device=f"/dev/dax{number}.{random.randrange(9)}",
            known_device=None,
            pmem=bool(number % 2),
            **changes,
        )
        for number, size in enumerate(sizes, start=random.randrange(100))
    ]


def new_domain(grants=(), **changes):
    arguments = {"domain_type": "test", "memory": GIB, "vcpus": 4, "host_nodes": [0, 1], "grants": grants}
    return guestxml.new_domain(name=f"vpmem-{uuid.uuid4().hex}", uuid=str(uuid.uuid4()), **arguments | changes)


def with_device(device_xml, **changes):
    """A domain with a memory device that this package would not write, and room for it."""
    text = new_domain(some_grants(4 * GIB, **changes))
    root = etree.fromstring(text)
    root.find("devices").replace(root.find("devices/memory"), etree.fromstring(device_xml))
    return etree.tostring(root, encoding="unicode")


def refused(define, text):
    """What libvirt says against it."""
    with pytest.raises(libvirt.libvirtError) as error:
        define(text)
    return str(error.value)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_are_valid(name, schema):
    schema.assertValid(etree.parse(DOMAINS / f"{name}.xml"))


@pytest.mark.parametrize("align", [4096, 2 * MIB, GIB])
@pytest.mark.parametrize("domain_type", ["test", "qemu", "kvm"])
def test_a_new_domain_is_valid_and_gives_back_its_devices(align, domain_type, schema, define):
    sizes = [random.randrange(4 * MIB + 2 * align, 8 * GIB) for _ in range(random.randrange(1, 5))]
    arguments = {"grants": some_grants(*sizes, align=align), "domain_type": domain_type}
    text = new_domain(**arguments)
    schema.assertValid(etree.fromstring(text))
    told = define(text.replace(f'type="{domain_type}"', 'type="test"'))
    devices = guestxml.devices(told)
    assert devices == guestxml.devices(text)
    for device, size, grant in zip(devices, sizes, arguments["grants"], strict=True):
        assert (device.path, device.pmem, device.node) == (grant.device, grant.pmem, grant.numa_node)
        assert size - max(align, 2 * MIB) < device.size <= size
    for name in ("maxMemory", "memory", "currentMemory"):
        assert told_size(told, name) == told_size(text, name)


@pytest.mark.parametrize("domain_type", ["test", "qemu", "kvm"])
def test_a_virtio_pmem_is_valid_and_comes_back_as_it_was(domain_type, schema, define):
    hardware = model.Hardware(model.DeviceModel.VIRTIO_PMEM, 0)
    grants = some_grants(64 * MIB + 4096, 8 * MIB, align=4096, hardware=hardware)
    text = new_domain(grants, domain_type=domain_type)
    schema.assertValid(etree.fromstring(text))
    told = define(text.replace(f'type="{domain_type}"', 'type="test"'))
    assert guestxml.identified(told) == [
        (MemoryDevice(model=hardware.device_model, access="shared", path=grant.device, size=size), grant.uuid)
        for grant, size in zip(grants, (64 * MIB, 8 * MIB), strict=True)
    ]
    without = guestxml.remove(told, [grant.device for grant in grants])
    assert "virtio-pmem" not in define(without, flags=libvirt.VIR_DOMAIN_XML_INACTIVE)


@proves("NUMA", kinds=("virtio-pmem",), no="libvirt refuses a virtio-pmem with a NUMA node")
def test_a_virtio_pmem_has_no_node(define):
    (grant,) = some_grants(8 * MIB, align=4096, hardware=model.Hardware(model.DeviceModel.VIRTIO_PMEM, 0))
    text = new_domain([grant])
    assert "<node>" not in text
    wrong = text.replace("</size>\n      </target>", "</size>\n        <node>0</node>\n      </target>")
    assert wrong != text
    assert "virtio-pmem does not support NUMA nodes" in refused(define, wrong)


def told_size(text, name):
    element = etree.fromstring(text).find(name)
    return guestxml.parse_size(element.text, element.get("unit"))


def test_devices_come_and_go_in_the_xml_that_libvirt_prints(schema, define):
    plain = define(new_domain(), start=False)
    first, second, third = some_grants(GIB, 2 * GIB, 64 * MIB)
    text = plain
    for grants in ([first], [second, third]):
        text = define(guestxml.add(text, grants), start=False)
        schema.assertValid(etree.fromstring(text))
    assert [device.path for device in guestxml.devices(text)] == [first.device, second.device, third.device]
    for grant in (second, first, third):
        text = define(guestxml.remove(text, [grant.device]), start=False)
        assert grant.device not in text
    assert text == plain


def test_a_device_moves_to_another_path(schema, define):
    (grant,) = some_grants(3 * GIB)
    told = define(new_domain([grant]))
    (device,) = guestxml.devices(told)
    text = guestxml.rewrite(told, {grant.device: dataclasses.replace(device, path="/dev/dax200.0")})
    schema.assertValid(etree.fromstring(text))
    assert guestxml.devices(define(text, flags=libvirt.VIR_DOMAIN_XML_INACTIVE))[0].path == "/dev/dax200.0"
    assert text == told.replace("'", '"').replace(grant.device, "/dev/dax200.0")


@pytest.mark.parametrize("field", ["access", "align", "node", "label_size"])
def test_what_may_be_absent_is_not_made_up(field, define):
    device = MemoryDevice(
        access="shared", path="/x", align=2 * MIB, pmem=True, size=GIB, node=0, label_size=2 * MIB, readonly=True
    )
    device = dataclasses.replace(device, **{field: None})
    assert guestxml.devices(define(with_device(device.to_xml()))) == (device,)


# What the test driver does, so that nobody relies on it to check what only QEMU's driver does.

UNITS = ["b", "Byte", "bytes", "k", "K", "KiB", "kb", "KB", "M", "mib", "MB", "G", "GiB", "gB"]


@pytest.mark.parametrize("unit", UNITS)
def test_libvirt_reads_every_unit_the_same(unit, define):
    number = random.randrange(1, 2**31 // guestxml.parse_size("1", unit) + 2)
    device = MemoryDevice(path="/x", size=KIB, node=0).to_xml().replace('"KiB">1<', f'"{unit}">{number}<')
    (told,) = guestxml.devices(define(with_device(device)))
    assert told.size == guestxml.parse_size(str(number), unit)


@pytest.mark.parametrize("unit", ["iB", "kk", "KiBs", " KiB"])
def test_libvirt_reads_no_other_unit(unit, define):
    text = with_device(MemoryDevice(path="/x", size=GIB, node=0).to_xml().replace("KiB", unit))
    assert "unknown suffix" in refused(define, text)


@pytest.mark.parametrize("nodeset", ["0", "0-3,^2,5", "^2,0-3", "0-3,^2,2", " 1", "1 , 3 - 4 , ", "16383"])
def test_libvirt_reads_a_nodeset_the_same(nodeset, define):
    text = new_domain().replace('nodeset="0"', f'nodeset="{nodeset}"')
    told = etree.fromstring(define(text)).find("numatune/memnode").get("nodeset")
    assert guestxml.parse_nodeset(told) == guestxml.parse_nodeset(nodeset)


@pytest.mark.parametrize("nodeset", ["", "0,,1", "3-1", "1-", "0-3,^1-2", "+1", "16384", "^1", "1,^1"])
def test_libvirt_refuses_a_nodeset_as_well(nodeset, define):
    message = refused(define, new_domain().replace('nodeset="0"', f'nodeset="{nodeset}"'))
    assert "Failed to parse bitmap" in message or "Invalid value of 'nodeset'" in message
    with pytest.raises(ValueError, match=r"is not a nodeset|contains no node"):
        guestxml.parse_nodeset(nodeset)


@pytest.mark.parametrize("size", [GIB - MIB, GIB + KIB])
def test_the_test_driver_rounds_no_size(size, define):
    """The QEMU driver does, up, when the domain starts."""
    (told,) = guestxml.devices(define(with_device(MemoryDevice(path="/x", size=size, node=0).to_xml())))
    assert told.size == size


def test_libvirt_keeps_only_an_alias_of_the_users(define):
    alias = f"ua-{uuid.uuid4()}"
    for name, kept in ((alias, True), ("nvdimm0", False)):
        device = MemoryDevice(path="/x", size=GIB, node=0).to_xml()
        text = with_device(device.replace("</memory>", f"<alias name='{name}'/></memory>"))
        assert (f"name='{name}'" in define(text)) is kept
