"""Fixtures of all tests."""

import logging
import os
import pathlib
import signal
import tempfile

import hypothesis
import pytest

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def unshared_path():
    """A directory that only root and this user may write to, and all above it too: unlike one below /tmp."""
    parent = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR")
    if parent is None:
        pytest.skip("this user has no directory that others may not write to: XDG_RUNTIME_DIR is not set")
    umask = os.umask(0o022)
    try:
        with tempfile.TemporaryDirectory(prefix="vpmem-test-", dir=parent) as path:
            yield pathlib.Path(path)
    finally:
        os.umask(umask)


@pytest.fixture(autouse=True, scope="session")
def sigint_is_heard():
    """A background job of a shell ignores SIGINT, and so do its children: tests of Ctrl-C would wait for ever."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def log_handlers_go():
    """The command line installs a handler for standard error, which is closed when a test has ended."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    for handler in set(root.handlers) - set(before):
        handler.close()
    root.handlers[:] = before
