"""Files beside the ledger that a process keeps locked."""

import fcntl

import pytest

from vpmem_driver.ledger import holds

OWNER = "8c1d8b56-1df2-4f2b-b7c5-6a5d0d9d6b61"


@pytest.fixture
def file(tmp_path):
    return tmp_path / f"move-{OWNER}.lock"


def test_one_at_a_time(tmp_path, file):
    with holds.alone(tmp_path, OWNER):
        assert file.exists()
        with pytest.raises(BlockingIOError), holds.alone(tmp_path, OWNER):
            pytest.fail("two move it")
        with holds.alone(tmp_path, "another"):
            pass
    assert not list(tmp_path.iterdir())
    with holds.alone(tmp_path, OWNER):
        pass


def test_a_process_that_was_killed_has_left_its_file(tmp_path, file):
    file.touch()
    with holds.alone(tmp_path, OWNER):
        assert file.exists()
    assert not file.exists()


def test_the_file_is_removed_before_it_is_locked(tmp_path, file, monkeypatch):
    """Whoever had it before ends just then, and another makes a new one. A lock on the old one protects nothing."""
    real = fcntl.flock

    def flock(fd, operation):
        monkeypatch.setattr(fcntl, "flock", real)
        file.unlink()
        file.touch()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with holds.alone(tmp_path, OWNER), pytest.raises(BlockingIOError), holds.alone(tmp_path, OWNER):
        pytest.fail("two move it")
    assert not file.exists()


def test_a_failure_in_the_body_ends_it(tmp_path, file):
    with pytest.raises(ValueError, match="the body"), holds.alone(tmp_path, OWNER):
        raise ValueError("the body")
    assert not file.exists()
