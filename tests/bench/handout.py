"""The set that the driver hands to Nova's resource tracker: ``free = provided - assigned``, ``free.pop()``."""

import copy
import itertools
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
    """Ours, with its ledger, which has owners for half of them. Each pick is forgotten at once, as if it were claimed.

    ``ledger changed``: when all that may be handed out has to be looked up again.
    """
    from bench import novas

    picks = []

    def made(resources: list) -> typing.Any:
        host, _pool = _host([resource.identifier for resource in resources])
        picks.append(host._picks)
        return host.resources(resources[0].provider_uuid)[novas.CLASSES[0]]

    _measure(measure, made, lambda picked: [one.forget([picked.identifier]) for one in picks])
    for size in SIZES:
        host, pool = _host([f"ns{2 * number}" for number in range(size)])
        pool.last_move = itertools.count().__next__
        provided = host.resources(str(uuid.uuid4()))[novas.CLASSES[0]]
        measure.calls(f"{size}, ledger changed", max(1, 64 // size), lambda provided=provided: provided - set())


def _host(names: list[str]) -> tuple[typing.Any, Pool]:
    """A host that has the namespaces `names` under the first label, the first half of them held."""
    from vpmem_driver.nova.host import HostPool

    with hosts.in_memory() as state_path:
        options = hosts.configured(2 * len(names), state_path)
        options.set_override("pmem_namespaces", [f"{hosts.LABELS[0]}:{'|'.join(names)}"], group="libvirt")
        text = hosts.listing(2 * len(names))
        pool = Pool.from_conf(options, source=NdctlDiscovery(run=lambda: text), domains=Domains(None))
        held = set(names[: len(names) // 2])
        pool.adopt(str(uuid.uuid4()), [record.uuid or "" for record in pool.records() if record.name in held])
    return HostPool(pool, 1), pool


def nova(measure: Measure) -> None:
    """A plain set."""
    _measure(measure, set, lambda picked: None)


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
