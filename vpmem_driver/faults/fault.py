"""One fault that a person can look up."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """A fault with a stable id.

    :ivar title: what it is, in a few words
    :ivar meaning: what happened, and what vpmem has and has not done
    :ivar remedy: what to do
    """

    id: str
    title: str
    meaning: str
    remedy: str

    @property
    def anchor(self) -> str:
        """Where the documentation describes it."""
        return f"doc/faults.md#{self.id.lower()}"
