"""What holds for every real libvirt, through the module that the command line uses; and where the two differ."""

import os
import pathlib
import re
import typing
import uuid
from collections.abc import Callable, Sequence

import libvirt
import pytest
from lxml import etree

from tests.contract.cases import MIB, Contract
from vpmem_driver import exception, guestxml
from vpmem_driver.libvirt_domains import Domains

DOMAINS = pathlib.Path(__file__).parents[1] / "data" / "domains"
_HOSTILE = {"billion-laughs", "external-entity"}
GOLDEN = sorted(path.stem for path in DOMAINS.glob("*.xml") if path.stem not in _HOSTILE)

Devices = Sequence[guestxml.MemoryDevice]


class Trap(typing.NamedTuple):
    """Something wrong with a domain, and when libvirt says so: at ``define``, at ``start``, or ``never``.

    :ivar change: the domain's XML with that in it; gets it without, and its two devices, on guest cells 0 and 1
    :ivar says: what is in the error
    """

    change: Callable[[str, Devices], str]
    test: str
    qemu: str
    says: str = ""


def _replaced(old: str, new: str) -> Callable[[str, Devices], str]:
    def change(text: str, _devices: Devices) -> str:
        changed, count = re.subn(old, new, text, count=1, flags=re.DOTALL)
        assert count
        return changed

    return change


def _shortened(text: str, devices: Devices) -> str:
    os.truncate(devices[0].path, MIB)
    return text


_PIN = r'<numatune><memnode cellid="1" mode="strict" nodeset="1023"/></numatune>\g<0>'

TRAPS = {
    # What both refuse.
    "no guest cells": Trap(_replaced("<cpu>.*</cpu>", ""), "define", "define", "(?i)numa node"),
    "a cell that is not there": Trap(_replaced("<node>1<", "<node>2<"), "define", "define", "guest node '2'"),
    "a small maximum": Trap(_replaced(r'("2" unit="KiB">)\d+', r"\g<1>81919"), "define", "define", "maximum memory"),
    "a small label": Trap(_replaced(r"(<label>\s*<size.*?>)\d+", r"\g<1>127"), "define", "define", "at least 128KiB"),
    "a huge label": Trap(_replaced(r"(<label>\s*<size.*?>)\d+", r"\g<1>8192"), "define", "define", "must be smaller"),
    # What the test driver is too kind to see.
    "no maximum": Trap(_replaced("<maxMemory.*</maxMemory>", ""), "never", "define", "'maxMemory' is not defined"),
    "too few slots": Trap(_replaced('slots="2"', 'slots="1"'), "never", "define", "empty memory slot"),
    "no cell is named": Trap(_replaced("<node>1</node>", ""), "never", "define", "target NUMA node"),
    "no ACPI": Trap(_replaced("<acpi/>", ""), "never", "start", "memory hotplug is not enabled"),
    "a host node that is not there": Trap(_replaced("  <os>", _PIN), "never", "start", "node 1023 is unavailable"),
    "alignment below a page": Trap(_replaced('KiB">4<', 'KiB">3<'), "never", "start", "multiples of page size"),
    "a file that is too short": Trap(_shortened, "never", "start", "backing store size 0x100000 does not match"),
    # What nobody sees: that there is one owner is for the ledger to see to.
    "nothing": Trap(lambda text, _: text, "never", "never"),
    "one namespace twice": Trap(lambda text, devices: text.replace(devices[1].path, devices[0].path), "never", "never"),
    # Where the test driver is stricter: the QEMU driver adds up cells and devices itself.
    "a stale <memory>": Trap(_replaced(r'(<memory unit="KiB">)\d+', r"\g<1>1024"), "define", "never", "Total size"),
}


