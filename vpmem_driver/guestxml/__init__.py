"""Reads and writes ``<memory model='nvdimm'>`` in domain XML, and the elements that such a device requires.

:func:`sources` reads all other elements of a domain that may lead to a namespace.

Functions take and return text or elements; none of them calls libvirt. Sizes are bytes in Python and KiB in XML. A
device is identified by its alias or its source path, never by its position. Returned text preserves everything else,
except what an XML parser does not report: the kind of quotes, spaces inside tags, an XML declaration (a str has no
encoding to declare). Statements about libvirt and QEMU are from the source of, or tests with, libvirt 9.0.0 and QEMU
7.2.
"""

from vpmem_driver.guestxml.edit import (
    add,
    check,
    devices,
    guest_node,
    identified,
    memory_paths,
    refresh,
    relocate,
    remove,
    rewrite,
    uuid,
)
from vpmem_driver.guestxml.hotplug import plug, require_slots, reserve
from vpmem_driver.guestxml.identity import find
from vpmem_driver.guestxml.memory_device import MemoryDevice, device_for
from vpmem_driver.guestxml.new import new_domain
from vpmem_driver.guestxml.sources import Source, sources
from vpmem_driver.guestxml.values import parse_integer, parse_nodeset, parse_size
from vpmem_driver.sizes import GRANULE, KIB, LABEL_SIZE, MIB, MIN_LABEL_SIZE, least_size

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
    "memory_paths",
    "new_domain",
    "parse_integer",
    "parse_nodeset",
    "parse_size",
    "plug",
    "refresh",
    "relocate",
    "remove",
    "require_slots",
    "reserve",
    "rewrite",
    "sources",
    "uuid",
]
