from collections.abc import Iterable, Sequence
from typing import Final, final

CLEAN: Final = 0
DIRTY: Final = 1
UNKNOWN: Final = 2
CLAIMED: Final = 3
UNAVAILABLE: Final = 4

NOT_FOUND: Final = 1
AMBIGUOUS: Final = 2
REPEATED: Final = 3
TWO_LABELS: Final = 4

@final
class NamespaceTable:
    def __init__(
        self,
        labels: Iterable[int],
        sizes: Iterable[int],
        nodes: Iterable[int],
        names: Iterable[str],
        states: Iterable[int],
    ) -> None: ...
    def choose(self, labels: Iterable[int], node: int = -1) -> tuple[int, ...] | None: ...
    def put(self, index: int, state: int) -> None: ...
    def counts(self, label: int) -> tuple[int, int, int, int, int]: ...

def match(
    names: Sequence[str | None], uuids: Sequence[str | None], entries: Iterable[tuple[int, str]]
) -> tuple[list[int], list[tuple[int, int]]]: ...
