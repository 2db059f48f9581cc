"""What befalls a host: power is lost, and an operator changes, replaces or renames files while nobody runs."""

import random
from collections.abc import Callable

from tests.torture.checker import Checker
from tests.torture.plan import Plan
from tests.torture.world import World


class Accidents:
    """Of one round, whose `note` takes what has happened in words."""

    def __init__(
        self, world: World, checker: Checker, plan: Plan, rng: random.Random, note: Callable[[str], None]
    ) -> None:
        self._world, self._checker, self._plan, self._rng, self._note = world, checker, plan, rng, note

    def lose_power(self) -> bool:
        """Take back some of what was not made durable; everybody is dead. :returns: there is a new namespace."""
        self._world.lose_power()
        if self._rng.random() < 0.7 and self._world.lose_commits():
            self._note("and what was committed since the last durable commit")
            self._checker.go_back()
        replaced = self._rng.random() < 0.8 and self._change_one()
        if self._rng.random() < 0.3:
            self._world.swap_names()
            self._plan.devices.clear()
            self._note("two files have changed names")
        return replaced

    def _change_one(self) -> bool:
        """Change the size of a file that nobody has been given, best of a clean or half wiped one, or replace it.

        :returns: there is another file in its place
        """
        rows = [row for row in self._checker.present() if row.state not in {"claimed", "quarantined"}]
        best = [row for row in rows if row.state == "clean" or row.wiped]
        row = self._rng.choice(best or rows) if rows else None
        namespace = None if row is None else self._checker.namespace(row.uuid)
        if row is None or namespace is None:
            return False
        if row.owner is None and self._rng.random() < 0.4:
            self._world.replace(namespace)
            self._note(f"{namespace.name} is another file now")
            return True
        self._world.resize(namespace)
        self._checker.forget_left(namespace)
        self._note(f"{namespace.name} has {namespace.size} bytes now")
        return False
