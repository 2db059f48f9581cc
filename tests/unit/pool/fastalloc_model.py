"""What vpmem_driver._fastalloc must do, in plain Python: slow, and written from the definitions, not from its code."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

CLEAN, DIRTY, UNKNOWN, CLAIMED, UNAVAILABLE = range(5)
NOT_FOUND, AMBIGUOUS, REPEATED, TWO_LABELS = range(1, 5)


@dataclasses.dataclass
class Row:
    """One namespace."""

    label: int
    size: int
    node: int
    name: str
    state: int


class TableModel:
    """The table as a list of rows."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = [dataclasses.replace(row) for row in rows]
        order = sorted(range(len(self.rows)), key=lambda index: (self.rows[index].size, self.rows[index].name, index))
        self.rank = {index: rank for rank, index in enumerate(order)}

    def free_of(self, label: int) -> list[int]:
        return [index for index, row in enumerate(self.rows) if row.label == label and row.state <= UNKNOWN]

    def key(self, chosen: Sequence[int], node: int) -> tuple[object, ...]:
        """The lower, the better."""
        rows = [self.rows[index] for index in chosen]
        return (
            -sum(row.node == node for row in rows) if node != -1 else 0,
            len({row.node for row in rows}),
            sum(row.state == UNKNOWN for row in rows),
            sum(row.state == DIRTY for row in rows),
            sum(row.size for row in rows),
            [self.rank[index] for index in chosen],
        )

    def hand_out_key(self, index: int, node: int) -> tuple[bool, int, int]:
        return node == -1 or self.rows[index].node != node, self.rows[index].state, self.rank[index]

    def hand_out(self, chosen: Iterable[int], labels: Sequence[int], node: int) -> tuple[int, ...]:
        """A set of namespaces along the request."""
        ordered = sorted(chosen, key=lambda index: self.hand_out_key(index, node))
        by_label = {label: iter([i for i in ordered if self.rows[i].label == label]) for label in labels}
        return tuple(next(by_label[label]) for label in labels)

    def choices(self, labels: Sequence[int], node: int) -> Iterator[tuple[int, ...]]:
        """Every set of free namespaces that serves the request, good and bad."""
        wanted = collections.Counter(labels)
        for sets in itertools.product(*(itertools.combinations(self.free_of(one), wanted[one]) for one in wanted)):
            yield self.hand_out(itertools.chain(*sets), labels, node)

    def choose(self, labels: Sequence[int], node: int = -1) -> tuple[int, ...] | None:
        if node < -1 or not labels or min(labels) < 0:
            raise ValueError
        return self.best(labels, node)

    def best(self, labels: Sequence[int], node: int) -> tuple[int, ...] | None:
        return min(self.choices(labels, node), key=lambda chosen: self.key(chosen, node), default=None)

    def put(self, index: int, state: int) -> None:
        if not 0 <= index < len(self.rows):
            raise IndexError
        if not CLEAN <= state <= UNAVAILABLE:
            raise ValueError
        self.rows[index].state = state

    def counts(self, label: int) -> tuple[int, ...]:
        states = [row.state for row in self.rows if row.label == label]
        return tuple(states.count(state) for state in range(5))


class ByNodeModel(TableModel):
    """For tables and requests that are too large to try every set of namespaces: tries every set of nodes."""

    def best(self, labels: Sequence[int], node: int) -> tuple[int, ...] | None:
        nodes = {row.node for row in self.rows} - ({node} if node != -1 else set())
        for count in range(len(nodes) + 1):
            choices = [self.choose_from(set(some), labels, node) for some in itertools.combinations(nodes, count)]
            found = [chosen for chosen in choices if chosen is not None]
            if found:
                return min(found, key=lambda chosen: self.key(chosen, node))
        return None

    def choose_from(self, nodes: set[int], labels: Sequence[int], node: int) -> tuple[int, ...] | None:
        """The best from the wanted node and `nodes`; None if they have not enough."""
        allowed = nodes | ({node} if node != -1 else set())
        chosen: list[int] = []
        for label, wanted in collections.Counter(labels).items():
            free = [index for index in self.free_of(label) if self.rows[index].node in allowed]
            if len(free) < wanted:
                return None
            chosen += sorted(free, key=lambda index: self.hand_out_key(index, node))[:wanted]
        return self.hand_out(chosen, labels, node)


class GreedyModel(ByNodeModel):
    """For more nodes than every set of them is tried of: adds the node that has most of what is missing."""

    def best(self, labels: Sequence[int], node: int) -> tuple[int, ...] | None:
        wanted = collections.Counter(labels)
        others = sorted({row.node for row in self.rows} - ({node} if node != -1 else set()))
        one_node = [self.choose_from(some, labels, node) for some in (set(), *({other} for other in others))]
        found = [chosen for chosen in one_node if chosen is not None]
        if found:
            return min(found, key=lambda chosen: self.key(chosen, node))
        nodes: set[int] = set()
        while self.choose_from(nodes, labels, node) is None:
            gains = {other: self.gain(nodes, other, wanted, node) for other in others}
            best = max(others, key=lambda other: gains[other], default=None)  # the lowest of several
            if best is None or gains[best] == 0:
                return None
            nodes.add(best)
        return self.choose_from(nodes, labels, node)

    def gain(self, nodes: set[int], added: int, wanted: dict[int, int], node: int) -> int:
        """How many more of what is wanted there are with one more node."""
        allowed = nodes | ({node} if node != -1 else set())

        def served(some: set[int]) -> int:
            on_some = {label: sum(self.rows[i].node in some for i in self.free_of(label)) for label in wanted}
            return sum(min(count, on_some[label]) for label, count in wanted.items())

        return served(allowed | {added}) - served(allowed)


def match(
    names: Sequence[str | None], uuids: Sequence[str | None], entries: Sequence[tuple[int, str]]
) -> tuple[list[int], list[tuple[int, int]]]:
    """The model of :func:`vpmem_driver._fastalloc.match`."""
    labels = [-1] * len(names)
    problems = []
    for number, (label, text) in enumerate(entries):
        places = [index for index, uuid in enumerate(uuids) if uuid is not None and uuid.lower() == text.lower()]
        places = places or [index for index, name in enumerate(names) if name == text]
        if len(places) != 1:
            problems.append((AMBIGUOUS if places else NOT_FOUND, number))
        elif labels[places[0]] == -1:
            labels[places[0]] = label
        else:
            problems.append((REPEATED if labels[places[0]] == label else TWO_LABELS, number))
    return labels, problems
