"""Every path of the host that a domain uses is found, and what it uses it for; a namespace may be its disk."""

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from vpmem_driver import exception, guestxml

DOMAINS = pathlib.Path(__file__).parents[2] / "data" / "domains"
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"


def domain(devices="", others=""):
    return f"<domain type='kvm' xmlns:qemu='{QEMU}'>{others}<devices>{devices}</devices></domain>"


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        ("<memory model='nvdimm'><source><path>/dev/dax0.0</path></source></memory>", "memory"),
        ("<memory model='virtio-pmem'><source><path>/dev/dax0.0</path></source></memory>", "memory"),
        ("<memory model='new in libvirt 99'><source path='/dev/dax0.0'/></memory>", "memory"),
        ("<disk type='file'><source file='/dev/dax0.0'/><target dev='vda'/></disk>", "disk"),
        ("<disk type='block'><source dev='/dev/dax0.0'/></disk>", "disk"),
        ("<disk type='dir'><source dir='/dev/dax0.0'/></disk>", "disk"),
        (
            "<disk><source protocol='http' name='/x'/><backingStore><source file='/dev/dax0.0'/></backingStore></disk>",
            "disk",
        ),
        ("<disk type='network'><mirror type='block'><source dev='/dev/dax0.0'/></mirror></disk>", "disk"),
        ("<filesystem type='mount'><source dir='/dev/dax0.0'/><target dir='/'/></filesystem>", "filesystem"),
        ("<filesystem type='block'><source dev='/dev/dax0.0'/><target dir='/'/></filesystem>", "filesystem"),
        ("<serial type='file'><source path='/dev/dax0.0'/><target port='0'/></serial>", "serial"),
        ("<console type='pty'><log file='/dev/dax0.0' append='on'/></console>", "console"),
        ("<hostdev mode='capabilities'><source><char>/dev/dax0.0</char></source></hostdev>", "hostdev"),
        ("<rng model='virtio'><backend model='random'>/dev/dax0.0</backend></rng>", "rng"),
        ("<pstore backend='acpi-erst'><path>/dev/dax0.0</path></pstore>", "pstore"),
    ],
)
def test_a_device(devices, found):
    assert guestxml.sources(domain(devices)) == (guestxml.Source(found, "/dev/dax0.0"),)


@pytest.mark.parametrize(
    "argument",
    [
        "memory-backend-file,id=m,mem-path=/dev/dax0.0,size=1G",
        '{"qom-type":"memory-backend-file","mem-path":"/dev/dax0.0","size":1024}',
        "file:/dev/dax0.0",
        "/dev/dax0.0",
    ],
)
def test_an_argument_of_qemu(argument):
    root = etree.fromstring(domain())
    command_line = etree.SubElement(root, f"{{{QEMU}}}commandline")
    etree.SubElement(command_line, f"{{{QEMU}}}arg").set("value", argument)
    text = etree.tostring(root, encoding="unicode")
    assert guestxml.sources(text) == (guestxml.Source("commandline", "/dev/dax0.0"),)


def test_an_argument_of_qemu_with_commas_in_its_path():
    arguments = "<qemu:commandline><qemu:arg value='x,mem-path=/mnt/a,,b,size=1'/></qemu:commandline>"
    assert guestxml.sources(domain(others=arguments)) == (guestxml.Source("commandline", "/mnt/a,b"),)


def test_what_is_beside_the_devices():
    others = (
        "<os><loader type='pflash'>/usr/share/OVMF.fd</loader><nvram template='/usr/share/VARS.fd'>/var/vars.fd</nvram>"
        "<kernel>/boot/vmlinuz</kernel></os><sysinfo type='fwcfg'><entry name='opt/x' file='/etc/x'/></sysinfo>"
    )
    paths = ["/usr/share/OVMF.fd", "/usr/share/VARS.fd", "/var/vars.fd", "/boot/vmlinuz"]
    found = [guestxml.Source("os", path) for path in paths] + [guestxml.Source("sysinfo", "/etc/x")]
    assert list(guestxml.sources(domain(others=others))) == found


@pytest.mark.parametrize(
    "others",
    [
        "<name>/dev/dax0.0</name>",
        "<title>/dev/dax0.0</title><description>/dev/dax0.0</description>",
        "<metadata><x:y xmlns:x='z' path='/dev/dax0.0'>/dev/dax0.0</x:y></metadata>",
        "<resource><partition>/machine</partition></resource>",
        "<!-- /dev/dax0.0 --><?pi /dev/dax0.0?>",
    ],
)
def test_what_is_no_path_of_the_host(others):
    assert guestxml.sources(domain(others=others)) == ()


def test_the_same_path_for_two_purposes_in_their_order():
    disk, memory = "<disk><source file='/b'/></disk>", "<memory><source><path>/b</path></source></memory>"
    found = guestxml.sources(domain(disk + memory + disk + "<disk><source file='/a'/></disk>"))
    assert found == (("disk", "/b"), ("memory", "/b"), ("disk", "/a"))


def test_a_path_with_a_comment_in_it():
    """As libvirt takes it: an attempt to hide it."""
    memory = "<memory><source><path><!-- x -->/dev/<!-- y -->dax0.0</path></source></memory>"
    assert guestxml.sources(domain(memory)) == (("memory", "/dev/dax0.0"),)


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufffe\uffff")))
def test_any_path_is_as_it_was(rest):
    root = etree.fromstring(domain("<disk><source/></disk>"))
    root.find("devices/disk/source").set("file", "/" + rest)
    assert guestxml.sources(etree.tostring(root, encoding="unicode")) == (("disk", "/" + rest),)


@pytest.mark.parametrize("name", ["live", "memory-devices", "plain"])
def test_memory_devices_of_golden_files(name):
    text = (DOMAINS / f"{name}.xml").read_text()
    memory = [source.path for source in guestxml.sources(text) if source.kind == "memory"]
    assert memory == [device.path for device in guestxml.devices(text)]


@pytest.mark.parametrize("name", ["billion-laughs", "external-entity"])
def test_no_entity_is_resolved(name):
    with pytest.raises(exception.InvalidDomainXML, match="document type"):
        guestxml.sources((DOMAINS / f"{name}.xml").read_text())


@pytest.mark.parametrize("text", ["", "<domain", "<network/>", "\ud800"])
def test_what_is_no_domain(text):
    with pytest.raises(exception.InvalidDomainXML):
        guestxml.sources(text)
