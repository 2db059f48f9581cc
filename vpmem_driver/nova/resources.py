"""The sets of namespaces that Nova's resource tracker picks from, in the pool's order of choice.

For each claim, the tracker makes a deep copy of all sets of a provider. For each class in the claim, it computes
``free = provided - assigned``, compares ``len(free)`` with the requested number, and calls ``free.pop()`` that many
times. If the whole claim succeeds, it adds the picks to `assigned` (ResourceTracker._claim_resources, Nova 31-34). It
holds its lock throughout. The number of picks of a claim is not known before the last one. So each namespace is chosen
separately, on the NUMA node of the previous pick if one is free there.
"""

import copy
import dataclasses
import logging
import typing
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet

from nova import exception as nova_exception
from nova import objects

from vpmem_driver import exception
from vpmem_driver.pool import Pool

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


class Request:
    """One claim of the tracker. Sets that are copied together share one copy of it.

    :ivar numa_node: NUMA node of the newest pick; None before the first one
    """

    def __init__(self) -> None:
        self.numa_node: int | None = None

    def __deepcopy__(self, memo: dict[int, typing.Any]) -> "Request":
        return Request()


class Offers:
    """The free namespaces of the pool, in its order of choice, as the tracker's objects."""

    def __init__(self, pool: Pool, named: Mapping[str, tuple[str, str]], make: Callable[..., objects.Resource]) -> None:
        """Offer the namespaces of `named`.

        :param named: identifier in Nova and label of each namespace, by uuid
        :param make: creates Nova's object from identifier, label, path, size and alignment
        """
        self._pool = pool
        self._named = named
        self._uuids = {identifier: uuid for uuid, (identifier, _) in named.items()}
        self._make = make

    def uuids(self, identifiers: Iterable[str]) -> set[str]:
        """Return the uuids of the namespaces with these identifiers in Nova."""
        return {uuid for uuid in map(self._uuids.get, identifiers) if uuid is not None}

    def count(self, resource_class: str, taken: AbstractSet[str]) -> int:
        """Return the number of free namespaces of a class, not counting the uuids `taken`."""
        return self._pool.free(resource_class, taken)

    def first(self, resource_class: str, taken: set[str], request: Request) -> objects.Resource | None:
        """Return the next namespace of a class, and update `taken` and `request`; None if none is free."""
        while (found := self._pool.next_free(resource_class, taken, request.numa_node)) is not None:
            uuid = found.uuid or ""
            taken.add(uuid)
            if uuid in self._named:  # otherwise it was discovered after the tracker's last update
                request.numa_node = found.numa_node
                return self._make(*self._named[uuid], found.device, size=found.size, align=found.align)
        return None


class HandOut(frozenset[objects.Resource]):
    """All Resource objects of one class on a host. The free ones are determined when a claim starts."""

    _resource_class: str
    _offers: Offers
    _picks: Picks
    _request: Request

    def __new__(
        cls,
        resource_class: str,
        resources: Iterable[objects.Resource],
        offers: Offers,
        picks: Picks,
        request: Request,
    ) -> typing.Self:
        """Create the set. All sets of one host share `request`."""
        made = super().__new__(cls, resources)
        made._resource_class = resource_class
        made._offers = offers
        made._picks = picks
        made._request = request
        return made

    def __deepcopy__(self, memo: dict[int, typing.Any]) -> "HandOut":
        """Return a set of the same immutable objects, for one claim."""
        return HandOut(self._resource_class, self, self._offers, self._picks, copy.deepcopy(self._request, memo))

    def __copy__(self) -> "HandOut":
        return self

    def __sub__(self, assigned: AbstractSet[typing.Any]) -> "Free":  # type: ignore[override]
        """Return what is free now. It compares identifiers, because recorded device paths may be outdated."""
        names = {resource.identifier for resource in assigned}
        taken = self._offers.uuids(names | self._picks.under_way(self._resource_class, assigned, names))
        return Free(
            resource_class=self._resource_class,
            offers=self._offers,
            taken=taken,
            request=self._request,
            picks=self._picks,
            assigned=assigned,
        )


@dataclasses.dataclass(slots=True, kw_only=True)
class Free:
    """The free namespaces of one class, for one claim.

    :ivar taken: uuids of picked and assigned namespaces, regardless of the ledger
    """

    resource_class: str
    offers: Offers
    taken: set[str]
    request: Request
    picks: Picks
    assigned: Assigned

    def __len__(self) -> int:
        """Return the current number; 0 if the ledger cannot be read."""
        try:
            return self.offers.count(self.resource_class, self.taken)
        except exception.VPMEMError as error:
            LOG.error("No namespace of %s is offered: %s", self.resource_class, error)
            return 0

    def pop(self) -> objects.Resource:
        """Remove and return the first choice, and record the pick.

        :raises ComputeResourcesUnavailable: none is free any more, or the ledger cannot be read
        """
        try:
            first = self.offers.first(self.resource_class, self.taken, self.request)
        except exception.VPMEMError as error:
            raise nova_exception.ComputeResourcesUnavailable(reason=str(error)) from error
        if first is None:
            reason = f"another claim took the last free namespace of {self.resource_class}"
            raise nova_exception.ComputeResourcesUnavailable(reason=reason)
        self.picks.note(first, self.assigned)
        return first
