"""Domain XML: golden files compared byte by byte, what hypothesis finds, and every refusal with its message."""

import copy
import dataclasses
import pathlib
import random
import re
import socket
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from vpmem_driver import exception, guestxml, model
from vpmem_driver.guestxml import GRANULE, KIB, LABEL_SIZE, MIB, MemoryDevice

GIB = 1024 * MIB
DOMAINS = pathlib.Path(__file__).parents[2] / "data" / "domains"


def golden(name):
    return (DOMAINS / f"{name}.xml").read_text()


def grant(device="/dev/dax0.0", **changes):
    values = {
        "owner": str(uuid.uuid4()),
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, device or "")),
        "name": f"ns-{uuid.uuid4().hex[:6]}",
        "label": "LARGE",
        "size": GIB,
        "align": 2 * MIB,
        "numa_node": None,
        "device": device,
        "known_device": None,
        "pmem": True,
    }
    return model.Grant(**values | changes)


def labelled(label_size):
    return model.Hardware(model.DeviceModel.NVDIMM, label_size)


VIRTIO_PMEM = model.Hardware(model.DeviceModel.VIRTIO_PMEM, 0)


def three_grants():
    """What the golden files were made with: each alignment, a size that is a multiple of none, an odd path."""
    return [
        grant("/dev/dax1.0", numa_node=0),
        grant("/dev/dax0.0", size=4 * GIB + 3 * MIB, align=GIB, numa_node=1),
        grant("/mnt/pmem/a & b", size=64 * MIB + 4096, align=4096, pmem=False, numa_node=7),
    ]


def domain(
    devices="", *, name="x", memory=GIB, maximum="", cells=(GIB,), numatune="", features="<acpi/>", arch="x86_64"
):
    numa = "".join(f"<cell id='{i}' memory='{size // KIB}'/>" for i, size in enumerate(cells))
    return (
        f"<domain type='kvm'><name>{name}</name>{maximum}<memory>{memory // KIB}</memory><vcpu>4</vcpu>"
        f"<numatune>{numatune}</numatune><os><type arch='{arch}'>hvm</type></os><features>{features}</features>"
        f"<cpu><numa>{numa}</numa></cpu><devices>{devices}</devices></domain>"
    )


def find(text, path):
    return etree.fromstring(text).find(path)


def maximum_of(text):
    element = find(text, "maxMemory")
    if element is None:
        return None
    return guestxml.parse_size(element.text, element.get("unit")), int(element.get("slots"))


# ---- values ----

POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
UNITS = {"": 1024, "b": 1, "byte": 1, "bytes": 1}
for letter, power in POWERS.items():
    UNITS |= {letter: 1024**power, f"{letter}ib": 1024**power, f"{letter}b": 1000**power}


def any_case(text):
    return st.lists(st.booleans(), min_size=len(text), max_size=len(text)).map(
        lambda flags: "".join(c.upper() if up else c for c, up in zip(text, flags, strict=True))
    )


@given(unit=st.sampled_from(sorted(UNITS)).flatmap(any_case), data=st.data())
def test_every_unit_of_libvirt_is_read(unit, data):
    number = data.draw(st.integers(0, (2**63 - 1) // UNITS[unit.lower()]))
    size = number * UNITS[unit.lower()]
    read = guestxml.parse_size(str(number), unit or None)
    assert read % KIB == 0
    assert size <= read < size + KIB


@pytest.mark.parametrize(
    ("text", "unit", "message"),
    [
        ("1", "kk", "'kk' is not a unit"),
        ("1", "iB", "'iB' is not a unit"),
        ("1", "KiB ", "'KiB ' is not a unit"),
        ("", None, "'' is not a whole number"),
        ("-1", None, "'-1' is not a whole number"),
        ("1.5", "G", "'1.5' is not a whole number"),
        ("0x10", None, "'0x10' is not a whole number"),
        ("٣", None, "'٣' is not a whole number"),
        ("9" * 5000, None, f"'{'9' * 5000}' is not a whole number"),
        ("8", "E", "8 E is too large for libvirt"),
        ("18446744073709551615", None, "18446744073709551615 KiB is too large for libvirt"),
    ],
)
def test_a_size_that_is_none(text, unit, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        guestxml.parse_size(text, unit)


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("0", {0}),
        ("0-3,^2,5", {0, 1, 3, 5}),
        ("^2,0-3", {0, 1, 2, 3}),
        ("0-3,^2,2", {0, 1, 2, 3}),
        (" 1 , 3 - 4 , ", {1, 3, 4}),
        ("16383", {16383}),
    ],
)
def test_a_nodeset(text, nodes):
    assert guestxml.parse_nodeset(text) == nodes


@pytest.mark.parametrize("text", ["", ",", "0,,1", "3-1", "1-", "-1", "0-3,^1-2", "+1", "a", "16384", "0-99999"])
def test_a_nodeset_that_is_none(text):
    with pytest.raises(ValueError, match=f"^'{re.escape(text)}' is not a nodeset$"):
        guestxml.parse_nodeset(text)


def test_a_nodeset_without_a_node():
    with pytest.raises(ValueError, match=r"^'1,\^1' contains no node$"):
        guestxml.parse_nodeset("1,^1")


# ---- one device ----

SIZES = st.integers(0, 2**52).map(lambda kib: kib * KIB)
PATHS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\ufffe\uffff")).map(
    "/".__add__
)
DEVICES = st.builds(
    MemoryDevice,
    model=st.sampled_from(model.DeviceModel),
    access=st.sampled_from(["shared", "private", None]),
    path=PATHS,
    align=st.none() | SIZES,
    pmem=st.booleans(),
    size=SIZES,
    node=st.none() | st.integers(0, 2**31),
    label_size=st.none() | SIZES,
    readonly=st.booleans(),
)

