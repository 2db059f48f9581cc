"""The sets of namespaces that Nova's resource tracker picks from, in the pool's order of choice.

For each class in a claim, the tracker runs ``free = provided - assigned`` and then ``free.pop()``. If the whole claim
succeeds, it adds the picks to `assigned` (ResourceTracker._claim_resources, Nova 31-34). It holds its lock throughout.
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
    """One namespace that the tracker picked.

    :ivar into: the tracker's set that receives it if the claim succeeds; None if the tracker has replaced that set
    """

    resource_class: str
    into: "weakref.ref[Assigned] | None"


class Picks:
    """Picks of the tracker that are not yet in the ledger. All sets of one host share them.

    The tracker removes returned namespaces from its set. So a pick that is absent from its set was returned, or its
    claim failed. But each periodic update builds new sets from Nova's database, and a claim that is not recorded there
    yet is lost. A pick whose set was replaced is therefore not offered until Nova's records show that nothing uses it
    (:meth:`uncertain`).
    """

    def __init__(self) -> None:
        self._picks: dict[str, _Pick] = {}

    def note(self, resource: objects.Resource, assigned: Assigned) -> None:
        """Record that `resource` was picked, and that the tracker is about to add it to `assigned`."""
        self._picks[resource.identifier] = _Pick(resource.resource_class, weakref.ref(assigned))

    def forget(self, identifiers: Iterable[str]) -> None:
        """Remove picks that are now claimed in the ledger, or that nothing uses."""
        for identifier in identifiers:
            self._picks.pop(identifier, None)

    def under_way(self, resource_class: str, assigned: Assigned, names: Collection[str]) -> set[str]:
        """Return the identifiers that must not be offered to a claim that has not picked from this class yet.

        :param assigned: the tracker's current set for the class
        :param names: the identifiers in that set
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

    def uncertain(self) -> frozenset[str]:
        """Return the picks whose set the tracker has replaced. Only Nova's records show whether they are in use."""
        return frozenset(
            identifier for identifier, pick in self._picks.copy().items() if pick.into is None or pick.into() is None
        )


class Offers:
    """The free namespaces by resource class. They are read again whenever the ledger has changed."""

    def __init__(
        self, last_move: Callable[[], int], look: Callable[[], Mapping[str, Sequence[objects.Resource]]]
    ) -> None:
        """Nothing is read before the first call of :meth:`now`.

        :param last_move: returns the id of the newest line in the ledger's history
        :param look: returns the free namespaces of each class in the order of choice
        """
        self._last_move = last_move
        self._look = look
        self._seen: int | None = None
        self._found: Mapping[str, Sequence[objects.Resource]] = {}

    def now(self, resource_class: str) -> Sequence[objects.Resource]:
        """Return the free namespaces of one class; none if the ledger cannot be read."""
        try:
            last_move = self._last_move()
            if last_move != self._seen:
                self._found, self._seen = self._look(), last_move
        except exception.VPMEMError as error:
            LOG.error("No namespace of %s is offered: %s", resource_class, error)
            return ()
        return self._found.get(resource_class, ())


class HandOut(frozenset[objects.Resource]):
    """All Resource objects of one class on a host. The free ones are determined when a claim starts.

    The set and its elements are immutable, so a copy is the set itself. The tracker copies it for each claim.
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
        """Create the set.

        :param offer: returns what is free now, in the order of choice
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
        """Return what is free now. It compares identifiers, because recorded device paths may be outdated."""
        names = {resource.identifier for resource in assigned}
        taken = names | self._picks.under_way(self._resource_class, assigned, names)
        free = [resource for resource in self._offer() if resource.identifier not in taken]
        return Free(reversed(free), assigned, self._picks)


class Free(list[objects.Resource]):
    """The free namespaces of one claim, in reverse order of choice."""

    def __init__(self, resources: Iterable[objects.Resource], assigned: Assigned, picks: Picks) -> None:
        super().__init__(resources)
        self._assigned = assigned
        self._picks = picks

    def pop(self) -> objects.Resource:  # type: ignore[override]
        """Remove and return the first choice, and record the pick."""
        first = super().pop()
        self._picks.note(first, self._assigned)
        return first
