"""The set of namespaces that Nova's resource tracker picks from, handed out in the pool's order of choice.

For each claim the tracker makes a deep copy of all sets of a provider. For each class that the claim asks for, it does
``free = provided - assigned``, compares ``len(free)`` with what is asked for, and does ``free.pop()`` so many times;
when the whole claim has succeeded it adds what it picked to `assigned` (ResourceTracker._claim_resources, Nova 31-34).
All of that happens under its lock. How many a claim is going to pick is not known before its last pick, so each is
chosen by itself, on the NUMA node of the one before it where that has any.
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


class Request:
    """What one claim of the tracker has picked so far: the sets that are copied together have one copy of it.

    :ivar numa_node: of the newest pick, None before the first one
    """

    def __init__(self) -> None:
        self.numa_node: int | None = None

    def __deepcopy__(self, memo: dict[int, typing.Any]) -> "Request":
        return Request()


class Offers:
    """What may be handed out: what is free in the pool, in its order of choice, as the tracker's objects."""

    def __init__(
        self, pool: Pool, called: Mapping[str, tuple[str, str]], make: Callable[..., objects.Resource]
    ) -> None:
        """Offer the namespaces of `called`.

        :param called: by uuid, what Nova calls each namespace, and its label
        :param make: returns Nova's object for what Nova calls it, label, path, size and alignment
        """
        self._pool = pool
        self._called = called
        self._uuids = {identifier: uuid for uuid, (identifier, _) in called.items()}
        self._make = make

    def uuids(self, identifiers: Iterable[str]) -> set[str]:
        """The uuids of those that Nova calls so."""
        return {uuid for uuid in map(self._uuids.get, identifiers) if uuid is not None}

    def count(self, resource_class: str, taken: AbstractSet[str]) -> int:
        """How many there are, without the uuids `taken`."""
        return self._pool.free(resource_class, taken)

    def first(self, resource_class: str, taken: set[str], request: Request) -> objects.Resource | None:
        """The one to hand out next; None when there is none. It is added to `taken`, and noted in `request`."""
        while (found := self._pool.next_free(resource_class, taken, request.numa_node)) is not None:
            uuid = found.uuid or ""
            taken.add(uuid)
            if uuid in self._called:  # else it was found after the tracker's last update, which has to come first
                request.numa_node = found.numa_node
                return self._make(*self._called[uuid], found.device, size=found.size, align=found.align)
        return None


class HandOut(frozenset[objects.Resource]):
    """All Resource objects of one class on a host. What of them may be handed out is asked for when a claim starts."""

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
        """Make a set. Those of one host have the same `request`."""
        made = super().__new__(cls, resources)
        made._resource_class = resource_class
        made._offers = offers
        made._picks = picks
        made._request = request
        return made

    def __deepcopy__(self, memo: dict[int, typing.Any]) -> "HandOut":
        """A set of the same objects, which nobody changes, for one claim."""
        return HandOut(self._resource_class, self, self._offers, self._picks, copy.deepcopy(self._request, memo))

    def __copy__(self) -> "HandOut":
        return self

    def __sub__(self, assigned: AbstractSet[typing.Any]) -> "Free":  # type: ignore[override]
        """What may be handed out now. Compares identifiers: a device path on record may be an old one."""
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
    """What of one class may be handed out to one claim.

    :ivar taken: uuids of what is picked or assigned, whatever the ledger has
    """

    resource_class: str
    offers: Offers
    taken: set[str]
    request: Request
    picks: Picks
    assigned: Assigned

    def __len__(self) -> int:
        """How many there are now; 0 when the ledger cannot be read."""
        try:
            return self.offers.count(self.resource_class, self.taken)
        except exception.VPMEMError as error:
            LOG.error("No namespace of %s is handed out: %s", self.resource_class, error)
            return 0

    def pop(self) -> objects.Resource:
        """Take the first one out, and note that it was picked.

        :raises ComputeResourcesUnavailable: there is none any more, or the ledger cannot be read
        """
        try:
            first = self.offers.first(self.resource_class, self.taken, self.request)
        except exception.VPMEMError as error:
            raise nova_exception.ComputeResourcesUnavailable(reason=str(error)) from error
        if first is None:
            reason = f"the last free namespace of {self.resource_class} was claimed by another"
            raise nova_exception.ComputeResourcesUnavailable(reason=reason)
        self.picks.note(first, self.assigned)
        return first