FULL = MemoryDevice(
    access="shared",
    path="/dev/dax0.0",
    align=2 * MIB,
    pmem=True,
    size=GIB,
    node=1,
    label_size=2 * MIB,
    readonly=True,
)


def test_a_device_as_text():
    assert FULL.to_xml() == (
        '<memory model="nvdimm" access="shared">'
        '<source><path>/dev/dax0.0</path><alignsize unit="KiB">2048</alignsize><pmem/></source>'
        '<target><size unit="KiB">1048576</size><node>1</node><label><size unit="KiB">2048</size></label><readonly/>'
        "</target></memory>"
    )


def test_the_least_device_as_text():
    assert MemoryDevice(path="/x", size=KIB).to_xml() == (
        '<memory model="nvdimm"><source><path>/x</path></source><target><size unit="KiB">1</size></target></memory>'
    )


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(MemoryDevice)])
def test_every_declared_field_is_written(field):
    other = {
        "model": model.DeviceModel.VIRTIO_PMEM,
        "access": "private",
        "path": "/other",
        "pmem": False,
        "readonly": False,
    }.get(field, 4 * MIB)
    assert dataclasses.replace(FULL, **{field: other}).to_xml() != FULL.to_xml()


@given(DEVICES)
def test_what_is_written_is_read_back_without_loss(device):
    element = device.to_element()
    assert MemoryDevice.from_element(element) == device
    assert etree.tostring(element, encoding="unicode") == device.to_xml()


@given(
    device=DEVICES,
    number=st.integers(1, 7),
    unit=st.sampled_from(sorted(UNITS)).flatmap(any_case),
    seed=st.integers(),
)
def test_a_device_is_read_in_any_unit_and_order(device, number, unit, seed):
    element = device.to_element()
    size = element.find("target/size")
    size.text = str(number)
    del size.attrib["unit"]
    if unit:
        size.set("unit", unit)
    for parent in (element, *element):
        children = list(parent)
        random.Random(seed).shuffle(children)
        parent[:] = children
    expected = -(-number * UNITS[unit.lower()] // KIB) * KIB
    assert MemoryDevice.from_element(element) == dataclasses.replace(device, size=expected)


@pytest.mark.parametrize("size", [1, -KIB, GIB + 1])
def test_a_size_that_is_no_whole_number_of_kib_is_not_written(size):
    with pytest.raises(exception.InvalidRequest) as error:
        MemoryDevice(path="/x", size=size).to_xml()
    assert str(error.value) == f"size '{size}': it is not a multiple of 1 KiB. libvirt stores sizes in KiB."


@pytest.mark.parametrize(
    ("path", "shown"), [("", ""), ("dax0.0", "dax0.0"), ("/a\nb", "/a\\nb"), ("/\udc80", "/\\udc80")]
)
def test_a_path_that_cannot_be_written(path, shown):
    device = MemoryDevice(path=path, size=KIB)
    message = f"device path '{shown}': it is not absolute, or XML cannot represent it. Use an absolute path."
    for write in (device.to_xml, device.to_element):
        with pytest.raises(exception.InvalidRequest) as error:
            write()
        assert str(error.value) == message
    with pytest.raises(exception.InvalidRequest, match="Use an absolute path"):
        guestxml.rewrite(domain(FULL.to_xml()), {FULL.path: dataclasses.replace(FULL, path=path)})


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('model="nvdimm"', 'model="dimm"', "line 1, <memory>: model: 'dimm' is neither 'nvdimm' nor 'virtio-pmem'"),
        ('model="nvdimm" ', "", "line 1, <memory>: it has no model"),
        ('access="shared"', 'access="both"', "line 1, <memory>: access: 'both' is neither 'shared' nor 'private'"),
        ("<path>/dev/dax0.0</path>", "", "line 1, <memory>: it has no <source/path>"),
        ('<size unit="KiB">1048576</size>', "", "line 1, <memory>: it has no <target/size>"),
        ("1048576", "1 GiB", "line 1, <size>: '1 GiB' is not a whole number"),
        ("<node>1</node>", "<node>one</node>", "line 1, <node>: 'one' is not a whole number"),
        ("/dev/dax0.0", "/dev/dax<!-- -->0.0", "line 1, <path>: it contains more than text"),
    ],
)
def test_a_device_that_cannot_be_read(old, new, reason):
    text = FULL.to_xml()
    assert old in text
    with pytest.raises(exception.InvalidDomainXML) as error:
        MemoryDevice.from_element(etree.fromstring(text.replace(old, new)))
    assert str(error.value) == (
        f"Cannot use the domain XML: {reason}. Use the output of 'virsh dumpxml --inactive DOMAIN'."
    )


# ---- the device for a namespace ----


@pytest.mark.parametrize(
    ("size", "align", "mapped", "guest"),
    [
        (4 * MIB, 4096, 4 * MIB, 2 * MIB),
        (6 * MIB - 4096, 4096, 4 * MIB, 2 * MIB),  # libvirt would have rounded up, past the end of the device
        (4 * MIB, 2 * MIB, 4 * MIB, 2 * MIB),
        (513 * MIB, 2 * MIB, 512 * MIB, 510 * MIB),
        (GIB + 2 * MIB, 2 * MIB, GIB + 2 * MIB, GIB),
        (2 * GIB, GIB, 2 * GIB, GIB),  # the label costs a whole unit
        (3 * GIB - 4096, GIB, 2 * GIB, GIB),
        (4 * MIB, 0, 4 * MIB, 2 * MIB),  # a device without an alignment of its own
    ],
)
def test_a_device_is_no_larger_than_its_namespace(size, align, mapped, guest):
    device = guestxml.device_for(grant(size=size, align=align), node=3)
    assert (device.size, device.guest_size, device.align or 0) == (mapped, guest, align)


