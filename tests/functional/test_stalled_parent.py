"""A process that stalls while it supervises a wipe: what its child said meanwhile no longer counts when it resumes.

The parent stands still inside its progress callback, so every interleaving here is chosen, not hoped for.
"""

import itertools
import os
import pathlib
import signal

import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from tests.functional.test_pool import row
from tests.waiting import wait_until
from vpmem_driver import exception
from vpmem_driver.pool import wipes


def wiping_children():
    """The pids of this process's wiping children."""
    children = [path.read_text().split() for path in pathlib.Path("/proc/self/task").glob("*/children")]
    return [
        int(pid)
        for pid in itertools.chain.from_iterable(children)
        if b"vpmem_driver.worker" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def is_zombie(pid):
    return "\nState:\tZ" in pathlib.Path(f"/proc/{pid}/status").read_text()


def kill_when_it_has_said_all(pid):
    """Kill a child that waits for its parent: all that it says is in the pipe by then."""
    wait_until(lambda: is_waiting(pid))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_zombie(pid))


def is_waiting(pid):
    """Whether its main thread sleeps in read(2) on standard input, which is what it does when it is done."""
    try:
        return pathlib.Path(f"/proc/{pid}/syscall").read_text().split()[0] == "0"
    except (IndexError, OSError):
        return False


@pytest.mark.parametrize("phase", ["zero", "verify"])
def test_a_stalled_parent_does_not_record_what_its_dead_child_said(host, phase):
    """The namespace is wiped, handed out, written and released by others while the parent stalls."""
    pool, secret, stalled = host.pool(), new_owner(), []
    uuid = pool.find("large0")
    pool.adopt(new_owner(), [uuid])
    pool.release(row(pool, "large0").owner)

    def stall(event):
        if event.phase == phase and not stalled:
            (child,) = wiping_children()
            stalled.append(child)
            kill_when_it_has_said_all(child)
            other = host.pool()
            wipes.raise_for(other.wipe([uuid]))
            other.claim_exact(secret, [uuid])
            fill(host.path("large0"))
            other.release(secret)

    pool.wipe([uuid], on_progress=stall)
    assert stalled
    found = row(pool, "large0")
    assert found.state != "clean" or is_zero(host.path("large0"))
    (grant,) = host.pool().claim_exact(new_owner(), [uuid])
    assert is_zero(pathlib.Path(grant.device)), "it still has the bytes of the owner in between"


def test_a_stalled_parent_does_not_mark_what_others_have_claimed(host):
    pool, owner, stalled = host.pool(), new_owner(), []
    uuid = pool.find("large0")

    def stall(event):
        if event.phase == "verify" and not stalled:
            (child,) = wiping_children()
            stalled.append(child)
            kill_when_it_has_said_all(child)
            other = host.pool()
            wipes.raise_for(other.wipe([uuid]))
            other.claim_exact(owner, [uuid])

    pool.wipe([uuid], on_progress=stall)
    pattern = fill(host.path("large0"))
    assert (row(pool, "large0").state, row(pool, "large0").owner) == ("claimed", owner)
    assert host.path("large0").read_bytes() == pattern


def test_a_wipe_that_stalls_at_its_end_does_not_make_an_owners_bytes_unknown(host):
    pool, owner = host.pool(), new_owner()
    uuid, wipe = pool.find("large0"), pool._wiper.wipe

    def wipe_and_stall(uuids, **arguments):
        results = wipe(uuids, **arguments)
        other = host.pool()
        other.claim_exact(owner, [uuid])
        fill(host.path("large0"))
        other.release(owner)
        return results

    pool._wiper.wipe = wipe_and_stall
    pool.wipe([uuid])
    assert row(pool, "large0").state == "dirty"
    with pytest.raises(exception.NotOwner, match=owner):
        host.pool().adopt(new_owner(), [uuid])


def test_a_quarantined_namespace_that_is_wiped_again_is_not_adopted_as_intact(host):
    pool, owner = host.pool(), new_owner()
    uuid = pool.find("large0")
    pool.adopt(owner, [uuid])
    pool.release(owner)
    host.options["wipe_command"] = host.forgetful(host.path("large0"), 0)
    host.pool().wipe([uuid])
    assert row(pool, "large0").state == "quarantined"
    host.options["wipe_command"] = "false"
    host.pool().wipe([uuid])
    assert row(pool, "large0").state == "dirty"
    with pytest.raises(exception.NotOwner, match="its wipe has begun"):
        host.pool().adopt(owner, [uuid])
