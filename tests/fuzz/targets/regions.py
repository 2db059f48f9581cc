"""Inventories of other hosts for ``vpmem plan``: what ``ndctl list --regions`` prints."""

import json
import random
from collections.abc import Iterator

from tests.fuzz import mutation
from tests.fuzz.finding import literal
from tests.fuzz.target import Target, words
from tests.ndctl_program import region
from vpmem_driver.planning import cutting, inventory
from vpmem_driver.sizes import GIB, MIB


def parsed(text: str) -> None:
    """Parse it, and cut the regions that are in it."""
    try:
        regions = inventory.parse(text)
    except ValueError:
        return
    for found in regions:
        assert 0 <= found.extent <= found.available <= found.size
        unit = cutting.unit(found.align, found.ways, GIB)
        cut = cutting.smallest(MIB, unit, GIB, cutting.Map.DEV)
        assert cut is None or (cut.raw % unit == 0 and MIB <= cut.guest <= cut.data <= cut.raw)


class Fuzzed(Target):
    words = words(
        """dev size align available_size max_available_extent type pmem blk state disabled numa_node iset_id mappings
        namespaces regions buses dimms region0 region1 uuid mode name daxregion devices chardev"""
    )

    def seeds(self) -> Iterator[bytes]:
        one, other = region(0, 8 * GIB, node=0, namespaces=[("a", GIB)]), region(1, GIB, mappings=[{}, {}])
        for shape in ([one, other], one, {"regions": [one, other], "dimms": []}, [{"provider": "b", "regions": [one]}]):
            yield json.dumps(shape).encode()

    def run(self, data: bytes) -> None:
        parsed(data.decode("utf-8", "replace"))

    def shown(self, data: bytes) -> str:
        return f"parsed({literal(data.decode('utf-8', 'replace'))})"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        return mutation.json_document(data, chance, self.words, self.max_bytes)