@given(size=st.integers(0, 2**50), align=st.sampled_from([4096, 2 * MIB, GIB]), label=st.sampled_from([0, LABEL_SIZE]))
def test_a_size_is_one_that_libvirt_and_qemu_take_as_it_is(size, align, label):
    namespace = grant(size=size, align=align, hardware=labelled(label))
    try:
        device = guestxml.device_for(namespace, node=0)
    except exception.InvalidRequest:
        assert size // max(align, GRANULE) * max(align, GRANULE) - label < align
        return
    assert device.size <= size < device.size + max(align, GRANULE)
    assert device.size % GRANULE == device.size % align == 0
    assert 0 < device.guest_size <= device.size - label


def test_a_guest_sees_whole_pages_where_no_alignment_is_given():
    assert MemoryDevice(path="/x", size=MIB, label_size=129 * KIB).guest_size == MIB - 132 * KIB
    assert MemoryDevice(path="/x", size=MIB).guest_size == MIB
    assert MemoryDevice(path="/x", size=KIB, label_size=MIB).guest_size == 0


def test_a_device_says_what_its_namespace_is():
    assert guestxml.device_for(grant(align=GIB, size=8 * GIB), node=2) == MemoryDevice(
        access="shared", path="/dev/dax0.0", align=GIB, pmem=True, size=8 * GIB, node=2, label_size=2 * MIB
    )
    device = guestxml.device_for(grant("/f", align=4096, pmem=False, hardware=labelled(0)), node=0)
    assert device == MemoryDevice(access="shared", path="/f", align=4096, pmem=False, size=GIB, node=0)


@pytest.mark.parametrize(
    ("size", "align", "least"),
    [(2 * MIB, 4096, 4 * MIB), (2 * MIB, 2 * MIB, 4 * MIB), (GIB, GIB, 2 * GIB), (0, 0, 4 * MIB)],
)
def test_a_namespace_that_is_too_small(size, align, least):
    namespace = grant(size=size, align=align)
    with pytest.raises(exception.InvalidRequest) as error:
        guestxml.device_for(namespace, node=0)
    assert str(error.value) == (
        f"namespace '{namespace.name}': its {size} bytes are too few for a label of 2097152 "
        f"and an alignment of {align}. "
        f"Use {least} bytes or more, or a smaller alignment."
    )
    assert guestxml.device_for(dataclasses.replace(namespace, size=least), node=0).guest_size


def test_a_virtio_pmem_has_a_path_and_a_size():
    """libvirt refuses node, label, alignsize and pmem there."""
    device = guestxml.device_for(grant("/f", align=4096, size=9 * MIB + 4096, hardware=VIRTIO_PMEM), node=1)
    assert device.to_xml() == (
        '<memory model="virtio-pmem" access="shared"><source><path>/f</path></source>'
        '<target><size unit="KiB">8192</size></target></memory>'
    )
    assert device.guest_size == 8 * MIB


def test_a_virtio_pmem_is_added_found_refreshed_and_removed():
    given = grant("/pmem/a", align=4096, size=8 * MIB, numa_node=1, pmem=False, hardware=VIRTIO_PMEM)
    text = guestxml.add(domain(), [given])
    assert maximum_of(text) == (GIB + 8 * MIB, 1)
    (found,) = guestxml.identified(text)
    assert found == (guestxml.device_for(given, node=0), given.uuid)
    moved = dataclasses.replace(given, device="/pmem/b", known_device="/pmem/a")
    fresh = guestxml.refresh(text, [moved])
    assert guestxml.devices(fresh) == (dataclasses.replace(found[0], path="/pmem/b"),)
    gone = guestxml.remove(fresh, ["/pmem/b"])
    assert (guestxml.devices(gone), maximum_of(gone)) == ((), None)


def test_a_virtio_pmem_keeps_its_address_in_the_guest_when_its_namespace_changes():
    given = grant("/pmem/a", align=4096, size=8 * MIB, hardware=VIRTIO_PMEM)
    address = '<address base="0x140000000"/>'
    text = guestxml.add(domain(), [given]).replace("</size></target>", f"</size>{address}</target>")
    assert address in text
    same = dataclasses.replace(given, uuid=str(uuid.uuid4()), device="/pmem/b")
    assert address in guestxml.relocate(text, {"/pmem/a": same})
    larger = dataclasses.replace(same, size=16 * MIB)
    assert address not in guestxml.relocate(text, {"/pmem/a": larger})


def test_a_rewrite_does_not_change_the_model():
    given = grant("/pmem/a", align=4096, size=8 * MIB, hardware=VIRTIO_PMEM)
    text = guestxml.add(domain(), [given])
    nvdimm = dataclasses.replace(guestxml.devices(text)[0], model=model.DeviceModel.NVDIMM, path="/pmem/b")
    with pytest.raises(exception.InvalidRequest, match="its model is nvdimm, but that of the guest's device"):
        guestxml.rewrite(text, {"/pmem/a": nvdimm})


# ---- hot plug ----


def test_room_for_devices_on_q35_includes_ports():
    """A virtio-pmem is a PCI device, and a running q35 takes it only in a free root port."""
    text = guestxml.reserve(domain().replace("<type arch='x86_64'", "<type machine='pc-q35-7.2' arch='x86_64'"), 2, GIB)
    assert maximum_of(text) == (3 * GIB, 2)
    assert text.count('<controller type="pci" model="pcie-root-port"/>') == 2
    assert "pcie-root-port" not in guestxml.reserve(domain(), 2, GIB)


