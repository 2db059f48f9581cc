"""Every path of the host in domain XML, whatever the domain uses it for: a namespace may be its disk as well."""

import re
import typing
from collections.abc import Iterator

from lxml import etree

from vpmem_driver.guestxml.document import parse

#: Children of ``<domain>`` in which nothing is a path of the host: names, notes, and a cgroup.
_NOT_OF_THE_HOST = frozenset({"name", "title", "description", "metadata", "uuid", "resource"})

#: A path in an argument of QEMU, ``memory-backend-file,mem-path=/dev/dax0.0`` or JSON. QEMU doubles commas in paths.
_IN_ARGUMENT = re.compile(r"(?:^|(?<=[=:,\"' ]))/(?:[^,\"']|,,)*")
_COMMAND_LINE = "commandline"

_text = etree.XPath("string()")  # as libvirt takes it: without comments


class Source(typing.NamedTuple):
    """A path of the host, and what the domain has it for.

    :ivar kind: the device: memory, disk, filesystem, serial, …; else the child of ``<domain>``: os, commandline, …
    :ivar path: absolute, as it is in the XML
    """

    kind: str
    path: str


def sources(domain_xml: str) -> tuple[Source, ...]:
    """Each path of the host that a domain uses, once for each kind, in document order.

    Devices are not read one kind at a time, since each release of libvirt has new ones: any attribute and any text that
    is an absolute path counts, except for what is the guest's.

    :raises InvalidDomainXML: the text is no domain
    """
    found = []
    for part in parse(domain_xml).iterchildren("*"):
        kind = etree.QName(part).localname
        if kind == "devices":
            found += [Source(str(device.tag), path) for device in part.iterchildren("*") for path in _paths(device)]
        elif kind == _COMMAND_LINE:
            found += [Source(kind, path) for argument in part.iter("*") for path in _in_argument(argument)]
        elif kind not in _NOT_OF_THE_HOST:
            found += [Source(kind, path) for path in _paths(part)]
    return tuple(dict.fromkeys(found))


def _paths(element: etree._Element) -> Iterator[str]:
    # A target is where the guest has it. A name is what a server or libvirt calls it: <source protocol name>.
    if element.tag == "target":
        return
    yield from (str(value) for name, value in element.items() if name != "name" and value.startswith("/"))
    children = list(element.iterchildren("*"))
    if not children and (text := str(_text(element))).startswith("/"):
        yield text
    for inner in children:
        yield from _paths(inner)


def _in_argument(argument: etree._Element) -> Iterator[str]:
    for value in argument.attrib.values():
        yield from (path.replace(",,", ",") for path in _IN_ARGUMENT.findall(str(value)))
