"""Find every host path in domain XML, for any purpose: a namespace can also be a disk."""

import re
import typing
from collections.abc import Iterator

from lxml import etree

from vpmem_driver.guestxml.document import parse

#: Children of ``<domain>`` that contain no host path: names, notes, and a cgroup.
_NOT_OF_THE_HOST = frozenset({"name", "title", "description", "metadata", "uuid", "resource"})

#: A path in a QEMU argument, ``memory-backend-file,mem-path=/dev/dax0.0`` or JSON. QEMU doubles commas in paths.
_IN_ARGUMENT = re.compile(r"(?:^|(?<=[=:,\"' ]))/(?:[^,\"']|,,)*")
_COMMAND_LINE = "commandline"

_text = etree.XPath("string()")  # without comments, like libvirt


class Source(typing.NamedTuple):
    """A host path, and the element that contains it.

    :ivar kind: the device: memory, disk, filesystem, serial, …; otherwise the child of ``<domain>``: os, commandline, …
    :ivar path: absolute path in the XML
    """

    kind: str
    path: str


def sources(domain_xml: str) -> tuple[Source, ...]:
    """Return each host path that a domain uses, once for each kind, in document order.

    There is no list of known devices, because each release of libvirt adds new ones: every attribute and text that is
    an absolute path counts, except paths inside the guest.

    :raises InvalidDomainXML: the text is not a domain
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
    # A target is a path inside the guest. A name belongs to a server or to libvirt: <source protocol name>.
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
