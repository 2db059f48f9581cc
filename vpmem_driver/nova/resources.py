"""The set of namespaces that Nova's resource tracker picks from, handed out in our order.

The tracker does ``free = provided - assigned`` and then ``free.pop()`` (ResourceTracker._claim_resources, Nova
31-34). It copies what it is given, and forgets a pick whose build is still under way (a periodic update inside the
build window): so each pick is noted here, and not offered again until the ledger has it, or it was given back.
"""

import copy
import time
import typing
from collections.abc import Iterable

from nova import objects

#: How long a pick that nobody claims or gives back is kept out: longer than a build waits for its network.
PICK_SECONDS = 900.0


class Picks:
    """Which namespaces the tracker has picked lately. Shared by all copies of one host's sets."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def note(self, identifier: str) -> None:
        """It was picked."""
        self._until[identifier] = time.monotonic() + PICK_SECONDS

    def forget(self, identifiers: Iterable[str]) -> None:
        """They are claimed in the ledger now, or given back."""
        for identifier in identifiers:
            self._until.pop(identifier, None)

    def __contains__(self, identifier: str) -> bool:
        return self._until.get(identifier, 0.0) > time.monotonic()

    def __deepcopy__(self, memo: dict[int, typing.Any]) -> "Picks":
        return self


class HandOut(set[objects.Resource]):
    """A set of Resource objects that gives them out in order of :attr:`ranks`, and none that was picked already.

    :ivar ranks: by identifier, of those that may be handed out; what has no rank is in use
    """

    def __init__(self, resources: Iterable[objects.Resource], ranks: dict[str, int], picks: Picks) -> None:
        super().__init__(resources)
        self.ranks = ranks
        self.picks = picks

    def __deepcopy__(self, memo: dict[int, typing.Any]) -> "HandOut":
        return HandOut((copy.deepcopy(resource, memo) for resource in self), self.ranks, self.picks)

    def __copy__(self) -> "HandOut":
        return HandOut(self, self.ranks, self.picks)

    def __sub__(self, assigned: typing.AbstractSet[typing.Any]) -> "HandOut":
        """What may be handed out. Namespaces are told by identifier: a device path on record may be an old one."""
        taken = {resource.identifier for resource in assigned}
        free = (
            resource
            for resource in self
            if resource.identifier in self.ranks
            and resource.identifier not in taken
            and resource.identifier not in self.picks
        )
        return HandOut(free, self.ranks, self.picks)

    def pop(self) -> objects.Resource:
        """Take the first one out, and note that it was picked."""
        first = min(self, key=lambda resource: self.ranks[resource.identifier], default=None)
        if first is None:
            raise KeyError("no namespace is free")
        self.remove(first)
        self.picks.note(first.identifier)
        return first
