"""``pmem_namespaces`` against what a host has and the ledger holds; and what is asked for with those labels."""

import json
import random
from collections.abc import Iterator
from typing import Annotated

import msgspec

from tests.fuzz import mutation
from tests.fuzz.target import Target, words
from tests.fuzz.targets import made
from vpmem_driver import ledger, model
from vpmem_driver.cli import common as arguments
from vpmem_driver.discovery import interface
from vpmem_driver.pool import labels, matching, requests
from vpmem_driver.pool.table import Table
from vpmem_driver.pool.view import View

#: In all. More take longer, but no longer for each.
MOST_ENTRIES = 100_000

_Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]


class Found(msgspec.Struct, array_like=True):
    """A namespace, as discovery may return it."""

    name: str | None
    uuid: str | None
    size: _Bytes = 1 << 30
    align: _Bytes = 2 << 20
    held: str | None = None  # the label that its owner got it under
    unusable: str | None = None


class Question(msgspec.Struct):
    """What is configured, what there is, and what is asked for.

    :ivar times: how often each entry is there, with the number in place of ``#``
    :ivar absent: namespaces that are not there, in an entry of their own
    """

    entries: list[str]
    found: list[Found] = []
    wanted: str = "A"
    owner: str = made.OWNERS[0]
    times: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    absent: Annotated[int, msgspec.Meta(ge=0, le=8000)] = 0
    leave_out_absent: bool = False


def answer(question: Question) -> None:
    """Do all that a pool does with labels, without a ledger."""
    if len(question.entries) * question.times > MOST_ENTRIES:
        return
    entries = [entry.replace("#", str(number)) for entry in question.entries for number in range(question.times)]
    entries += ["A:" + "|".join(f"absent{number}" for number in range(question.absent))] if question.absent else []
    config = labels.parse(entries)
    found = tuple({namespace.uuid: namespace for namespace in map(_namespace, question.found)}.values())
    held = {interface.canonical_uuid(each.uuid): each.held for each in question.found if each.held}
    rows = {ns.uuid: _row(ns, held[ns.uuid]) for ns in found if ns.uuid in held and ns.unusable is None}
    warnings: list[str] = []
    label_of = matching.match(config, found, rows, leave_out_absent=question.leave_out_absent, warn=warnings.append)
    config, label_of = matching.keep_held(config, label_of, rows.values(), warnings.append)
    view = View(config, found, {ns.uuid: ns for ns in found if ns.unusable is None}, label_of)
    view.records(rows.values())
    table = Table(view, list(rows.values()), 0)
    label_ids = requests.label_ids(config, arguments.labels(question.wanted))
    table.inventory()
    table.shortage(label_ids)
    requests.owner(question.owner)
    table.choose(label_ids)


def _namespace(found: Found) -> model.Namespace:
    uuid = interface.canonical_uuid(found.uuid)
    return model.Namespace(
        uuid=uuid,
        name=found.name,
        size=found.size,
        align=found.align,
        numa_node=None,
        mode="devdax",
        device="/dev/dax0.0",
        pmem=True,
        unusable=found.unusable if found.name and uuid and found.size and found.align else "it lacks something",
    )


def _row(namespace: model.Namespace, label: str) -> ledger.Row:
    values = dict.fromkeys(ledger.Row.__struct_fields__)
    values |= {name: getattr(namespace, name) for name in model.Namespace.__struct_fields__ if name in values}
    values |= {"state": model.State.CLAIMED, "owner": made.OWNERS[1], "position": 0, "label": label}
    return ledger.Row(**values | {"begun": False, "wiped": 0, "changed": 1})


class Fuzzed(Target):
    words = (
        *words("A B 4GB a 4-GB 4_gb : | , A:ns0 B:ns1|ns2 ns0 ns1 ns2 # A:ns#"),
        *words("leave_out_absent times wanted owner found entries absent"),
        *(*made.UUIDS[:3], made.UUIDS[0].upper()),
    )
    max_bytes = 1 << 17

    def seeds(self) -> Iterator[bytes]:
        found = [[f"ns{number}", made.UUIDS[number]] for number in range(3)]
        for entries, wanted in ((["A:ns0|ns1"], "A"), (["A:ns0", "B:ns1", "A:ns2"], "A,B,A"), (["B:ns2"], "b")):
            yield json.dumps({"entries": entries, "found": found, "wanted": wanted}).encode()
        held = [[*each, 64 << 20, 2 << 20, "OLD"] for each in found]
        yield json.dumps({"entries": ["A:ns0|ns9"], "found": held, "wanted": "OLD", "leave_out_absent": True}).encode()
        names = [[f"ns{number}", f"00000000-0000-0000-0000-{number + 1:012}"] for number in range(200)]
        yield json.dumps({"entries": ["L#:ns#"], "times": 200, "found": names, "wanted": "L1"}).encode()
        many = "A:" + "|".join(name for name, _ in names)
        yield json.dumps({"entries": [many], "found": names}).encode()
        yield json.dumps({"entries": ["A:ns0"], "found": found, "absent": 1500, "leave_out_absent": True}).encode()

    def run(self, data: bytes) -> None:
        try:
            question = msgspec.json.decode(data, type=Question)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        answer(question)

    def shown(self, data: bytes) -> str:
        return f"answer({msgspec.json.decode(data, type=Question)!r})"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        return mutation.json_document(data, chance, self.words, self.max_bytes)
