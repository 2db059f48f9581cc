"""What a child process that wipes says to its parent."""

import io
import random
import types
from collections.abc import Iterator
from unittest import mock

from tests.fuzz import mutation
from tests.fuzz.finding import literal
from tests.fuzz.target import Target, words
from vpmem_driver import protocol
from vpmem_driver.engine import process
from vpmem_driver.engine.job import Job

SIZE = 1 << 20
_START = 4096
_STEP = 7


def hear(data: bytes, step: int) -> tuple[list[protocol.Event], bool]:
    """What a parent makes of `data`, read `step` bytes at a time: the events, and whether it understood all of them.

    It listens as an engine does: nothing after a verdict counts.
    """
    streams = types.SimpleNamespace(stdin=io.BytesIO(), stdout=io.BytesIO(), stderr=io.BytesIO())
    with mock.patch.object(process.subprocess, "Popen", return_value=streams):
        child = process.Worker(Job(uuid="u", name="n", size=SIZE, start=_START), [], b"")
    events = []
    try:
        for at in range(0, len(data), step):
            for event in child.events(data[at : at + step]):
                events.append(event)
                match event:
                    case protocol.Ready():
                        child.go()
                    case protocol.Wiped() | protocol.Failure():
                        return events, True
    except process.ProtocolError:
        return events, False
    return events, True


def check(events: list[protocol.Event]) -> None:
    """What a child may make its parent write down."""
    done = {"zero": _START, "verify": 0}
    for event in events:
        if isinstance(event, protocol.Progress):
            assert isinstance(events[0], protocol.Ready), "progress before ready"
            assert done[event.phase] <= event.bytes <= SIZE, f"{event.phase}: {done} to {event.bytes}"
            done[event.phase] = event.bytes
        elif isinstance(event, protocol.Wiped):
            assert done == {"zero": SIZE, "verify": SIZE}, f"wiped, with {done}"


class Fuzzed(Target):
    words = words(
        "event ready progress wiped failed phase zero verify bytes outcome reason"
        " busy in_use missing host media stopped"
        " 1048576"
    )
    max_bytes = 1 << 17

    def seeds(self) -> Iterator[bytes]:
        phases = [protocol.Progress("zero", SIZE), protocol.Progress("verify", SIZE)]
        some = [protocol.Progress("zero", 8192), protocol.Progress("zero", SIZE), protocol.Progress("verify", 1)]
        failures = [protocol.Failure(outcome, "reason") for outcome in protocol.FAILURES]
        ends = [[*phases, protocol.Wiped()], *([*some, failure] for failure in failures)]
        for end in ends:
            yield b"".join(map(protocol.encode, [protocol.Ready(), *end]))

    def run(self, data: bytes) -> None:
        whole = hear(data, 1 << 12)
        check(whole[0])
        if len(data) < 4096:
            assert hear(data, _STEP) == whole, "it depends on how the pipe cuts it"

    def shown(self, data: bytes) -> str:
        return f"hear({literal(data)}, {1 << 12})"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        return mutation.json_lines(data, chance, self.words, self.max_bytes)
