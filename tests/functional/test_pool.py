"""The pool on real files, a real ledger and real wipes: what it does when things go wrong in the middle."""

import os
import shlex
import signal
import subprocess
import sys
import threading

import pytest

from tests.functional.conftest import MIB, fill, is_zero, new_owner
from tests.waiting import wait_until
from vpmem_driver import exception, interpreter
from vpmem_driver.engine import Outcome
from vpmem_driver.model import State
from vpmem_driver.pool import wipes


def row(pool, name):
    (found,) = [row for row in pool._state.ledger.rows() if row.name == name]
    return found


def vpmem(host, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "vpmem_driver.cli.main", "--config-file", str(host.config_file()), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


class TestChoosing:
    def test_one_numa_node_rather_than_two(self, host):
        pool = host.pool()
        grants = pool.claim(new_owner(), ["SMALL", "LARGE"])
        assert len({grant.numa_node for grant in grants}) == 1

    def test_clean_before_dirty_before_unknown(self, host):
        pool, owner = host.pool(), new_owner()
        host.pmem_namespaces = ["SMALL:small0|small1|small2"]
        uuids = [pool.find(name) for name in ("small0", "small1", "small2")]
        pool.wipe([uuids[2]])
        pool.adopt(owner, [uuids[1]])
        pool.release(owner)
        # small1 is alone on its node: one claim at a time, so that the number of nodes decides nothing
        assert [pool.claim(new_owner(), ["SMALL"])[0].name for _ in range(3)] == ["small2", "small1", "small0"]

    def test_the_smallest_then_the_name(self, host):
        host.make("tiny", node=0, size=8 * MIB)
        host.pmem_namespaces = ["ANY:large0|large1|tiny|small0|small2"]
        pool = host.pool()
        names = [pool.claim(new_owner(), ["ANY"], numa_node=0)[0].name for _ in range(5)]
        assert names == ["small0", "small2", "large0", "tiny", "large1"]

    def test_the_same_state_and_request_give_the_same(self, tmp_path, host):
        pool, owner = host.pool(), new_owner()
        first = pool.claim(owner, ["SMALL", "LARGE", "SMALL"])
        pool.release(owner)
        pool.wipe()
        assert [grant.uuid for grant in pool.claim(owner, ["SMALL", "LARGE", "SMALL"])] == [g.uuid for g in first]


class TestAllOrNothing:
    def test_nothing_is_claimed_when_one_is_short(self, host):
        pool = host.pool()
        before = pool._state.ledger.rows()
        with pytest.raises(exception.InsufficientNamespaces, match="LARGE: 3 wanted, 2 free"):
            pool.claim(new_owner(), ["SMALL", "LARGE", "LARGE", "LARGE"])
        assert pool._state.ledger.rows() == before

    def test_another_takes_the_place_of_one_that_cannot_be_wiped(self, host):
        pool = host.pool()
        with host.path("large0").open("r+b"):  # somebody has it open: it may be a guest's
            (grant,) = pool.claim(new_owner(), ["LARGE"])
        assert grant.name == "large1"
        assert row(pool, "large0").state is State.UNKNOWN

    def test_when_there_is_no_other_the_reason_is_told_and_nothing_is_claimed(self, host):
        pool = host.pool()
        pool.wipe([pool.find("small0"), pool.find("small1")])
        with host.path("small2").open("r+b"), pytest.raises(exception.NamespaceInUse, match="small2"):
            pool.claim(new_owner(), ["SMALL", "SMALL", "SMALL"])
        assert [row(pool, f"small{number}").state for number in range(3)] == ["clean", "clean", "unknown"]
        assert {row.owner for row in pool._state.ledger.rows()} == {None}

    def test_a_claim_that_is_called_off(self, host):
        host.options["wipe_rate"] = 4
        pool, stop = host.pool(), threading.Event()
        pool.wipe([pool.find("small0")])
        with pytest.raises(exception.HostToolError, match="it was stopped") as caught:
            pool.claim(new_owner(), ["SMALL", "LARGE"], stop=stop, on_progress=lambda event: stop.set())
        assert "dirty" not in str(caught.value), "it may be unknown again"
        assert {row.owner for row in pool._state.ledger.rows()} == {None}
        assert row(pool, "small0").state is State.CLEAN, "it was never handed out"
        assert row(pool, "large0").state is State.DIRTY, "some of it is overwritten: it is nobody's data any more"


class TestClaimExact:
    def test_in_the_order_given(self, host):
        pool, owner = host.pool(), new_owner()
        uuids = [pool.find(name) for name in ("small1", "large0", "small0")]
        assert [grant.uuid for grant in pool.claim_exact(owner, uuids)] == uuids
        assert [grant.uuid for grant in pool.grants(owner)] == uuids
        assert is_zero(host.path("large0"))

    def test_what_it_has_already_stays_as_it_is(self, host):
        pool, owner = host.pool(), new_owner()
        uuid = pool.find("small1")
        pool.claim_exact(owner, [uuid])
        pattern = fill(host.path("small1"))
        pool.claim_exact(owner, [uuid, pool.find("small0")])
        assert host.path("small1").read_bytes() == pattern

    @pytest.mark.parametrize("trouble", ["owned", "quarantined", "missing"])
    def test_one_that_is_not_to_be_had_claims_nothing(self, host, trouble):
        pool, owner = host.pool(), new_owner()
        uuids = [pool.find("small0"), pool.find("small1")]
        if trouble == "owned":
            pool.claim_exact(new_owner(), [uuids[1]])
        elif trouble == "quarantined":
            with pool._state.ledger.transaction():
                pool._state.ledger.move(row(pool, "small1"), State.QUARANTINED, "bad", reason="bad")
        else:
            host.path("small1").unlink()
            pool = host.pool()
        with pytest.raises(exception.NamespaceUnavailable, match="small1"):
            pool.claim_exact(owner, uuids)
        assert pool._state.ledger.held(owner) == []
        assert row(pool, "small0").state is State.UNKNOWN


class TestInterrupted:
    def test_a_wipe_goes_on_where_it_was(self, host):
        host.options["wipe_rate"] = 16
        host.make("huge", size=64 * MIB)
        host.pmem_namespaces.append("HUGE:huge")
        pool, owner = host.pool(), new_owner()
        pool.adopt(owner, [pool.find("huge")])
        pool.release(owner)
        wipe = vpmem(host, "wipe")
        wait_until(lambda: row(pool, "huge").wiped > 4 * MIB)
        kill(wipe)
        done = row(pool, "huge").wiped
        assert 0 < done < 64 * MIB
        assert is_prefix_zero(host.path("huge"), done)
        host.options["wipe_rate"] = 0
        events = []
        wipes.raise_for(host.pool().wipe(on_progress=events.append))
        zeroed = [event.done for event in events if event.phase == "zero"]
        assert min(zeroed) >= done, "nothing was done again"
        assert is_zero(host.path("huge"))
        assert row(pool, "huge").state is State.CLEAN

    def test_a_wipe_by_another_users_command_begins_anew_and_shows_its_progress(self, host):
        """It zeroes all, so what it says would be below the progress of the interrupted one."""
        host.options["wipe_rate"] = 16
        host.make("huge", size=64 * MIB)
        host.pmem_namespaces.append("HUGE:huge")
        pool, owner = host.pool(), new_owner()
        pool.adopt(owner, [pool.find("huge")])
        pool.release(owner)
        wipe = vpmem(host, "wipe")
        wait_until(lambda: row(pool, "huge").wiped > 8 * MIB)
        kill(wipe)
        host.options["wipe_command"] = shlex.join(interpreter.command("vpmem_driver.worker", site=False))
        events = []
        wipes.raise_for(host.pool().wipe(on_progress=events.append))
        assert min(event.done for event in events) <= 4 * MIB

    def test_a_claim_whose_process_was_killed_is_accounted_for(self, host):
        host.options["wipe_rate"] = 4
        pool, owner = host.pool(), new_owner()
        claim = vpmem(host, "claim", owner, "LARGE")
        wait_until(lambda: row(pool, "large0").wiped > 0)
        kill(claim)
        reserved = row(pool, "large0")
        assert (reserved.state, reserved.owner) == (State.DIRTY, owner)
        (record,) = [record for record in pool.records() if record.name == "large0"]
        assert "reserved for its owner until it is wiped" in record.reason
        (other,) = pool.claim(new_owner(), ["LARGE"])
        assert other.name == "large1", "what is reserved is nobody else's"
        pool.release(owner)
        assert row(pool, "large0").owner is None

    def test_a_wipe_finishes_a_reservation(self, host):
        host.options["wipe_rate"] = 4
        pool, owner = host.pool(), new_owner()
        claim = vpmem(host, "claim", owner, "LARGE")
        wait_until(lambda: row(pool, "large0").wiped > 0)
        kill(claim)
        host.options["wipe_rate"] = 0
        host.pool().wipe()
        (grant,) = pool.grants(owner)
        assert (grant.name, grant.ready) == ("large0", True)
        assert is_zero(host.path("large0"))

    def test_a_release_in_the_middle_of_the_claims_wipe(self, host):
        host.options["wipe_rate"] = 8
        pool, owner, released = host.pool(), new_owner(), []

        def release_once(event):
            if not released:
                released.extend(host.pool().release(owner))

        with pytest.raises(exception.NotOwner, match="released while it was being wiped"):
            pool.claim(owner, ["LARGE"], on_progress=release_once)
        assert (row(pool, "large0").state, row(pool, "large0").owner) == (State.CLEAN, None)

    def test_two_that_wipe_one_namespace_wipe_it_once(self, host):
        host.options["wipe_rate"] = 8
        pool, results = host.pool(), []
        uuid = pool.find("large0")
        first = threading.Thread(target=lambda: results.extend(host.pool().wipe([uuid])))
        first.start()
        wait_until(lambda: row(pool, "large0").wiped > 0)
        results += pool.wipe([uuid])
        first.join()
        assert [result.outcome for result in results] == [Outcome.WIPED, Outcome.WIPED]
        assert [move.to_state for move in pool._state.ledger.history(uuid=uuid)] == ["unknown", "dirty", "clean"]

    def test_one_that_fails_does_not_stop_the_others(self, host):
        host.options["wipe_command"] = host.forgetful(host.path("large0"), 0)
        pool = host.pool()
        results = pool.wipe([pool.find(name) for name in ("large0", "small0", "small1")])
        outcomes = {result.name: result.outcome for result in results}
        assert outcomes == {"large0": Outcome.MEDIA, "small0": Outcome.WIPED, "small1": Outcome.WIPED}
        with pytest.raises(exception.WipeFailed, match="large0"):
            wipes.raise_for(results)


class TestReconcile:
    def test_two_pools_of_two_configurations_live_side_by_side(self, host, tmp_path):
        from tests.functional.conftest import Host

        (tmp_path / "other").mkdir()
        other = Host(tmp_path / "other")
        other.make("small0", node=0)
        other.pmem_namespaces = ["SMALL:small0"]
        first, second, owner = host.pool(), other.pool(), new_owner()
        first.claim(owner, ["SMALL"])
        assert second.grants(owner) == ()
        assert [inventory.label for inventory in second.inventory()] == ["SMALL"]
        other.close()

    def test_what_is_held_keeps_its_label_until_it_is_released(self, host):
        owner = new_owner()
        (held,) = host.pool().claim(owner, ["SMALL"])
        host.pmem_namespaces = [f"OTHER:{held.name}"]
        pool = host.pool()
        assert pool.record(held.uuid).label == "SMALL"
        assert [(entry.label, entry.total) for entry in pool.inventory()] == [("OTHER", 0), ("SMALL", 1)]
        with pytest.raises(exception.InvalidRequest, match="SMALL"):
            pool.claim(new_owner(), ["SMALL"])
        pool.release(owner)
        assert pool.record(held.uuid).label == "OTHER"
        assert [grant.uuid for grant in pool.claim(new_owner(), ["OTHER"])] == [held.uuid]

    def test_inventory_adds_up(self, host):
        pool = host.pool()
        pool.claim(new_owner(), ["SMALL"])
        pool.wipe([pool.find("small1")])
        host.path("large1").unlink()
        pool.reconcile()
        large, small = pool.inventory()
        assert (large.total, large.unknown, large.unavailable) == (2, 1, 1)
        assert (small.total, small.claimed, small.clean, small.unknown) == (3, 1, 1, 1)

    def test_one_that_is_held_and_has_another_size_is_told_of_and_kept(self, host, caplog):
        owner = new_owner()
        (held,) = host.pool().claim(owner, ["SMALL"])
        pattern = fill(host.path(held.name))
        with host.path(held.name).open("ab") as file:
            file.write(bytes(MIB))
        (grant,) = host.pool().grants(owner)
        assert grant.size == held.size + MIB
        assert f"Size of {held.name} changed from {held.size} to {grant.size} bytes; {owner} holds it" in caplog.text
        assert host.path(held.name).read_bytes()[: held.size] == pattern

    def test_what_is_wrong_is_said_when_it_becomes_so_and_not_at_each_look(self, host, caplog):
        pool, path = host.pool(), host.path("large1")
        away = path.rename(host.directory.parent / "away")
        for _ in range(3):
            pool.reconcile()
        pool.claim(new_owner(), ["SMALL"])
        assert caplog.text.count("large1 is in the ledger but not on this host") == 1
        away.rename(path)
        pool.reconcile()
        path.rename(away)
        pool.reconcile()
        assert caplog.text.count("large1 is in the ledger but not on this host") == 2

    def test_a_namespace_that_comes_later(self, host):
        pool = host.pool()
        host.make("small9", node=0)
        host.pmem_namespaces = ["LARGE:large0|large1", "SMALL:small9"]
        assert [record.state for record in host.pool().records() if record.name == "small9"] == ["unknown"]
        pool.claim(new_owner(), ["SMALL"])  # the older pool has not seen it, and does without it

    def test_an_older_pool_releases_what_only_a_newer_one_has_discovered(self, host):
        older, owner = host.pool(), new_owner()
        older.inventory()  # its table has the namespaces of now
        host.make("small9", node=0)
        host.pmem_namespaces = ["LARGE:large0|large1", "SMALL:small9"]
        host.pool().claim(owner, ["SMALL"])
        older.release(owner)
        assert (row(older, "small9").state, row(older, "small9").owner) == ("dirty", None)

    def test_a_row_that_cannot_be_is_left_out_and_not_fatal(self, host, caplog):
        pool = host.pool()
        with pool._state.ledger.transaction():
            for name, change in {"large0": f"size = {2**63 - 1}", "small0": f"numa_node = {2**40}"}.items():
                pool._state.ledger._execute(f"UPDATE namespace SET {change} WHERE name = ?", (name,))  # noqa: S608
        for name in ("large0", "small0"):  # what discovery says would put it right
            host.path(name).rename(host.directory.parent / name)
        pool = host.pool()
        (grant,) = pool.claim(new_owner(), ["LARGE"])
        assert grant.name == "large1"
        assert "the ledger records an impossible size of 9223372036854775807 bytes" in caplog.text


def is_prefix_zero(path, length):
    with path.open("rb") as file:
        return not any(file.read(length))


class TestFind:
    """A lookup by name or uuid reads only some rows, and finds what a listing has."""

    def test_it_finds_what_a_listing_has(self, host):
        host.make("small0", node=3)  # one name for two namespaces
        (host.directory / "empty").touch()
        host.pmem_namespaces = ["LARGE:large0|large1"]
        pool, owner = host.pool(), new_owner()
        pool.claim(owner, ["LARGE"])
        host.path("large1").unlink()
        pool.reconcile()
        records = pool.records()
        names = {record.name for record in records}
        assert {"large0", "large1", "small0", "small1", "small2", "empty"} == names
        for name in [*names, *(record.uuid for record in records if record.uuid)]:
            listed = [record for record in records if name in {record.name, record.uuid}]
            if len(listed) == 1:
                assert pool.record(name) == listed[0]
            else:
                with pytest.raises(exception.InvalidRequest, match="several namespaces have that name") as raised:
                    pool.record(name)
                assert all(record.uuid in str(raised.value) for record in listed)

    def test_an_unusable_one_is_refused_with_the_reason(self, host):
        (host.directory / "empty").touch()
        with pytest.raises(exception.InvalidRequest, match=r"empty.*Choose another"):
            host.pool().find("empty")

    def test_a_uuid_in_capitals(self, host):
        pool = host.pool()
        uuid = pool.find("small0")
        assert pool.find(uuid.upper()) == uuid

    @pytest.mark.parametrize("name", ["", "small", "SMALL0", "small0 ", "small%", "?", "\udcff", "small0\0", "\ud800"])
    def test_a_name_that_nothing_has(self, host, name):
        with pytest.raises(exception.UnknownNamespace):
            host.pool().find(name)

    def test_an_unusable_namespace_has_the_name_that_its_row_has(self, host):
        """The row of a file keeps the old name while the file cannot be used."""
        pool = host.pool()
        host.path("small0").rename(host.directory / "new")
        os.truncate(host.directory / "new", 5000)
        pool.reconcile()
        assert pool.record("small0").state == "missing"
        with pytest.raises(exception.UnknownNamespace):
            pool.record("new")

    def test_a_namespace_that_another_process_has_discovered(self, host):
        older = host.pool()
        host.make("small9", node=0)
        newer = host.pool()
        assert older.find("small9") == newer.find("small9")

    def test_it_does_not_read_all_rows(self, host, monkeypatch):
        """On a host with thousands of namespaces that took most of the time of Nova's claim."""
        pool = host.pool()
        monkeypatch.setattr(pool._state.ledger, "rows", None)
        assert pool.record("small0").name == "small0"
