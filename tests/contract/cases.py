"""What holds for every libvirt, also for a pretended one."""

import os
import pathlib
import typing
import uuid

from vpmem_driver import guestxml, model
from vpmem_driver.sizes import MIB

_INACTIVE = 2  # VIR_DOMAIN_XML_INACTIVE


class Domains:
    """Domains to be asked of, and namespaces for them. A runner sets these.

    :ivar connection: a ``libvirt.virConnect``, or what is taken for one
    :ivar domain_type: the type of its domains
    :ivar directory: a place for namespaces
    :ivar hardware: what the guests have them as
    """

    connection: typing.Any
    domain_type: str
    directory: pathlib.Path
    hardware = model.IN_TREE

    def define(self, domain_xml: str) -> typing.Any:
        return self.connection.defineXML(domain_xml)

    def domain(self, owner: str) -> typing.Any:
        return self.connection.lookupByUUIDString(owner)

    def told(self, owner: str) -> str:
        """The XML of a domain as it is."""
        return self.domain(owner).XMLDesc(0)

    def definition(self, owner: str) -> str:
        """The XML that a domain will be started from."""
        return self.domain(owner).XMLDesc(_INACTIVE)

    def grant(
        self, owner: str, *, size: int = 8 * MIB, align: int = 4096, node: int = 0, pmem: bool = False
    ) -> model.Grant:
        """A new namespace, as a pool would grant it."""
        path = self.directory / f"ns-{uuid.uuid4()}"
        with path.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        values = {"name": path.name, "label": "LARGE", "device": str(path), "known_device": None}
        uid = str(uuid.uuid4())
        values |= {"uuid": uid, "hardware": self.hardware}
        return model.Grant(owner=owner, size=size, align=align, numa_node=node, pmem=pmem, **values)

    def written(self, owner: str, grants: typing.Sequence[model.Grant] = ()) -> str:
        """A domain of two cells with these devices, as we write it, but not tied to the host's nodes.

        This machine may have one. The devices stay on their cells.
        """
        arguments = {"domain_type": self.domain_type, "memory": 64 * MIB, "vcpus": 2, "host_nodes": [0, 1]}
        text = guestxml.new_domain(name=f"vpmem-{owner}", uuid=owner, grants=grants, **arguments)
        before, _, rest = text.partition("  <numatune>")
        return before + rest.partition("</numatune>\n")[2]


class Contract(Domains):
    """The cases. A runner takes all domains away after each case."""

    def user_of(self, path: str, *, defined: bool = False) -> str | None:
        """What our module says of who has a namespace."""
        raise NotImplementedError

    def users_of(self, paths: typing.Collection[str]) -> dict[str, str]:
        """The same of many, and of running domains."""
        raise NotImplementedError

    def returned(self, device: guestxml.MemoryDevice) -> guestxml.MemoryDevice:
        """What a device is when this libvirt gives it back: the same."""
        return device

    def test_devices_come_back_the_same(self):
        """Defined, running, and shut off again; in their order."""
        owner = str(uuid.uuid4())
        grants = [
            self.grant(owner, node=1),
            self.grant(owner, size=9 * MIB + 4096, align=2 * MIB),
            self.grant(owner, size=64 * MIB, pmem=True, node=1),
        ]
        text = self.written(owner, grants)
        devices = tuple(map(self.returned, guestxml.devices(text)))
        domain = self.define(text)
        assert guestxml.devices(self.told(owner)) == devices
        domain.create()
        assert guestxml.devices(self.told(owner)) == devices
        assert guestxml.devices(self.definition(owner)) == devices
        domain.destroy()
        assert guestxml.devices(self.told(owner)) == devices

    def test_what_it_tells_can_be_defined_again(self):
        owner = str(uuid.uuid4())
        self.define(self.written(owner, [self.grant(owner), self.grant(owner, node=1)]))
        told = self.definition(owner)
        self.define(told)
        assert self.definition(owner) == told

    def test_who_has_a_namespace(self):
        owner, other = str(uuid.uuid4()), str(uuid.uuid4())
        grant = self.grant(owner)
        path = grant.device
        self.define(self.written(other, [self.grant(other)]))
        assert self.user_of(path, defined=True) is None
        domain = self.define(self.written(owner, [grant]))
        assert self.user_of(path) is None, "it is shut off"
        assert self.users_of([path]) == {}
        assert owner in self.user_of(path, defined=True)
        domain.create()
        assert owner in self.user_of(path)
        assert self.users_of([path, "/dev/dax0.0"]) == {path: self.user_of(path)}
        link = self.directory / f"link-{owner}"
        link.symlink_to(path)
        assert owner in self.user_of(str(link)), "whatever it is called"
        link.unlink()
        link.hardlink_to(path)
        assert owner in self.user_of(str(link)), "whatever it is called"
        domain.destroy()
        assert self.user_of(path) is None
        domain.undefine()
        assert self.user_of(path, defined=True) is None
