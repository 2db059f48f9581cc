"""What a child process that wipes is told by whoever started it."""

import os
import random
from collections.abc import Iterator

from tests.fuzz import mutation
from tests.fuzz.finding import literal
from tests.fuzz.target import Target, words
from tests.fuzz.targets import made
from vpmem_driver import discovery, layout, protocol
from vpmem_driver.worker.parent import Parent, Stopped


def listen(data: bytes) -> None:
    """Do with `data` what the child does before it looks at the host."""
    requests = os.memfd_create("requests")
    try:
        os.write(requests, data)
        os.lseek(requests, 0, os.SEEK_SET)
        parent = Parent(requests, requests)
        task = protocol.decode_task(parent.line())
        assert protocol.decode_task(protocol.encode(task)) == task, "written and read again"
        assert min(task.start, task.threads, task.rate, task.size) >= 0, "a negative number"
        discovery.make(task.discovery, **task.options)
        parent.line()
    finally:
        os.close(requests)


class Fuzzed(Target):
    words = words(
        "job wipe send receive copy parts length pack source source_size uuid discovery options start threads rate "
        "size ndctl sysfs directory root name self / /sys /mnt go"
    )
    # The protocol's own: a line that is no task ends the child, before it has looked for the namespace.
    typed = (Stopped, *protocol.NOT_UNDERSTOOD)
    max_bytes = 1 << 17

    def seeds(self) -> Iterator[bytes]:
        numbers = {"start": 0, "threads": 2, "rate": 0, "size": 1 << 21}
        for name, options in (("ndctl", {}), ("sysfs", {"root": "/s"}), ("directory", {"directory": "/mnt/pmem"})):
            task = protocol.Task(uuid=made.UUIDS[0], discovery=name, options=options, **numbers)
            yield protocol.encode(task) + protocol.GO + b"\n"
        common = {"uuid": made.UUIDS[0], "discovery": "sysfs", "options": {}, **numbers}
        parts = (layout.Part(0, 0, 1 << 20), layout.Part(1 << 20, 3 << 20, 1 << 20))
        for copy in (
            protocol.SendTask(**common, parts=parts, length=4 << 20, pack=True),
            protocol.ReceiveTask(**common),
            protocol.CopyTask(**common, source=made.UUIDS[1], source_size=2 << 20, parts=parts),
        ):
            yield protocol.encode(copy) + protocol.GO + b"\n"

    def run(self, data: bytes) -> None:
        listen(data)

    def shown(self, data: bytes) -> str:
        return f"listen({literal(data)})"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        return mutation.json_lines(data, chance, self.words, self.max_bytes)
