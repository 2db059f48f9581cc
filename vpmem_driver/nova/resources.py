"""The set of namespaces that Nova's resource tracker picks from, handed out in our order.

For each class that a claim asks for, the tracker does ``free = provided - assigned`` and then ``free.pop()``; when the
whole claim has succeeded it adds what it picked to `assigned` (ResourceTracker._claim_resources, Nova 31-34). All of
that happens under its lock.
"""

import dataclasses
import logging
import typing
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from nova import objects

from vpmem_driver import exception

LOG = logging.getLogger(__name__)

Assigned = AbstractSet[objects.Resource]


@dataclasses.dataclass(slots=True)
class _Pick:
    """One namespace that was picked.

    :ivar into: the tracker's set that has it when the claim succeeds; None when the tracker uses another set by now
    """

    resource_class: str
    into: "weakref.ref[Assigned] | None"


class Picks:
    """What the tracker has picked, and the ledger does not have yet. Shared by all sets of one host.

    The tracker removes from its set what is given back. So a pick that is not in the set that it went into was given
    back, or its claim failed half way. But each periodic update replaces these sets with new ones, made from Nova's
    database, and loses a claim that is not recorded there yet: a pick whose set was replaced stays out until Nova's
    records say that nothing uses it (:meth:`forgotten`).
    """

    def __init__(self) -> None:
        self._picks: dict[str, _Pick] = {}

    def note(self, resource: objects.Resource, assigned: Assigned) -> None:
        """`resource` was picked; the tracker will add it to `assigned`."""
        self._picks[resource.identifier] = _Pick(resource.resource_class, weakref.ref(assigned))

    def forget(self, identifiers: Iterable[str]) -> None:
        """They are claimed in the ledger now, or nothing uses them."""
        for identifier in identifiers:
            self._picks.pop(identifier, None)

    def under_way(self, resource_class: str, assigned: Assigned, names: Collection[str]) -> set[str]:
        """What must not be offered to a claim that starts now, and has picked nothing of this class yet.

        :param assigned: the tracker's current set for the class
        :param names: the identifiers that are in it
        """
        for identifier, pick in self._picks.copy().items():
            if pick.resource_class != resource_class:
                continue
            if identifier in names:
                pick.into = weakref.ref(assigned)
            elif pick.into is not None and pick.into() is assigned:
                self.forget([identifier])
            else:
                pick.into = None
        return set(self._picks)

    def forgotten(self) -> frozenset[str]:
        """The picks whose set the tracker has replaced: whether they are given back must be looked up elsewhere."""
        return frozenset(
            identifier for identifier, pick in self._picks.copy().items() if pick.into is None or pick.into() is None
        )


class Offers:
    """What may be handed out, by resource class; looked up again whenever the ledger has changed."""

    def __init__(
        self, last_move: Callable[[], int], look: Callable[[], Mapping[str, Sequence[objects.Resource]]]
    ) -> None:
        """Look up nothing yet.

        :param last_move: returns the id of the newest line in the ledger's history
        :param look: returns what is free, the first one to hand out first
        """
        self._last_move = last_move
        self._look = look
        self._seen: int | None = None
        self._found: Mapping[str, Sequence[objects.Resource]] = {}

    def now(self, resource_class: str) -> Sequence[objects.Resource]:
        """What is free of one class; nothing when the ledger cannot be read."""
        try:
            last_move = self._last_move()
            if last_move != self._seen:
                self._found, self._seen = self._look(), last_move
        except exception.VPMEMError as error:
            LOG.error("No namespace of %s is handed out: %s", resource_class, error)
            return ()
        return self._found.get(resource_class, ())


class HandOut(frozenset[objects.Resource]):
    """All Resource objects of one class on a host. What of them may be handed out is asked for when a claim starts.

    A value: nobody changes it, nor what is in it. So a copy is the set itself; the tracker makes one for each claim.
    """

    _resource_class: str
    _offer: Callable[[], Sequence[objects.Resource]]
    _picks: Picks

    def __new__(
        cls,
        resource_class: str,
        resources: Iterable[objects.Resource],
        offer: Callable[[], Sequence[objects.Resource]],
        picks: Picks,
    ) -> typing.Self:
        """Make a set.

        :param offer: returns what is free now, the first one to hand out first
        """
        made = super().__new__(cls, resources)
        made._resource_class = resource_class
        made._offer = offer
        made._picks = picks
        return made

    def __deepcopy__(self, memo: dict[int, typing.Any]) -> "HandOut":
        return self

    def __copy__(self) -> "HandOut":
        return self

    def __sub__(self, assigned: AbstractSet[typing.Any]) -> "Free":  # type: ignore[override]
        """What may be handed out now. Compares identifiers: a device path on record may be an old one."""
        names = {resource.identifier for resource in assigned}
        taken = names | self._picks.under_way(self._resource_class, assigned, names)
        free = [resource for resource in self._offer() if resource.identifier not in taken]
        return Free(reversed(free), assigned, self._picks)


class Free(list[objects.Resource]):
    """What may be handed out, the first one last."""

    def __init__(self, resources: Iterable[objects.Resource], assigned: Assigned, picks: Picks) -> None:
        super().__init__(resources)
        self._assigned = assigned
        self._picks = picks

    def pop(self) -> objects.Resource:  # type: ignore[override]
        """Take the first one out, and note that it was picked."""
        first = super().pop()
        self._picks.note(first, self._assigned)
        return first
