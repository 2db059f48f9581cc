"""One cluster for all tests of a run, and the table of what they have seen."""

import time

import pytest

from tests.cluster import cluster as clusters
from tests.cluster import settings

_SEEN = pytest.StashKey[list[tuple[str, str]]]()


def pytest_configure(config):
    config.stash[_SEEN] = []


@pytest.fixture(scope="session")
def cluster(request):
    """Running, with two compute hosts. If a test has failed, the services' logs are kept."""
    with clusters.running() as made:
        request.config.stash[_SEEN] += [(what, f"after {seconds:.0f} s") for what, seconds in made.start_times]
        yield made
        if request.session.testsfailed:
            made.keep_logs(settings.ROOT / ".tox/cluster/logs")


@pytest.fixture
def seen(request):
    """Note what was seen, for the table at the end; with the seconds since the last note."""
    notes, begin = request.config.stash[_SEEN], time.monotonic()

    def note(what, saw):
        nonlocal begin
        now = time.monotonic()
        notes.append((what, f"{saw} ({now - begin:.0f} s)"))
        begin = now

    return note


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[_SEEN]
    if rows:
        width = max(len(what) for what, _ in rows)
        terminalreporter.section("what was seen")
        for what, saw in rows:
            terminalreporter.line(f"{what:{width}}  {saw}")