def test_a_virtio_pmem_that_has_no_address_yet_takes_none_of_the_reserved_ports():
    """libvirt puts it into a port that is free before it adds one."""
    files = [grant("/pmem/a", size=8 * MIB, align=4096, hardware=VIRTIO_PMEM)]
    q35 = domain().replace("<type arch='x86_64'", "<type machine='pc-q35-7.2' arch='x86_64'")
    added = guestxml.add(q35, files)
    assert guestxml.reserve(added, 1, GIB).count("pcie-root-port") == 2
    placed = added.replace("</memory></devices>", "<address type='pci' bus='0x01'/></memory></devices>")
    assert placed != added
    assert guestxml.reserve(placed, 1, GIB).count("pcie-root-port") == 1


PORTS = "".join(
    f"<controller type='pci' index='{index}' model='{model}'><address type='pci' bus='0x00'/></controller>"
    for index, model in enumerate(("pcie-root-port", "pcie-root-port"), start=1)
)


@pytest.mark.parametrize(
    ("controllers", "free"),
    [
        ("<controller type='pci' index='0' model='pcie-root'/>" + PORTS, 1),
        ("<controller type='pci' index='0' model='pcie-root'/>", 0),
        ("<controller type='pci' index='0' model='pcie-root'/>" + PORTS.replace("root-port", "to-pci-bridge"), None),
        ("<controller type='pci' index='0' model='pci-root'/>", None),
    ],
)
def test_a_running_q35_takes_as_many_virtio_pmem_as_it_has_free_ports(controllers, free):
    used = "<interface type='user'><address type='pci' bus='0x02'/></interface>"
    text = guestxml.reserve(domain().replace("</devices>", f"{controllers}{used}</devices>"), 2, GIB)
    files = [grant(f"/pmem/{name}", size=8 * MIB, align=4096, hardware=VIRTIO_PMEM) for name in "ab"]
    for count in (1, 2):
        if free is None or count <= free:
            assert len(guestxml.plug(text, files[:count])) == count
        else:
            said = f"it has {free} free PCI Express ports, and {count} are needed"
            with pytest.raises(exception.DomainRefused, match=said):
                guestxml.plug(text, files[:count])


def test_a_device_to_plug_has_the_uuid_in_its_alias():
    has_one = guestxml.reserve(guestxml.add(domain(), [grant("/dev/dax0.0")]), 2, 2 * GIB)
    given = [grant("/dev/dax1.0"), grant("/pmem/a", size=8 * MIB, align=4096, hardware=VIRTIO_PMEM)]
    guestxml.require_slots(has_one, 2)
    plugged = [etree.fromstring(text) for text in guestxml.plug(has_one, given)]
    assert [MemoryDevice.from_element(each) for each in plugged] == [
        guestxml.device_for(each, node=0) for each in given
    ]
    assert [each.find("alias").get("name") for each in plugged] == [f"ua-vpmem-{each.uuid}" for each in given]


@pytest.mark.parametrize(
    ("reserved", "grants", "said"),
    [
        ((0, 0), [grant()], "it has no <maxMemory>"),
        ((1, GIB), [grant(), grant("/dev/dax1.0")], "it has 1 free memory slots, and 2 are needed"),
        ((1, 2 * MIB), [grant()], "its <maxMemory> has room for 2097152 more bytes, and 1073741824 are needed"),
        ((1, GIB), [grant()], "it was started without a nvdimm"),
    ],
)
def test_a_domain_that_takes_no_device(reserved, grants, said):
    text = guestxml.reserve(domain(), *reserved) if reserved[0] else domain()
    with pytest.raises(exception.DomainRefused, match=said):
        guestxml.require_slots(text, len(grants))
        guestxml.plug(text, grants)


def test_a_label_that_is_too_small():
    with pytest.raises(exception.InvalidRequest) as error:
        guestxml.device_for(grant(hardware=labelled(64 * KIB)), node=0)
    assert str(error.value) == "label size '65536': the minimum is 131072 bytes. Make it larger, or 0."


def test_a_namespace_that_is_missing():
    with pytest.raises(exception.NamespaceMissing, match="Namespace lost is in the ledger but not on this host"):
        guestxml.device_for(grant(None, name="lost"), node=0)


def test_a_namespace_that_is_not_wiped():
    with pytest.raises(exception.NamespaceBusy, match="ns0 is reserved, or a copy of it is not complete"):
        guestxml.add(domain(), [grant(name="ns0", ready=False)])


# ---- the guest cell ----


@pytest.mark.parametrize(
    ("pins", "host_node", "cell"),
    [
        ([], 1, 0),
        ([], None, 0),
        (["0", "1"], 1, 1),
        (["1", "0"], 1, 0),
        (["0", "1"], None, 0),
        (["0", "1"], 2, 0),
        (["0-3", "1"], 1, 1),  # alone wins over together
        (["0-3", "0-1", "1-2"], 1, 1),  # of as many, the lowest
        (["0-3,^1", "0-3"], 1, 1),
    ],
)
def test_a_device_goes_to_the_cell_that_is_pinned_to_its_node(pins, host_node, cell):
    memnodes = "".join(f"<memnode cellid='{i}' mode='strict' nodeset='{pin}'/>" for i, pin in enumerate(pins))
    text = domain(numatune=memnodes, cells=[GIB] * 3)
    assert guestxml.guest_node(etree.fromstring(text), host_node) == cell
    assert guestxml.devices(guestxml.add(text, [grant(numa_node=host_node)]))[0].node == cell


@pytest.mark.parametrize(
    ("memnode", "problem"),
    [
        ("<memnode cellid='0' mode='strict'/>", "nodeset: '' is not a nodeset"),
        ("<memnode cellid='x' mode='strict' nodeset='1'/>", "cellid: 'x' is not a whole number"),
    ],
)
def test_a_pin_that_cannot_be_read(memnode, problem):
    with pytest.raises(exception.InvalidDomainXML, match=f"<memnode>: {re.escape(problem)}"):
        guestxml.guest_node(etree.fromstring(domain(numatune=memnode)), 1)


