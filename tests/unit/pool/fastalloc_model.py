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
    owner: str | None


class TableModel:
    """The table as a list of rows."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = [dataclasses.replace(row) for row in rows]
        self.rings: dict[str, list[int]] = collections.defaultdict(list)
        order = sorted(range(len(self.rows)), key=lambda index: (self.rows[index].size, self.rows[index].name, index))
        self.rank = {index: rank for rank, index in enumerate(order)}
        for index, row in enumerate(self.rows):
            check(row.state, row.owner)
            if row.owner is not None:
                self.rings[row.owner].append(index)

    def is_free(self, index: int) -> bool:
        return self.rows[index].owner is None and self.rows[index].state in {CLEAN, DIRTY, UNKNOWN}

    def free_of(self, label: int) -> list[int]:
        return [index for index, row in enumerate(self.rows) if row.label == label and self.is_free(index)]

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

    def choose(self, labels: Sequence[int], node: int) -> tuple[int, ...] | None:
        return min(self.choices(labels, node), key=lambda chosen: self.key(chosen, node), default=None)

    def claim(self, owner: str, labels: Sequence[int], node: int) -> tuple[int, ...] | None:
        if node < -1 or not labels or min(labels) < 0:
            raise ValueError
        chosen = self.choose(labels, node)
        if chosen is not None:
            self.claim_exact(owner, chosen)
        return chosen

    def claim_exact(self, owner: str, indices: Sequence[int]) -> None:
        self.check_range(indices)
        if len(set(indices)) < len(indices) or not all(self.is_free(index) for index in indices):
            raise ValueError
        for index in indices:
            row = self.rows[index]
            row.state, row.owner = CLAIMED if row.state == CLEAN else DIRTY, owner
            self.rings[owner].append(index)

    def release(self, owner: str) -> tuple[int, ...]:
        indices = self.held(owner)
        self.release_exact(owner, indices)
        return indices

    def release_exact(self, owner: str, indices: Sequence[int]) -> None:
        self.check_range(indices)
        if len(set(indices)) < len(indices) or not set(indices) <= set(self.rings[owner]):
            raise ValueError
        for index in indices:
            self.put(index, DIRTY, None)

    def put(self, index: int, state: int, owner: str | None) -> None:
        self.check_range([index])
        check(state, owner)
        row = self.rows[index]
        if row.owner != owner:
            if row.owner is not None:
                self.rings[row.owner].remove(index)
            if owner is not None:
                self.rings[owner].append(index)
        row.state, row.owner = state, owner

    def held(self, owner: str) -> tuple[int, ...]:
        return tuple(self.rings[owner])

    def counts(self, label: int) -> tuple[int, ...]:
        kinds = [row.state if row.owner is None else CLAIMED for row in self.rows if row.label == label]
        return tuple(kinds.count(kind) for kind in range(5))

    def shortage(self, labels: Sequence[int]) -> dict[int, tuple[int, int]]:
        both = {label: (labels.count(label), len(self.free_of(label))) for label in labels}
        return {label: (wanted, free) for label, (wanted, free) in both.items() if wanted > free}

    def check_range(self, indices: Sequence[int]) -> None:
        if not all(0 <= index < len(self.rows) for index in indices):
            raise IndexError


class ByNodeModel(TableModel):
    """For tables and requests that are too large to try every set of namespaces: tries every set of nodes."""

    def choose(self, labels: Sequence[int], node: int) -> tuple[int, ...] | None:
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

    def choose(self, labels: Sequence[int], node: int) -> tuple[int, ...] | None:
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


def check(state: int, owner: str | None) -> None:
    """Fail unless a namespace can have that state and owner."""
    allowed = {CLAIMED, DIRTY} if owner is not None else {CLEAN, DIRTY, UNKNOWN, UNAVAILABLE}
    if state not in allowed:
        raise ValueError


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
