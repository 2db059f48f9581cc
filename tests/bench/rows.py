"""What a row of the table is: work, who does it, and what was aimed at."""

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence

if typing.TYPE_CHECKING:
    from bench.measure import Measure

OURS = "ours"
LIMIT = "limit"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """One figure against another, or against a number.

    :ivar case: of whom "ours" is compared
    :ivar against: a kind of the same case (``nova``), another figure (``claim/64/ours``), or a number of its unit
    :ivar most: ours is at most so many times that
    :ivar least: that is at least so many times ours: so many times as fast
    """

    case: str
    against: str | float
    most: float | None = None
    least: float | None = None

    @property
    def text(self) -> str:
        """As the table has it."""
        if self.most is None:
            return f"{self.against} ≥ {self.least:g} x ours"
        if isinstance(self.against, float):
            return f"≤ {self.most * self.against:g}"
        return f"≤ {self.most:g} x {self.against}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Work that is measured, case by case.

    :ivar kinds: who does it: ``ours``, peers, ``limit``; each measures all its cases, in a process of its own. Where it
        must be done to the same thing, ``ours`` measures the others as well
    :ivar rounds: how often that happens at most
    :ivar statistic: which of all values is the figure: the least, for what others do on the machine only adds; the
        median where the work itself takes now more, now less
    """

    name: str
    work: str
    kinds: Mapping[str, Callable[["Measure"], None]]
    targets: Sequence[Target]
    rounds: int | None = None
    statistic: Callable[[Sequence[float]], float] = min


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a target.

    :ivar ratio: None when one of the two figures was not measured
    """

    row: str
    target: Target
    ratio: float | None

    @property
    def met(self) -> bool:
        """Whether it was measured, and is as it should be."""
        if self.ratio is None:
            return False
        if self.target.most is not None:
            return self.ratio <= self.target.most
        return self.ratio >= typing.cast("float", self.target.least)


def judge(row: Row, figures: Mapping[str, float]) -> list[Verdict]:
    """Hold all targets of a row against what was measured: ``row/case/kind`` -> figure."""
    return [Verdict(row=row.name, target=target, ratio=_ratio(row, target, figures)) for target in row.targets]


def _ratio(row: Row, target: Target, figures: Mapping[str, float]) -> float | None:
    ours = figures.get(f"{row.name}/{target.case}/{OURS}")
    other: float | None
    if isinstance(target.against, float):
        other = target.against
    else:
        name = target.against if "/" in target.against else f"{row.name}/{target.case}/{target.against}"
        other = figures.get(name)
    if ours is None or other is None:
        return None
    return ours / other if target.most is not None else other / ours
