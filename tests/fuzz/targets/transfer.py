"""What the two sides of a transfer say to each other."""

import os
import random
from collections.abc import Iterator

from tests.fuzz import mutation
from tests.fuzz.finding import literal
from tests.fuzz.target import Target, words
from tests.fuzz.targets import made
from vpmem_driver.transfer import messages


def listen(data: bytes) -> None:
    """Decode each line as a message of either side."""
    fd = os.memfd_create("messages")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        while (line := messages.read_line(fd)) is not None:
            for decode in (messages.decode_from_sender, messages.decode_from_receiver):
                try:
                    message = decode(line)
                except messages.Garbled:
                    continue
                assert decode(messages.encode(message)) == message, "written and read again"
    finally:
        os.close(fd)


class Fuzzed(Target):
    words = words(
        "message offer begin abandon accepted refused ready progress received failed abandoned version copy owner name "
        "namespaces label size align namespace index uuid device pmem complete reason start phase verify done retry"
    )
    typed = (messages.Garbled,)
    max_bytes = 1 << 12  # it is read byte by byte

    def seeds(self) -> Iterator[bytes]:
        offered = messages.Offered(name="ns0", label="4GB", size=1 << 32, align=1 << 21)
        expecting = messages.Expecting(
            uuid=made.UUIDS[1], name="ns1", size=1 << 32, align=1 << 21, device="/dev/dax0.0", pmem=True, complete=False
        )
        conversation = (
            messages.Offer(version=1, copy="00c0ffee", owner=made.UUIDS[0], namespaces=(offered,)),
            messages.Accepted((expecting,)),
            messages.Begin(0),
            messages.Ready(1 << 20),
            messages.Progress("copy", 1 << 20),
            messages.Received(),
            messages.Failed("the stream ended early", retry=True),
            messages.Refused("no"),
            messages.Abandon(copy="00c0ffee", owner=made.UUIDS[0]),
            messages.Abandoned(),
        )
        yield b"".join(map(messages.encode, conversation))

    def run(self, data: bytes) -> None:
        listen(data)

    def shown(self, data: bytes) -> str:
        return f"listen({literal(data)})"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        return mutation.json_lines(data, chance, self.words, self.max_bytes)
