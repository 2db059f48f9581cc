"""Waiting for child processes."""

import subprocess
import time

import pytest

from vpmem_driver.engine import poll
from vpmem_driver.transfer import connection


class Foreign(Exception):
    """What Popen.wait(seconds) raises where eventlet 0.39 has patched it."""


@pytest.fixture
def foreign_timeout(monkeypatch):
    wait = subprocess.Popen.wait

    def patched(self, timeout=None):
        try:
            return wait(self, timeout)
        except subprocess.TimeoutExpired:
            raise Foreign from None

    monkeypatch.setattr(subprocess.Popen, "wait", patched)


def test_a_process_that_has_ended():
    process = subprocess.Popen(["true"])
    assert poll.has_ended(process, 60)
    assert process.returncode == 0


def test_a_process_that_runs():
    process = subprocess.Popen(["sleep", "60"])
    assert not poll.has_ended(process, 0.1)
    process.kill()
    assert poll.has_ended(process, 60)


@pytest.mark.usefixtures("foreign_timeout")
def test_under_eventlet_a_connection_whose_command_did_not_end_raised(monkeypatch):
    monkeypatch.setattr(connection, "_GRACE_SECONDS", 0.1)
    conversation = connection.ProcessConnection("elsewhere", ["sleep", "60"])
    begin = time.monotonic()
    conversation.close()
    assert time.monotonic() - begin < 30
    assert conversation._process.returncode == -9