# ---- adding ----


@pytest.mark.parametrize("name", ["plain", "memory-devices"])
def test_adding_changes_nothing_else(name):
    assert guestxml.add(golden(name), three_grants()) == golden(f"{name}-added")


def test_adding_nothing():
    assert guestxml.add("<domain/>", []) == "<domain/>"


def test_devices_come_behind_the_memory_devices_in_the_order_of_the_request():
    dimm = "<memory model='dimm'><target><size>1024</size></target></memory>"
    text = guestxml.add(domain(f"<rng/>{dimm}<watchdog/>"), [grant("/b"), grant("/a")])
    text = guestxml.add(text, [grant("/0")])
    children = [child.findtext("source/path", child.tag) for child in find(text, "devices")]
    assert children == ["rng", "memory", "/b", "/a", "/0", "watchdog"]
    assert [device.path for device in guestxml.devices(text)] == ["/b", "/a", "/0"]
    assert guestxml.memory_paths(text) == [None, "/b", "/a", "/0"]


OTHERS = (
    "<memory model='dimm'><target><size unit='MiB'>3</size></target></memory>"
    "<memory model='virtio-mem'><target><size unit='MiB'>256</size></target></memory>"
    "<memory model='nvdimm'><source><path>/p</path></source><target><size unit='GiB'>1</size></target></memory>"
)


@pytest.mark.parametrize(
    ("maximum", "devices", "expected"),
    [
        ("", "", (2 * GIB, 1)),
        ("<maxMemory slots='8' unit='GiB'>64</maxMemory>", "", (64 * GIB, 8)),
        ("<maxMemory slots='8' unit='KiB'>1</maxMemory>", "", (2 * GIB, 8)),
        ("<maxMemory slots='0' unit='GiB'>64</maxMemory>", "", (64 * GIB, 1)),
        ("<maxMemory slots='1'>1048576</maxMemory>", OTHERS, (3 * GIB + 260 * MIB, 4)),
    ],
)
def test_the_maximum_covers_what_is_there_and_what_is_added(maximum, devices, expected):
    text = guestxml.add(domain(devices, maximum=maximum), [grant()])
    assert maximum_of(text) == expected


@pytest.mark.parametrize(("arch", "expected"), [("x86_64", GIB + MIB + GIB), ("ppc64le", GIB + 256 * MIB + GIB)])
def test_the_maximum_allows_for_the_rounding_of_cells(arch, expected):
    text = guestxml.add(domain(cells=[GIB + KIB], arch=arch), [grant()])
    assert maximum_of(text) == (expected, 1)
    assert find(text, "memory").text == str((2 * GIB + KIB) // KIB)


def test_the_base_memory_is_that_of_the_cells_as_a_dump_counts_the_devices_in():
    once = guestxml.add(domain(cells=[GIB, 2 * GIB], memory=0), [grant("/a")])
    twice = guestxml.add(once, [grant("/b")])
    assert maximum_of(twice) == (5 * GIB, 2)
    assert find(twice, "memory").text == str(5 * GIB // KIB)


def test_a_domain_may_leave_its_memory_to_the_cells():
    text = guestxml.remove(guestxml.add(domain(), [grant()]), ["/dev/dax0.0"])
    text = re.sub("<memory.*?</memory>", "", text)
    added = guestxml.add(text, [grant()])
    assert find(added, "memory") is None
    assert find(added, "maxMemory").getnext().tag == "cpu"
    assert guestxml.remove(added, ["/dev/dax0.0"]) == text


ASKS = [guestxml.check, lambda text: guestxml.add(text, [grant()])]


@pytest.mark.parametrize("ask", ASKS)
def test_a_domain_without_numa_cells(ask):
    text = domain("").replace("<cpu><numa><cell id='0' memory='1048576'/></numa></cpu>", "")
    with pytest.raises(exception.InvalidDomainXML) as error:
        ask(text)
    assert str(error.value) == (
        "Cannot use the domain XML: it has no guest NUMA cell, which memory devices require. "
        "Add <cpu><numa><cell id='0' cpus='0-3' memory='1048576' unit='KiB'/></numa></cpu>, or several cells."
    )


def test_the_cell_that_is_asked_for_is_the_one_that_is_needed():
    text = domain("").replace("<cpu><numa><cell id='0' memory='1048576'/></numa></cpu>", "<cpu/>")
    with pytest.raises(exception.InvalidDomainXML) as error:
        guestxml.add(text, [grant()])
    cpu = re.search("<cpu>.*</cpu>", str(error.value))[0]
    assert guestxml.add(text.replace("<cpu/>", cpu), [grant()])


@pytest.mark.parametrize("ask", ASKS)
def test_a_domain_without_acpi(ask):
    with pytest.raises(exception.InvalidDomainXML) as error:
        ask(domain(features=""))
    assert str(error.value) == (
        "Cannot use the domain XML: it has no ACPI, which a guest needs to find its nvdimm. "
        "Add <features><acpi/></features>."
    )
    ask(domain(features="", arch="ppc64le"))  # which has none


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("<numatune>", "<numatune><memnode/>", "<memnode>: nodeset: '' is not a nodeset"),
        ("memory='1048576'/>", "/>", "<cell>: memory: '' is not a whole number"),
        ("<devices></devices>", "", "<domain>: it has no <devices>"),
        ("<vcpu>", "<maxMemory>1</maxMemory><vcpu>", "<maxMemory>: slots: '' is not a whole number"),
        ("</devices>", "<memory model='dimm'/></devices>", "<memory>: it has no <target/size>"),
    ],
)
def test_a_domain_that_cannot_be_reckoned_up(ask, old, new, problem):
    assert old in domain()
    with pytest.raises(exception.InvalidDomainXML, match=f"line 1, {re.escape(problem)}"):
        ask(domain().replace(old, new))


