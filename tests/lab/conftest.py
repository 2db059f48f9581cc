"""One virtual host for all tests of a run, and the table of what they have seen."""

import pytest

from tests.lab import planned, ready

_SEEN = pytest.StashKey[list[tuple[str, str]]]()


def pytest_configure(config):
    config.stash[_SEEN] = []


@pytest.fixture(scope="session")
def host():
    """Switched on, with namespaces of every kind, and configured."""
    with ready.virtual_host() as made:
        yield made


@pytest.fixture(scope="session")
def cut(host):
    """The same host, whose namespaces were removed, and cut anew with ``vpmem plan`` and ``vpmem provision``."""
    return planned.cut(host)


def pytest_collection_modifyitems(items):
    """What removes the namespaces of all others is the last."""
    items.sort(key=lambda item: "cut" in item.fixturenames)


@pytest.fixture
def seen(request):
    """Note what was seen, for the table at the end."""
    return lambda what, saw: request.config.stash[_SEEN].append((what, saw))


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[_SEEN]
    if rows:
        width = max(len(what) for what, _ in rows)
        terminalreporter.section("what was seen")
        for what, saw in rows:
            terminalreporter.line(f"{what:{width}}  {saw}")
