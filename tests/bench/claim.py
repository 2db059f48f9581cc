"""Claim of two labels and their release, in memory, on a host of which half is taken."""

import collections
import functools
import time
import uuid
from collections.abc import Callable

from bench import limits
from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver import _fastalloc

SIZES = (8, 64, 512, 4096, 100_000, 1_000_000)
#: Nova's objects for more would take minutes to be made.
NOVA_SIZES = tuple(size for size in SIZES if size <= 4096)
NUMA_SIZES = (64, 512, 4096, 100_000)
NODES = 8
LOOPS = 8_000
GIB = 1 << 30


def table(count: int, nodes: int = 1) -> _fastalloc.NamespaceTable:
    """Two labels in turn, half of each taken, the rest as a release leaves it; of mixed sizes on several nodes."""
    places = range(count)
    taken = [place // (2 * nodes) % 2 == 0 for place in places]
    return _fastalloc.NamespaceTable(
        [place % 2 for place in places],
        [(1 + (place // 7) % 4 if nodes > 1 else 4) * GIB for place in places],
        [place // 2 % nodes for place in places],
        [f"ns{place}" for place in places],
        [_fastalloc.CLAIMED if is_taken else _fastalloc.DIRTY for is_taken in taken],
        [str(uuid.uuid4()) if is_taken else None for is_taken in taken],
    )


def _pair(claim: Callable[..., object], release: Callable[[str], object]) -> Callable[[int], float]:
    owner, labels = str(uuid.uuid4()), [0, 1]

    def run(loops: int) -> float:
        start = time.perf_counter()
        for _ in range(loops):
            claim(owner, labels)
            release(owner)
        return time.perf_counter() - start

    return run


def _pair_on_nodes(claim: Callable[..., object], release: Callable[[str], object]) -> Callable[[int], float]:
    owner, labels = str(uuid.uuid4()), [0, 1]

    def run(loops: int) -> float:
        start = time.perf_counter()
        for _ in range(loops // NODES):
            for node in range(NODES):
                claim(owner, labels, node)
                release(owner)
        return time.perf_counter() - start

    return run


def ours(measure: Measure) -> None:
    """The compiled table."""
    for size in SIZES:
        made = table(size)
        measure.timed(size, LOOPS, _pair(made.claim, made.release))


def limit(measure: Measure) -> None:
    """Two empty calls of the same signatures."""
    empty = limits.load().Empty()
    for size in SIZES:
        measure.timed(size, LOOPS, _pair(empty.claim, empty.release))


def model(measure: Measure) -> None:
    """The simplest thing in Python: a deque of free ones for each label, and a dict of owners. No order, no checks."""
    for size in SIZES:
        free = [collections.deque(range(label, size // 2, 2)) for label in range(2)]
        held: dict[str, list[tuple[int, int]]] = {}

        def claim(owner: str, labels: list[int], free=free, held=held) -> None:
            held[owner] = [(label, free[label].popleft()) for label in labels]

        def release(owner: str, free=free, held=held) -> None:
            for label, index in held.pop(owner):
                free[label].append(index)

        measure.timed(size, LOOPS // 2, _pair(claim, release))


def nova(measure: Measure) -> None:
    """Nova's resource tracker, its own methods, without the deep copy of all resources that it makes for each claim."""
    from bench import novas

    for size in NOVA_SIZES:
        tracker, allocations = novas.tracker(size, copies=False)
        measure.calls(size, 50 if size < 4096 else 20, functools.partial(novas.claim_and_release, tracker, allocations))


def nova_whole(measure: Measure) -> None:
    """The same with the copy: what a claim costs in nova-compute."""
    from bench import novas

    for size in NOVA_SIZES[:3]:
        tracker, allocations = novas.tracker(size, copies=True)
        measure.calls(size, max(1, 16 // size), functools.partial(novas.claim_and_release, tracker, allocations))


def numa(measure: Measure) -> None:
    """A wanted node, each of the eight in turn; and none, so that one node for the whole request is looked for."""
    for size in NUMA_SIZES:
        made = table(size, NODES)
        measure.timed(size, LOOPS, _pair_on_nodes(made.claim, made.release))
        measure.timed(f"{size}, any node", LOOPS, _pair(made.claim, made.release))


ROW = Row(
    name="claim",
    work="claim of 2 labels + release in memory, half taken; N namespaces",
    kinds={"ours": ours, "nova": nova, "nova whole": nova_whole, "model": model, "limit": limit},
    targets=(
        Target(case="64", against="nova", least=100),
        Target(case="4096", against="nova", least=400),
        *(Target(case=str(size), against="limit", most=8) for size in SIZES),
        Target(case="1000000", against="claim/64/ours", most=2),
    ),
)

NUMA_ROW = Row(
    name="numa",
    work="the same with a wanted NUMA node of 8, and mixed sizes",
    kinds={"ours": numa},
    targets=(*(Target(case=str(size), against=f"claim/{size}/ours", most=2) for size in NUMA_SIZES),),
)