@pytest.mark.parametrize("name", ["plain", "memory-devices", "live"])
def test_a_domain_that_can_have_devices(name):
    guestxml.check(golden(name))


@pytest.mark.parametrize("model_name", ["nvdimm", "virtio-pmem"])
def test_a_device_that_the_domain_has_already(model_name):
    there = FULL.to_xml().replace("nvdimm", model_name)
    with pytest.raises(exception.DomainRefused) as error:
        guestxml.add(domain(there, name="web"), [grant("/dev/dax1.0"), grant("/dev/dax0.0")])
    assert str(error.value) == (
        "Domain web: another of its memory devices already uses /dev/dax0.0. "
        "Nothing was changed. Remove the other device first."
    )


def test_a_device_that_is_asked_for_twice():
    with pytest.raises(exception.DomainRefused, match=r"another of its memory devices already uses /dev/dax0\.0"):
        guestxml.add(domain(), [grant(), grant()])


# ---- removing ----


@pytest.mark.parametrize("indented", [True, False])
@given(
    sizes=st.lists(st.integers(2, 2000).map(lambda units: units * 2 * MIB), min_size=1, max_size=4),
    room=st.sampled_from([None, 0, 1]),
    seed=st.randoms(use_true_random=False),
)
def test_removing_undoes_adding(indented, sizes, room, seed):
    text = golden("plain") if indented else re.sub(r">\s+<", "><", golden("plain"))
    if room is not None:  # the operator's own maximum, with more room than is needed
        operators = f'<maxMemory slots="{9 + room}" unit="KiB">{2**40 + room}</maxMemory>'
        text = re.sub(r"<memory ", operators + "<memory ", text, count=1)
    grants = [grant(f"/dev/dax{i}.0", size=size) for i, size in enumerate(sizes)]
    paths = [each.device for each in grants]
    seed.shuffle(paths)
    added = guestxml.add(text, grants)
    for path in paths:
        added = guestxml.remove(added, [path])
    assert added == text


def test_removing_takes_exactly_those():
    assert guestxml.remove(golden("live"), ["/dev/dax0.1"]) == golden("live-removed")


def test_removing_nothing():
    assert guestxml.remove("<domain/>", []) == "<domain/>"


def test_the_room_that_an_operator_made_stays():
    room = "<maxMemory slots='3' unit='KiB'>2097152</maxMemory>"
    text = guestxml.add(domain(maximum=room), [grant()])
    assert maximum_of(guestxml.remove(text, ["/dev/dax0.0"])) == (2 * GIB, 3)


def test_the_slot_that_another_device_sits_in_stays():
    """libvirt refuses a device whose slot number is not below the count of slots."""
    text = guestxml.remove(golden("live"), ["/dev/dax0.0"])
    assert find(text, "devices/memory[2]/address").get("slot") == "2"
    assert maximum_of(text) == (GIB + 512 * MIB + 4 * GIB, 3)


def test_without_cells_the_memory_is_what_the_devices_leave():
    text = domain(FULL.to_xml(), memory=3 * GIB, cells=(), arch="ppc64le")
    assert find(guestxml.remove(text, ["/dev/dax0.0"]), "memory").text == str(2 * GIB // KIB)


def test_removing_what_is_not_there():
    with pytest.raises(exception.DomainRefused) as error:
        guestxml.remove(golden("live"), ["/dev/dax0.1", "/dev/dax7.0"])
    assert str(error.value) == (
        "Domain instance-00000007: it has no memory device at /dev/dax7.0. "
        "Nothing was changed. It has: /dev/dax0.0, /dev/dax0.1."
    )


def test_removing_from_a_domain_that_has_none():
    other = FULL.to_xml().replace("nvdimm", "virtio-mem")
    with pytest.raises(exception.DomainRefused) as error:
        guestxml.remove(domain(other).replace("<name>x</name>", ""), ["/dev/dax0.0"])
    assert str(error.value) == (
        "Domain (unnamed): it has no memory device at /dev/dax0.0. Nothing was changed. It has: none."
    )


# ---- rewriting for migration ----


def test_rewriting_goes_by_identity_though_other_devices_come_first():
    replacement = {
        "/dev/dax0.1": guestxml.device_for(grant("/dev/dax5.0", size=4 * GIB, align=GIB), node=3),
        "/dev/dax0.0": guestxml.device_for(grant("/dev/dax0.1"), node=0),  # which is the other one's, still
    }
    assert guestxml.rewrite(golden("live"), replacement) == golden("live-rewritten")


def test_rewriting_nothing():
    assert guestxml.rewrite("<domain/>", {}) == "<domain/>"


@given(data=st.data())
def test_rewriting_never_touches_another_element(data):
    devices = data.draw(st.lists(DEVICES, min_size=1, max_size=5, unique_by=lambda device: device.path))
    elements = [device.to_element() for device in devices]
    others = [etree.fromstring(other) for other in ("<rng/>", "<memory model='dimm'/>", "<memory model='sgx-epc'/>")]
    before = etree.fromstring(domain())
    before.find("devices").extend(data.draw(st.permutations(elements + others)))
    moved = data.draw(st.lists(st.sampled_from(devices), unique=True))
    paths = data.draw(st.lists(PATHS, min_size=len(moved), max_size=len(moved), unique=True))
    new = {device.path: path for device, path in zip(moved, paths, strict=True)}
    replacement = {device.path: dataclasses.replace(device, path=new[device.path], node=99) for device in moved}
    expected = copy.deepcopy(before)
    for element in expected.iterfind("devices/memory/source/path"):
        element.text = new.get(element.text, element.text)
    left = {device.path for device in devices} - new.keys()
    text = etree.tostring(before, encoding="unicode")
    if left & set(paths):
        with pytest.raises(exception.DomainRefused, match="another of its memory devices already uses"):
            guestxml.rewrite(text, replacement)
    else:
        assert guestxml.rewrite(text, replacement) == etree.tostring(expected, encoding="unicode")


@pytest.mark.parametrize(
    ("field", "value", "old", "new"),
    [
        ("size", 2 * GIB, GIB, 2 * GIB),
        ("size", GIB - 2 * MIB, GIB, GIB - 2 * MIB),
        ("align", GIB, 2 * MIB, GIB),
        ("align", None, 2 * MIB, None),
        ("pmem", False, True, False),
    ],
)
def test_a_guest_does_not_move_to_a_namespace_that_is_unlike_its_own(field, value, old, new):
    other = dataclasses.replace(FULL, path="/dev/dax9.0", **{field: value})
    with pytest.raises(exception.InvalidRequest) as error:
        guestxml.rewrite(domain(FULL.to_xml()), {"/dev/dax0.0": other})
    assert str(error.value) == (
        f"device '/dev/dax9.0': its {field} is {new}, but that of the guest's device /dev/dax0.0 is {old}. "
        "Use a namespace with the same size, align and pmem."
    )


def test_rewriting_what_is_not_there():
    with pytest.raises(exception.DomainRefused, match=r"it has no memory device at /dev/dax3\.0"):
        guestxml.rewrite(golden("live"), {"/dev/dax3.0": FULL})


# ---- a new domain ----

UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("new-test", {"name": "demo", "domain_type": "test", "memory": 512 * MIB, "vcpus": 1, "host_nodes": []}),
        ("new-qemu", {"name": "R&D", "domain_type": "qemu", "memory": GIB + MIB, "vcpus": 5, "host_nodes": [1, 0]}),
        ("new-kvm-without", {"name": "bare", "domain_type": "kvm", "memory": GIB, "vcpus": 2, "host_nodes": [3]}),
    ],
)
def test_a_new_domain(name, arguments):
    grants = {"new-test": three_grants()[:1], "new-qemu": three_grants(), "new-kvm-without": []}[name]
    assert guestxml.new_domain(uuid=UUID, grants=grants, **arguments) == golden(name)


