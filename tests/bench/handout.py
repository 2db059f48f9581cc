"""The set that the driver hands to Nova's resource tracker: ``free = provided - assigned``, ``free.pop()``."""

import copy
import typing
import uuid
from collections.abc import Callable

from bench.measure import Measure
from bench.rows import Row, Target

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
    """Ours. What is taken has no rank; each pick is claimed at once, as far as the set is concerned."""
    from bench import novas  # noqa: F401  first: it registers Nova's objects

    from vpmem_driver.nova.resources import HandOut, Picks

    picks = Picks()

    def made(resources: list) -> HandOut:
        free = resources[len(resources) // 2 :]
        return HandOut(resources, {one.identifier: rank for rank, one in enumerate(free)}, picks)

    _measure(measure, made, lambda picked: picks.forget([picked.identifier]))


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
