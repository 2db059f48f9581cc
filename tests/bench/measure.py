"""What a row is given to measure with."""

import time
from collections.abc import Callable, Mapping, Sequence

import pyperf


class Measure:
    """Measures the cases of one kind of a row. A case's figure is named ``row/case/kind``."""

    def __init__(self, runner: pyperf.Runner, row: str, kind: str) -> None:
        self._runner = runner
        self._row = row
        self._kind = kind

    def timed(self, case: object, loops: int, run: Callable[[int], float]) -> None:
        """`run` does the work so many times and returns the seconds that it took.

        :param loops: fixed, and such that a value takes a few thousandths of a second: less than a scheduler's time
            slice, so that some values are nobody else's. Work that takes long by itself is done less often
        """
        args = self._runner.parse_args()
        before = args.values
        args.loops, args.values = loops, before if loops > 1 else max(3, before // 5)
        self._runner.bench_time_func(f"{self._row}/{case}/{self._kind}", run)
        args.values = before

    def calls(self, case: object, loops: int, work: Callable[[], object]) -> None:
        """Call `work`. For what takes much longer than a call does."""

        def run(count: int) -> float:
            start = time.perf_counter()
            for _ in range(count):
                work()
            return time.perf_counter() - start

        self.timed(case, loops, run)

    def together(self, case: object, ways: Mapping[str, Callable[[], object]]) -> None:
        """Several kinds on the very same thing, one after the other, again and again."""
        seconds: dict[str, list[float]] = {kind: [] for kind in ways}
        for _ in range(1 + self._runner.parse_args().values):
            for kind, work in ways.items():
                start = time.perf_counter()
                work()
                seconds[kind].append(time.perf_counter() - start)
        for kind, values in seconds.items():
            self.values(case, values[1:], kind=kind)

    def values(self, case: object, values: Sequence[float], unit: str = "second", kind: str = "") -> None:
        """What was measured already, in seconds, or is an amount: ``byte`` or ``integer``."""
        args = self._runner.parse_args()
        before = args.values, args.warmups
        args.loops, args.values, args.warmups = 1, len(values), 0
        left = iter(values)
        name = f"{self._row}/{case}/{kind or self._kind}"
        self._runner.bench_time_func(name, lambda _loops: next(left), metadata={"unit": unit})
        args.values, args.warmups = before