class RealContract(Contract):
    """The cases for every model of device. A runner sets `uri` too."""

    uri: str

    @property
    def domains(self) -> Domains:
        return Domains(self.uri)

    def user_of(self, path, *, defined=False):
        return self.domains.user_of(path, defined=defined)

    def users_of(self, paths):
        return self.domains.users_of(paths)

    def define(self, domain_xml):
        return self.domains.define(self.connection, domain_xml)

    def definition(self, owner):
        return self.domains.definition(self.domain(owner))

    def clean_up(self):
        """Take all domains of the cases away."""
        for domain in self.connection.listAllDomains():
            if domain.name().startswith("vpmem-"):
                if domain.isActive():
                    domain.destroy()
                domain.undefine()

    def test_found_by_name_and_by_uuid(self):
        owner = str(uuid.uuid4())
        self.define(self.written(owner))
        for known in (owner, f"vpmem-{owner}"):
            assert self.domains.find(self.connection, known).UUIDString() == owner
        with pytest.raises(exception.InvalidRequest, match="it does not exist on"):
            self.domains.find(self.connection, owner[:8])

    def test_devices_come_and_go(self):
        """What is taken out again leaves no trace."""
        owner = str(uuid.uuid4())
        self.define(self.written(owner))
        plain = self.definition(owner)
        first, second = self.grant(owner), self.grant(owner, node=1)
        for grant in (first, second):
            self.define(guestxml.add(self.definition(owner), [grant]))
        assert [device.path for device in guestxml.devices(self.definition(owner))] == [first.device, second.device]
        for grant in (first, second):
            self.define(guestxml.remove(self.definition(owner), [grant.device]))
        assert self.definition(owner) == plain

    def test_a_device_keeps_what_tells_its_namespace(self):
        """Its alias: in the definition, while it runs, and after."""
        owner = str(uuid.uuid4())
        grants = [self.grant(owner), self.grant(owner, node=1)]
        domain = self.define(self.written(owner, grants))
        told = list(zip(guestxml.devices(self.definition(owner)), [grant.uuid for grant in grants], strict=True))
        domain.create()
        assert guestxml.identified(self.told(owner)) == guestxml.identified(self.definition(owner)) == told
        domain.destroy()
        assert guestxml.identified(self.told(owner)) == told

    def test_a_running_domain_gets_them_at_its_next_start(self):
        """Until then they are in its definition only, and it has them all the same."""
        owner = str(uuid.uuid4())
        grant = self.grant(owner)
        domain = self.define(self.written(owner))
        domain.create()
        self.define(guestxml.add(self.definition(owner), [grant]))
        assert guestxml.devices(self.told(owner)) == ()
        assert self.user_of(grant.device) is None
        assert self.user_of(grant.device, defined=True) == f"the definition of domain vpmem-{owner}"
        domain.destroy()
        domain.create()
        assert self.user_of(grant.device) == f"the running domain vpmem-{owner}"

    def test_two_running_domains_may_have_one_namespace(self):
        """No libvirt minds. While one of them runs, it is in use."""
        owners = [str(uuid.uuid4()) for _ in range(2)]
        grant = self.grant(owners[0])
        first, _ = [self.define(self.written(owner, [grant])) for owner in owners]
        for owner in owners:
            self.domain(owner).create()
        first.destroy()
        assert self.user_of(grant.device) == f"the running domain vpmem-{owners[1]}"

    def test_no_answer_is_an_error(self):
        with pytest.raises(exception.LibvirtError, match="No such file"):
            Domains(f"qemu:///system?socket={self.directory}/none").user_of("/dev/dax0.0")


class NvdimmContract(RealContract):
    """The cases, and those that are about nvdimm."""

    @pytest.mark.parametrize("name", GOLDEN)
    def test_golden_files_come_back_the_same(self, name):
        text = (DOMAINS / f"{name}.xml").read_text()
        root = etree.fromstring(text)
        root.set("type", self.domain_type)
        root.find("uuid").text = str(uuid.uuid4())
        root.find("name").text = f"vpmem-{root.findtext('uuid')}"
        for command_line in root.findall("{http://libvirt.org/schemas/domain/qemu/1.0}commandline"):
            if self.domain_type != "qemu":
                root.remove(command_line)
        self.define(etree.tostring(root, encoding="unicode"))
        assert guestxml.devices(self.told(root.findtext("uuid"))) == guestxml.devices(text)

    @pytest.mark.parametrize("what", TRAPS)
    def test_traps(self, what):
        """When this libvirt says what is wrong."""
        owner = str(uuid.uuid4())
        text = self.written(owner, [self.grant(owner), self.grant(owner, node=1)])
        text = TRAPS[what].change(text, guestxml.devices(text))
        when, message = self._said(text)
        assert when == getattr(TRAPS[what], self.domain_type)
        assert when == "never" or re.search(TRAPS[what].says, message)

    def _said(self, domain_xml):
        try:
            domain = self.define(domain_xml)
        except exception.LibvirtError as error:
            return "define", str(error)
        try:
            domain.create()
        except libvirt.libvirtError as error:
            return "start", str(error)
        return "never", ""
