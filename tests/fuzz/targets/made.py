"""A made host with six namespaces."""

import json
import uuid

from tests.unit.discovery import hosts
from vpmem_driver.discovery import ndctl
from vpmem_driver.sizes import MIB

UUIDS = tuple(str(uuid.UUID(int=0x854ABF5C_E586_11F1_93CC_000000000000 + number)) for number in range(6))
OWNERS = tuple(str(uuid.UUID(int=number << 64)) for number in (1, 2))

_SLOTS = [
    hosts.Slot(name=f"ns{at}", uuid=each, size=64 * MIB, align=2 * MIB, node=at % 2, number=at, claim=at)
    for at, each in enumerate(UUIDS)
]
_LISTING = json.dumps([slot.json() for slot in _SLOTS])

#: In the order of UUIDS: ns0 is /dev/dax0.0.
NAMESPACES = ndctl.parse(_LISTING)


def source() -> ndctl.NdctlDiscovery:
    """Discovers the made host."""
    return ndctl.NdctlDiscovery(lambda: _LISTING)
