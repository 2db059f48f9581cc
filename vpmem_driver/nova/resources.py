"""The set of namespaces that Nova's resource tracker picks from, handed out in our order.

The tracker does ``free = provided - assigned`` and then ``free.pop()`` (ResourceTracker._claim_resources, Nova
31-34). It copies what it is given, and forgets a pick whose build is still under way (a periodic update inside the
build window): so each pick is noted here, and not offered again until the ledger has it, or it was given back.
"""

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

    def now(self) -> set[str]:
        """What must not be offered at this moment."""
        now = time.monotonic()
        return {identifier for identifier, until in self._until.copy().items() if until > now}


class HandOut(frozenset[objects.Resource]):
    """All Resource objects of one class on a host, and which of them may be handed out, in which order.

    A value: nobody changes it, nor what is in it. So a copy is the set itself; the tracker makes one for each claim.
    """

    _offered: dict[str, objects.Resource]
    _picks: Picks

    def __new__(cls, resources: Iterable[objects.Resource], ranks: dict[str, int], picks: Picks) -> typing.Self:
        """Make a set.

        :param ranks: by identifier, of those that may be handed out; what has no rank is in use
        """
        made = super().__new__(cls, resources)
        offered = {resource.identifier: resource for resource in made}
        made._offered = {identifier: offered[identifier] for identifier in sorted(ranks, key=ranks.__getitem__)}
        made._picks = picks
        return made

    def __deepcopy__(self, memo: dict[int, typing.Any]) -> "HandOut":
        return self

    def __copy__(self) -> "HandOut":
        return self

    def __sub__(self, assigned: typing.AbstractSet[typing.Any]) -> "Free":  # type: ignore[override]
        """What may be handed out. Namespaces are told by identifier: a device path on record may be an old one."""
        taken = {resource.identifier for resource in assigned} | self._picks.now()
        free = [resource for identifier, resource in self._offered.items() if identifier not in taken]
        return Free(reversed(free), self._picks)


class Free(list[objects.Resource]):
    """What may be handed out, the first one last."""

    def __init__(self, resources: Iterable[objects.Resource], picks: Picks) -> None:
        super().__init__(resources)
        self._picks = picks

    def pop(self) -> objects.Resource:  # type: ignore[override]
        """Take the first one out, and note that it was picked."""
        first = super().pop()
        self._picks.note(first.identifier)
        return first