@given(memory=st.integers(1, 2**20), vcpus=st.integers(1, 200), nodes=st.lists(st.integers(0, 7), max_size=8))
def test_a_new_domain_gives_each_cell_its_part(memory, vcpus, nodes):
    arguments = {"name": "x", "uuid": UUID, "domain_type": "test", "grants": []}
    if min(memory, vcpus) < len(nodes):
        with pytest.raises(exception.InvalidRequest):
            guestxml.new_domain(memory=memory * MIB, vcpus=vcpus, host_nodes=nodes, **arguments)
        return
    text = guestxml.new_domain(memory=memory * MIB, vcpus=vcpus, host_nodes=nodes, **arguments)
    cells = etree.fromstring(text).findall("cpu/numa/cell")
    sizes = [int(cell.get("memory")) for cell in cells]
    cpus = [cpu for cell in cells for cpu in sorted(guestxml.parse_nodeset(cell.get("cpus")))]
    assert (sum(sizes), max(sizes) - min(sizes) <= KIB) == (memory * KIB, True)
    assert cpus == list(range(vcpus))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"memory": GIB + 1},
            (
                f"memory '{GIB + 1}': it is not a multiple of 1 MiB, or too small for 2 cells. "
                "Use at least 1 MiB for each cell."
            ),
        ),
        (
            {"memory": MIB},
            (
                f"memory '{MIB}': it is not a multiple of 1 MiB, or too small for 2 cells. "
                "Use at least 1 MiB for each cell."
            ),
        ),
        ({"vcpus": 1}, "vcpus '1': there are 2 guest cells. Use at least one for each cell."),
    ],
)
def test_a_new_domain_that_cannot_be_split(changes, message):
    arguments = {"name": "x", "uuid": UUID, "domain_type": "test", "memory": GIB, "vcpus": 2, "host_nodes": [0, 1]}
    with pytest.raises(exception.InvalidRequest) as error:
        guestxml.new_domain(**arguments | changes, grants=[])
    assert str(error.value) == message


# ---- the parser ----

USES = [
    guestxml.check,
    guestxml.devices,
    guestxml.memory_paths,
    lambda text: guestxml.add(text, [grant()]),
    lambda text: guestxml.remove(text, ["/x"]),
    lambda text: guestxml.rewrite(text, {"/x": FULL}),
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("prefix", ["", "<?xml version='1.0'?>", "\ufeff", "\n<!-- <!DOCTYPE --><?pi <!DOCTYPE ?>\n"])
def test_entities_are_neither_expanded_nor_read(use, prefix, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("<!ENTITY found 'me'>")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.dtd"
        external = golden("external-entity").replace("@FILE@", secret.as_uri())
        attacks = [external.replace("@DTD@", address), external.replace("@DTD@", secret.as_uri())]
        for attack in [*attacks, golden("billion-laughs").partition("\n")[2]]:
            with pytest.raises(exception.InvalidDomainXML) as error:
                use(prefix + attack)
            assert str(error.value) == (
                "Cannot use the domain XML: it has a document type, which can include other files. Remove <!DOCTYPE …>."
            )
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is not XML: "),
        ("<domain>", "it is not XML: "),
        ("<domain>&undefined;</domain>", "it is not XML: Entity 'undefined' not defined"),
        ("<domain>\udc80</domain>", "it is not XML: 'utf-8' codec can't encode character '\\udc80'"),
        ("<a>" * 300 + "</a>" * 300, "it is not XML: Excessive depth"),
        ("<domstatus><domain/></domstatus>", "its root is <domstatus>, not <domain>"),
        ("<domain xmlns='urn:x'/>", "its root is <{urn:x}domain>, not <domain>"),
    ],
)
def test_what_is_no_domain(use, text, reason):
    with pytest.raises(exception.InvalidDomainXML) as error:
        use(text)
    assert str(error.value).startswith(f"Cannot use the domain XML: {reason}")
    assert str(error.value).endswith(". Use the output of 'virsh dumpxml --inactive DOMAIN'.")


