"""Measures one kind of one row: ``python -m bench.worker ROW KIND``, with pyperf's options for a worker.

A process of its own, so that nobody is measured with another's modules and garbage around.
"""

import sys

import pyperf
from bench import table
from bench.measure import Measure


def main() -> None:
    """Measure what the first two arguments say."""
    _, name, kind, *options = sys.argv
    runner = pyperf.Runner()
    runner.parse_args(["--worker", "--loops", "1", *options])
    table.ROWS[name].kinds[kind](Measure(runner, name, kind))


if __name__ == "__main__":
    main()
