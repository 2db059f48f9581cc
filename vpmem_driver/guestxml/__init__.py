"""The one reader and writer of ``<memory model='nvdimm'>`` in domain XML, and of what such a device needs around it.

:func:`sources` also reads all else in a domain that may lead to a namespace.

Text or elements in, text or elements out; nothing here talks to libvirt. Sizes are bytes, and KiB in what is written.
Devices are identified by their alias or their source path, never by their position. Text that comes back has
everything else as it was, except for what an XML parser does not report: the kind of quotes, spaces inside tags, an
XML declaration (a str has no encoding to declare). What is said of libvirt and QEMU was read in, or tried with, libvirt
9.0.0 and QEMU 7.2.
"""

from vpmem_driver.guestxml.edit import (
    add,
    check,
    devices,
    guest_node,
    identified,
    refresh,
    remove,
    rewrite,
    uuid,
)
from vpmem_driver.guestxml.identity import find
from vpmem_driver.guestxml.memory_device import MIN_LABEL_SIZE, MemoryDevice, device_for
from vpmem_driver.guestxml.new import new_domain
from vpmem_driver.guestxml.sources import Source, sources
from vpmem_driver.guestxml.values import parse_integer, parse_nodeset, parse_size
from vpmem_driver.sizes import GRANULE, KIB, LABEL_SIZE, MIB, least_size

__all__ = [
    "GRANULE",
    "KIB",
    "LABEL_SIZE",
    "MIB",
    "MIN_LABEL_SIZE",
    "MemoryDevice",
    "Source",
    "add",
    "check",
    "device_for",
    "devices",
    "find",
    "guest_node",
    "identified",
    "least_size",
    "new_domain",
    "parse_integer",
    "parse_nodeset",
    "parse_size",
    "refresh",
    "remove",
    "rewrite",
    "sources",
    "uuid",
]
