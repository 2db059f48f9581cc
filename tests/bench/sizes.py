"""Memory for each namespace."""

import gc
import tracemalloc
import uuid

from bench import claim
from bench.measure import Measure
from bench.rows import Row, Target

SIZE = 1_000_000
#: Each of Nova's objects is as large as the next; a million would not fit.
NOVA_SIZE = 10_000


def ours(measure: Measure) -> None:
    """What the allocator has given for the table."""
    tracemalloc.start()
    made = claim.table(SIZE)
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    del made
    measure.values(SIZE, [kept / SIZE], "byte")


def nova(measure: Measure) -> None:
    """What nova-compute keeps: the driver's devices, and a Resource and device in each of two provider trees.

    One tree is the resource tracker's, the other the driver's own copy of it (LibvirtDriver.update_provider_tree).
    """
    from bench import novas

    node = str(uuid.uuid4())
    novas.resource(node, 0)
    tracemalloc.start()
    made = [novas.resource(node, number) for number in range(NOVA_SIZE)]
    by_name = {resource.identifier: resource.metadata for resource in made}
    trees = novas.trees(node, made)
    del made
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    assert len(by_name) == NOVA_SIZE
    assert len(trees) == 2
    measure.values(SIZE, [kept / NOVA_SIZE], "byte")


ROW = Row(
    name="memory",
    work="memory per namespace, bytes",
    kinds={"ours": ours, "nova": nova},
    targets=(
        Target(case=str(SIZE), against=1.0, most=100),
        Target(case=str(SIZE), against="nova", least=50),
    ),
    rounds=1,
)
