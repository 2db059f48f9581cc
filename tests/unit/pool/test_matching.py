"""What is configured against what the host has: what is said of what does not fit, and in what time."""

import contextlib
import time
import tracemalloc
import uuid

import pytest

from vpmem_driver import exception, ledger, model
from vpmem_driver.pool import labels, matching
from vpmem_driver.sizes import MIB

ABSENT = 20_000


def namespace(name: str, **values: object) -> model.Namespace:
    made = {"uuid": str(uuid.uuid4()), "size": 64 * MIB, "align": 2 * MIB, "numa_node": 0, "mode": "devdax"}
    return model.Namespace(**made | {"name": name, "device": "/dev/dax0.0", "pmem": True} | values)


def row(found: model.Namespace, **values: object) -> ledger.Row:
    made = dict.fromkeys(ledger.Row.__struct_fields__)
    described = {name: getattr(found, name) for name in model.Namespace.__struct_fields__ if name in made}
    return ledger.Row(**made | described | {"state": model.State.UNKNOWN, "begun": False, "wiped": 0} | values)


def warnings(entries, found=(), rows=()) -> tuple[dict[str, int], list[str]]:
    told: list[str] = []
    matched = matching.match(
        labels.parse(entries), found, {row.uuid: row for row in rows}, leave_out_absent=True, warn=told.append
    )
    return matched, told


@contextlib.contextmanager
def few_seconds():
    """Far more than what is linear takes, and less than what was quadratic took."""
    started = time.process_time()
    yield
    assert time.process_time() - started < 5


def refusal(entries, found=()) -> str:
    with pytest.raises(exception.InvalidNamespaceConfig) as caught:
        matching.match(labels.parse(entries), found, {})
    return str(caught.value)


@pytest.mark.parametrize(
    "entries",
    [
        ["A:" + "|".join(f"absent{number}" for number in range(ABSENT))],
        [f"A{number}:absent{number}" for number in range(ABSENT)],
    ],
    ids=["one entry", "many entries"],
)
def test_20000_absent_names_take_22_seconds_and_11_gib(entries):
    found = [namespace(f"ns{number}") for number in range(100)]
    with few_seconds():
        matched, told = warnings(entries, found)
    tracemalloc.start()
    try:
        warnings(entries, found)
        assert tracemalloc.get_traced_memory()[1] < 100 * MIB
    finally:
        tracemalloc.stop()
    assert matched == {}
    assert len(told) == len(entries)
    assert max(map(len, told)) < 1000
    assert "absent0" in told[0]
    assert "Usable namespaces: ns0, ns1" in told[0]


def test_20000_missing_names_take_minutes():
    gone = [namespace(f"ns{number}") for number in range(ABSENT)]
    with few_seconds():
        matched, told = warnings(["A:" + "|".join(ns.name for ns in gone)], rows=map(row, gone))
    assert matched == dict.fromkeys([ns.uuid for ns in gone], 0)
    assert len(told) == ABSENT


def test_20000_unusable_namespaces_take_minutes():
    bad = [namespace(f"ns{number}", unusable="it is raw") for number in range(ABSENT)]
    with few_seconds():
        matched, told = warnings(["A:" + "|".join(ns.name for ns in bad)], bad)
    assert (matched, len(told)) == ({}, ABSENT)


def test_absent_names_are_counted_and_the_first_are_named():
    said = refusal(["A:ns0|x0|x1|x2|x3|x4|x5|x6|x7|x8"], [namespace("ns0")])
    assert "9 namespaces are not on this host: x0, x1, x2, x3, x4, x5, x6, x7, …. Usable namespaces: ns0." in said


def test_a_long_entry_is_shortened():
    said = refusal(["A:" + "x" * 100_000])
    assert len(said) < 500
    assert f"entry 'A:{'x' * 62}…'" in said


def test_an_unusable_namespace_with_a_capital_in_its_name_raises_stop_iteration():
    assert "namespace 'NS0' is unusable: it is raw" in refusal(["A:NS0"], [namespace("NS0", unusable="it is raw")])


def test_a_missing_namespace_is_known_by_its_uuid_in_capitals():
    gone = namespace("ns0")
    matched, told = warnings([f"A:{gone.uuid.upper()}"], rows=[row(gone)])
    assert matched == {gone.uuid: 0}
    assert "is in the ledger but not on this host" in told[0]


def test_what_is_held_keeps_its_label():
    held = [row(namespace("ns0"), owner="me", label=label) for label in ("NEW", "B", "new")]
    config, label_of = matching.keep_held(labels.parse(["A:x", "B:y"]), {held[1].uuid: 1}, held, lambda _: None)
    assert config.labels == ("A", "B", "NEW")
    assert label_of == {held[0].uuid: 2, held[1].uuid: 1, held[2].uuid: 2}
