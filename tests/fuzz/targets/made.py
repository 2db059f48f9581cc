"""A made host with six namespaces, and the ledger that goes with it."""

import functools
import uuid

from vpmem_driver import model
from vpmem_driver.discovery import base

UUIDS = tuple(str(uuid.UUID(int=0x854ABF5C_E586_11F1_93CC_000000000000 + number)) for number in range(6))
OWNERS = tuple(str(uuid.UUID(int=number << 64)) for number in (1, 2))
MIB = 1 << 20


def namespace(number: int) -> model.Namespace:
    return model.Namespace(
        uuid=UUIDS[number],
        name=f"ns{number}",
        size=64 * MIB,
        align=2 * MIB,
        numa_node=number % 2,
        mode="devdax",
        device=f"/dev/dax0.{number}",
        pmem=True,
    )


class Source(base.Discovery):
    """The made host as it is discovered."""

    name = "made"

    def namespaces(self) -> tuple[model.Namespace, ...]:
        return _namespaces()

    def options(self) -> dict[str, str]:
        return {}


@functools.cache
def _namespaces() -> tuple[model.Namespace, ...]:
    return tuple(namespace(number) for number in range(len(UUIDS)))
