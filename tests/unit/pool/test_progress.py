"""What the ledger knows about a wipe or a copy."""

import types

import pytest

from vpmem_driver.model import State
from vpmem_driver.pool import Progress, progress_of


def row(state, **values):
    defaults = {"size": 200, "begun": False, "wiped": 0, "verified": 0, "copied": 0, "departure": None}
    return types.SimpleNamespace(state=state, **(defaults | values))


@pytest.mark.parametrize(
    ("row", "progress"),
    [
        (row(State.DIRTY), None),
        (row(State.DIRTY, begun=True), Progress(0, "wiped", 0, 400)),
        (row(State.DIRTY, begun=True, wiped=50), Progress(25, "wiped", 50, 400)),
        (row(State.DIRTY, begun=True, wiped=200, verified=20), Progress(10, "verified", 220, 400)),
        (row(State.RECEIVING, copied=50), Progress(25, "received", 50, 400)),
        (row(State.RECEIVING, copied=200, verified=100), Progress(50, "verified", 300, 400)),
        (row(State.CLAIMED, departure="x", copied=100), Progress(50, "copied", 100, 200)),
        (row(State.CLAIMED), None),
        (row(State.CLEAN), None),
    ],
)
def test_progress(row, progress):
    assert progress_of(row) == progress
