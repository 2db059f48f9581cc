"""What the driver hands to Nova's resource tracker, ``free = provided - assigned; free.pop()``; and a whole claim."""

import copy
import functools
import time
import types
import typing
import uuid
from collections.abc import Callable

from bench import hosts
from bench.measure import Measure
from bench.rows import Row, Target

from vpmem_driver.discovery.ndctl import NdctlDiscovery
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import Pool

SIZES = (8, 64, 512, 4096)


def _measure(measure: Measure, made: Callable[[list], typing.Any], given_back: Callable[[typing.Any], object]) -> None:
    """As RT does it: what it subtracts from is a copy of what was handed in, and so is what it has assigned.

    ``same objects``: when they are the very ones instead, which is kinder to a plain set: nothing has to be compared.
    ``with RT's copy``: including the deep copy that it makes of all resources for each claim.
    """
    from bench import novas

    for size in SIZES:
        node = str(uuid.uuid4())
        resources = [novas.resource(node, 2 * number) for number in range(size)]
        provided, taken = made(resources), set(resources[: size // 2])
        assigned = copy.deepcopy(taken)
        loops = max(1, 512 // size)

        def pick(provided=provided, assigned=assigned) -> None:
            given_back((provided - assigned).pop())

        def pick_kindly(provided=provided, taken=taken) -> None:
            given_back((provided - taken).pop())

        def pick_from_copy(provided=provided, assigned=assigned) -> None:
            given_back((copy.deepcopy(provided) - assigned).pop())

        measure.calls(size, loops, pick)
        measure.calls(f"{size}, same objects", loops * 8, pick_kindly)
        measure.calls(f"{size}, with RT's copy", max(1, loops // 8), pick_from_copy)


def ours(measure: Measure) -> None:
    """Ours, with its ledger, which has owners for half of them. Each pick is forgotten, as if it were claimed."""
    from bench import novas

    picks = []

    def made(resources: list) -> typing.Any:
        host = _host([resource.identifier for resource in resources])
        picks.append(host._picks)
        return host.resources(resources[0].provider_uuid)[novas.CLASSES[0]]

    _measure(measure, made, lambda picked: [one.forget([picked.identifier]) for one in picks])


def _host(names: list[str]) -> typing.Any:
    """A host that has the namespaces `names` under the first label, the first half of them held."""
    from vpmem_driver.nova.host import HostPool

    with hosts.in_memory() as state_path:
        options = hosts.configured(2 * len(names), state_path)
        options.set_override("pmem_namespaces", [f"{hosts.LABELS[0]}:{'|'.join(names)}"], group="libvirt")
        text = hosts.listing(2 * len(names))
        pool = Pool.from_conf(options, source=NdctlDiscovery(run=lambda: text), domains=Domains(None))
        held = set(names[: len(names) // 2])
        pool.adopt(str(uuid.uuid4()), [record.uuid or "" for record in pool.records() if record.name in held])
    return HostPool(pool, 1)


def nova(measure: Measure) -> None:
    """A plain set."""
    _measure(measure, set, lambda picked: None)


def whole_claim(measure: Measure) -> None:
    """The tracker's claim from the driver's sets, and the driver's claim of what was picked; then both are released."""
    from bench import novas

    from vpmem_driver.nova.host import HostPool

    for size in SIZES:
        with hosts.in_memory() as state_path:
            pool = hosts.half_taken(size, state_path)
            host, node = HostPool(pool, 1), str(uuid.uuid4())
            resources = host.resources(node)
            held = {record.name for record in pool.records() if record.owner is not None}
            assigned = [one for made in resources.values() for one in made if one.identifier in held]
            tracker, allocations = novas.tracker_of(node, resources, assigned)
            measure.timed(size, 8 if size < 4096 else 2, functools.partial(_claims, pool, host, tracker, allocations))
            pool.close()


def _claims(pool: Pool, host: typing.Any, tracker: typing.Any, allocations: typing.Any, loops: int) -> float:
    seconds = 0.0
    for _ in range(loops):
        hosts.have_clean(pool)
        instance = types.SimpleNamespace(uuid=str(uuid.uuid4()))
        start = time.perf_counter()
        picked = tracker._claim_resources(allocations)
        host.claim(instance, [resource.identifier for resource in picked], rebuilding=False)
        pool.release(instance.uuid)
        tracker._release_assigned_resources(picked)
        seconds += time.perf_counter() - start
    return seconds


def nova_whole_claim(measure: Measure) -> None:
    """The tracker's claim and release from plain sets; in-tree the driver does nothing for them."""
    from bench import novas

    for size in SIZES:
        tracker, allocations = novas.tracker(size)
        claimed = functools.partial(novas.claim_and_release, tracker, allocations)
        measure.calls(size, max(1, 16 // size), claimed)


ROW = Row(
    name="hand-out",
    work="the set for Nova's resource tracker: free = provided - assigned, pop; N namespaces, half assigned",
    kinds={"ours": ours, "nova": nova},
    targets=(
        *(Target(case=str(size), against="nova", most=1) for size in SIZES),
        *(Target(case=f"{size}, with RT's copy", against="nova", most=1) for size in SIZES),
        Target(case="4096", against="nova", least=5),
    ),
)

CLAIM_ROW = Row(
    name="nova-claim",
    work="Nova's claim of 2 and their release: the tracker with its copy; ours with discovery and ledger, on tmpfs",
    kinds={"ours": whole_claim, "nova": nova_whole_claim},
    targets=(*(Target(case=str(size), against="nova", most=1) for size in SIZES if size > 8),),
)