@pytest.mark.parametrize("encoding", ["UTF-8", "utf-16", "ISO-8859-1", "nonsense"])
def test_the_encoding_that_a_text_claims_does_not_count(encoding):
    text = domain(name="dömäne")
    added = guestxml.add(f"<?xml version='1.0' encoding='{encoding}'?>\n{text}\n", [grant()])
    assert added == guestxml.add(text, [grant()]) + "\n"
    assert find(added, "name").text == "dömäne"


def test_what_stands_around_the_root_stays():
    text = domain().replace("'", '"')
    around = "<!-- <?xml before?> -->\n\n<?pi x?>\n{}\n<!-- after -->\n"
    added = guestxml.add(around.format(text), [grant()])
    assert added == around.format(guestxml.add(text, [grant()]))


def test_refresh_of_a_domain_whose_namespace_is_missing_is_refused():
    held = grant()
    defined = guestxml.add(domain(), [held])
    with pytest.raises(exception.NamespaceMissing):
        guestxml.refresh(defined, [dataclasses.replace(held, device=None)])


def test_refresh_of_a_domain_with_two_devices_on_one_path_raised_valueerror():
    held = grant()
    device = guestxml.device_for(held, node=0).to_xml()
    with pytest.raises(exception.DomainRefused, match=r"2 of its memory devices use /dev/dax0\.0\. .*Remove"):
        guestxml.refresh(domain(device + device), [held])


def test_relocating_changes_what_belongs_to_the_namespace_and_nothing_else():
    here = [grant("/dev/dax0.0"), grant("/dev/dax1.0", size=2 * GIB)]
    text = guestxml.add(domain(cells=(GIB, GIB)), here)
    text = text.replace("<node>0</node>", "<node>1</node>", 1)
    text = text.replace("</memory></devices>", "<address type='dimm' slot='5'/></memory></devices>")
    there = [
        grant("/dev/dax1.0", size=4 * GIB, align=GIB, pmem=False),  # the old path of the other device
        grant("/dev/dax9.0", size=2 * GIB),
    ]
    moved = guestxml.relocate(text, dict(zip(["/dev/dax0.0", "/dev/dax1.0"], there, strict=True)))
    (one, one_uuid), (two, two_uuid) = guestxml.identified(moved)
    assert [one_uuid, two_uuid] == [each.uuid for each in there]
    assert one == dataclasses.replace(guestxml.device_for(there[0], node=1))
    assert two == guestxml.device_for(there[1], node=0)
    assert find(moved, "devices/memory[2]/address").attrib == {"type": "dimm", "slot": "5"}
    assert find(moved, "memory").text == str((2 + 4 + 2) * GIB // KIB)
    assert maximum_of(moved) == ((2 + 4 + 2) * GIB, 6)
    assert guestxml.remove(moved, ["/dev/dax1.0", "/dev/dax9.0"]) != moved


@pytest.mark.parametrize("name", ["plain", "indented"])
def test_relocating_to_equal_namespaces_changes_paths_and_aliases_only(name):
    here, there = grant("/dev/dax0.0"), grant("/dev/dax7.0")
    text = domain() if name == "plain" else domain().replace("<devices></devices>", "<devices>\n  </devices>")
    text = guestxml.add(text, [here]).replace("access='shared'", "access='private'")
    moved = guestxml.relocate(text, {"/dev/dax0.0": there})
    assert moved == text.replace("/dev/dax0.0", "/dev/dax7.0").replace(here.uuid, there.uuid)


def test_relocating_a_device_without_a_label_leaves_it_without():
    text = guestxml.add(domain(), [grant("/dev/dax0.0", hardware=labelled(0))])
    (device,) = guestxml.devices(guestxml.relocate(text, {"/dev/dax0.0": grant("/dev/dax7.0", hardware=labelled(0))}))
    assert device.label_size is None


@pytest.mark.parametrize(
    ("paths", "error", "said"),
    [
        ({"/dev/dax3.0": grant("/dev/dax7.0")}, exception.DomainRefused, "no memory device at /dev/dax3.0"),
        ({"/dev/dax0.0": grant("/dev/dax1.0")}, exception.DomainRefused, "already uses /dev/dax1.0"),
        ({"/dev/dax0.0": grant(None)}, exception.NamespaceMissing, "not on this host"),
        ({"/dev/dax0.0": grant("/dev/dax7.0", ready=False)}, exception.NamespaceBusy, "not complete"),
    ],
)
def test_relocating_what_cannot_be_is_refused(paths, error, said):
    text = guestxml.add(domain(), [grant("/dev/dax0.0"), grant("/dev/dax1.0")])
    with pytest.raises(error, match=said):
        guestxml.relocate(text, paths)


def test_text_between_elements_stays():
    text = domain("one<rng/>two").replace("<vcpu>", "three<vcpu>").replace("<memory>", "four<memory>")
    added = guestxml.add(text, [grant()])
    for word in ("one<", "two<", "three<", "four<"):
        assert added.count(word) == 1
    assert guestxml.remove(added, ["/dev/dax0.0"]).count("two</devices>") == 1
