"""What ``ndctl list`` prints."""

import json
import random
from collections.abc import Iterator

from tests.fuzz import mutation
from tests.fuzz.finding import literal
from tests.fuzz.target import Target, words
from tests.fuzz.targets import checks
from tests.unit.discovery import hosts
from vpmem_driver.discovery import ndctl


class Fuzzed(Target):
    words = words(
        """dev mode size uuid name daxregion devices chardev align state numa_node target_node namespaces regions buses
        dimms namespace0.0 region0 devdax disabled system-ram fsdax dax0.0 00000000-0000-0000-0000-000000000000"""
    )

    def seeds(self) -> Iterator[bytes]:
        slots = [hosts.Slot(kind, region=number % 2) for number, kind in enumerate(["devdax", *hosts.UNUSABLE, "seed"])]
        said = [slot.json() for slot in slots]
        regions = [{"dev": "region0", "size": 1, "numa_node": 1, "namespaces": said[:2]}]
        shapes = (*([each] for each in said), {"namespaces": said[:2], "dimms": []}, [{"dev": "b", "regions": regions}])
        for shape in shapes:
            yield json.dumps(shape).encode()

    def run(self, data: bytes) -> None:
        # The program's output is decoded like this.
        found = ndctl.parse(data.decode("utf-8", "replace"), lambda _dev: 1)
        checks.discovered(found)

    def shown(self, data: bytes) -> str:
        return f"ndctl.parse({literal(data.decode('utf-8', 'replace'))})"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        return mutation.json_document(data, chance, self.words, self.max_bytes)
