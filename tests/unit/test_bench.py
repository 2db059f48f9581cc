"""The check of the benchmarks' targets."""

import pytest

from tests.bench.rows import Row, Target, judge

FIGURES = {"row/8/ours": 2.0, "row/8/limit": 1.0, "row/8/nova": 10.0, "other/8/ours": 4.0}


def verdict(target: Target, figures: dict[str, float] = FIGURES) -> tuple[float | None, bool]:
    (found,) = judge(Row(name="row", work="", kinds={}, targets=[target]), figures)
    return found.ratio, found.met


@pytest.mark.parametrize(
    ("against", "bound", "ratio", "met"),
    [
        ("limit", {"most": 2}, 2.0, True),
        ("limit", {"most": 1.9}, 2.0, False),
        ("nova", {"least": 5}, 5.0, True),
        ("nova", {"least": 5.1}, 5.0, False),
        ("other/8/ours", {"most": 0.5}, 0.5, True),
        (4.0, {"most": 0.4}, 0.5, False),
    ],
)
def test_target(against, bound, ratio, met):
    assert verdict(Target(case="8", against=against, **bound)) == (ratio, met)


def test_what_was_not_measured_is_not_met():
    assert verdict(Target(case="9", against="limit", most=1)) == (None, False)
    assert verdict(Target(case="8", against="model", least=1)) == (None, False)
