"""What a fuzz target is."""

import abc
import pathlib
import random
import typing
from collections.abc import Iterator


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


class Target(abc.ABC):
    """One interface that reads input which somebody else wrote.

    :cvar words: tokens of the input's language, for the mutators
    :cvar typed: what the interface raises on purpose, besides VPMEMError
    :cvar max_bytes: longest input
    :ivar root: a directory of this target's own, empty at first
    """

    words: typing.ClassVar[tuple[str, ...]] = ()
    typed: typing.ClassVar[tuple[type[Exception], ...]] = ()
    max_bytes: typing.ClassVar[int] = 1 << 15

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root

    @abc.abstractmethod
    def seeds(self) -> Iterator[bytes]:
        """Well-formed inputs, which :meth:`run` takes without an error."""

    @abc.abstractmethod
    def run(self, data: bytes) -> None:
        """Use the interface. Any exception but VPMEMError and :attr:`typed` is a finding."""

    @abc.abstractmethod
    def shown(self, data: bytes) -> str:
        """The input as Python code for a regression test."""

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        """One change that keeps the input's structure; None where there is none."""
        return None
