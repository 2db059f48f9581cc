"""A claim of several namespaces: all are reserved first, and claimed together when the last is wiped."""

import itertools

import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from tests.functional.test_invariants import pool_with, wipe_all
from tests.functional.test_pool import row
from vpmem_driver import exception
from vpmem_driver.engine import Outcome, Result
from vpmem_driver.pool import wipes


def use_what_is_ready(host, owner):
    """What a second user of the owner does, a retry or the start of its domain: write to all that is ready."""
    return [fill(host.path(grant.name)) for grant in host.pool().grants(owner) if grant.ready]


def test_a_claim_that_is_called_off_does_not_make_clean_what_its_owner_has_written(host):
    pool, owner, written = host.pool(), new_owner(), []
    wipes.raise_for(pool.wipe([pool.find("small0")]))
    host.pmem_namespaces = ["LARGE:large0", "SMALL:small0"]
    host.options["wipe_command"] = host.forgetful(host.path("large0"), 0)
    pool = host.pool()
    with pytest.raises(exception.WipeFailed, match="large0"):
        pool.claim(owner, ["SMALL", "LARGE"], on_progress=lambda event: written.extend(use_what_is_ready(host, owner)))
    assert row(pool, "small0").state != "clean" or is_zero(host.path("small0"))
    assert {row.owner for row in pool._state.ledger.rows()} == {None}


def test_none_is_ready_before_all_are(host):
    pool, owner, ready = host.pool(), new_owner(), []
    wipes.raise_for(pool.wipe([pool.find("small0")]))
    pool.claim(
        owner, ["SMALL", "LARGE"], on_progress=lambda event: ready.append({g.ready for g in host.pool().grants(owner)})
    )
    assert set(itertools.chain.from_iterable(ready)) == {False}
    assert {grant.ready for grant in pool.grants(owner)} == {True}


def test_a_retry_that_joins_a_claim_gets_the_same(host):
    pool, owner, joined = host.pool(), new_owner(), []
    host.options["wipe_parallel"] = 1

    def retry(event):
        if event.phase == "verify" and not joined:
            uuids = [grant.uuid for grant in host.pool().grants(owner)]
            joined.append(host.pool()._claims._reserve_exact(owner, uuids))

    grants = pool.claim(owner, ["SMALL", "LARGE"], on_progress=retry)
    assert {held.reservation for held in joined[0]} != {None}
    again = host.pool().claim_exact(owner, [grant.uuid for grant in grants])
    assert [grant.uuid for grant in again] == [grant.uuid for grant in grants]
    assert len(pool.grants(owner)) == 2


def test_a_claim_that_another_process_completes_is_a_claim(host):
    """The claimant's own wipe is called off, but another process has wiped and claimed all by then."""
    pool, owner, completed = host.pool(), new_owner(), []

    def wipe(uuids, **_):
        completed.append(host.pool().wipe())
        return [Result(uuid=uuid, name=uuid, outcome=Outcome.STOPPED) for uuid in uuids]

    pool._claims._wiper.wipe = wipe
    grants = pool.claim(owner, ["SMALL", "LARGE"])
    assert [grant.ready for grant in grants] == [True, True]
    assert len(pool.grants(owner)) == len(grants)


def test_releasing_one_of_a_reservation_calls_off_the_claim(host):
    pool, owner = host.pool(), new_owner()
    wipes.raise_for(pool.wipe([pool.find("small0")]))
    reserved = pool._claims._reserve(owner, [1, 0], None, frozenset())
    pool.release(owner, [reserved[0].uuid])
    assert {row.owner for row in pool._state.ledger.rows()} == {None}
    assert row(pool, "small0").state == "clean", "nobody has had it"


def test_a_reservation_whose_process_died_is_shown_and_can_be_given_back(host):
    pool, owner = host.pool(), new_owner()
    wipe_all(pool)
    (reserved,) = pool._claims._reserve(owner, [1], None, frozenset())
    record = host.pool().record(reserved.uuid)
    assert (record.state, record.owner) == ("clean", owner)
    assert f"'vpmem release {owner}' cancels it" in record.reason
    host.pool().release(owner)
    assert (row(pool, reserved.name).state, row(pool, reserved.name).owner) == ("clean", None)


def test_a_reserved_clean_namespace_that_grows_is_not_handed_out(host):
    pool, owner = host.pool(), new_owner()
    wipe_all(pool)
    (reserved,) = pool._claims._reserve(owner, [1], None, frozenset())
    with host.path(reserved.name).open("ab") as file:
        file.write(b"x" * 4096)
    host.pool()
    assert (row(pool, reserved.name).state, row(pool, reserved.name).owner) == ("unknown", None)


class TestInUse:
    """A clean namespace that somebody uses: released, wiped, and then its old definition was started again."""

    def test_a_clean_namespace_is_not_handed_out_while_a_guest_has_it(self, host):
        wipe_all(host.pool())
        pool = pool_with(host, lambda device: "the running domain db1" if device.endswith("small0") else None)
        (grant,) = pool.claim(new_owner(), ["SMALL"], numa_node=0)
        assert grant.name == "small2"
        found = row(pool, "small0")
        assert (found.state, found.owner, found.reason) == ("dirty", None, "in use by the running domain db1")
        pool.close()

    def test_when_there_is_no_other_the_reason_is_told(self, host):
        wipe_all(host.pool())
        pool, owner = pool_with(host, lambda device: "the running domain db1"), new_owner()
        with pytest.raises(exception.NamespaceInUse, match="the running domain db1"):
            pool.claim(owner, ["SMALL", "LARGE"])
        assert pool.grants(owner) == ()
        pool.close()

    def test_it_is_no_longer_what_its_last_owner_left(self, host):
        pool, owner = host.pool(), new_owner()
        (grant,) = pool.claim(owner, ["SMALL"])
        pool.release(owner)
        wipe_all(pool)
        pool = pool_with(host, lambda device: "the running domain db1")
        with pytest.raises(exception.NamespaceInUse):
            pool.claim_exact(new_owner(), [grant.uuid])
        with pytest.raises(exception.NotOwner, match="its wipe has begun"):
            pool.adopt(owner, [grant.uuid])
        pool.close()

    def test_it_does_not_become_unknown(self, host):
        """It was never held, but it was wiped: what is in it now is the user's."""
        wipe_all(host.pool())
        pool, owner = pool_with(host, lambda device: "the running domain db1"), new_owner()
        for _ in range(2):
            with pytest.raises(exception.NamespaceInUse):
                pool.claim_exact(owner, [pool.find("small0")])
        assert row(pool, "small0").state == "dirty"
        pool.close()

    def test_a_libvirt_that_does_not_answer_hands_out_nothing(self, host):
        wipe_all(host.pool())
        host.options["connection_uri"] = "nosuch:///system"
        pool, owner = host.pool(), new_owner()
        with pytest.raises(exception.LibvirtError, match="nosuch"):
            pool.claim(owner, ["SMALL"])
        assert pool.grants(owner) == ()
        assert {row.state for row in pool._state.ledger.rows()} == {"clean"}

    def test_the_guest_of_a_retry_does_not_cost_its_owner_the_namespace(self, host):
        """The retry completes the claim and starts the guest between the reservation and the look for users."""
        wipe_all(host.pool())
        owner, patterns = new_owner(), {}

        def complete_and_start(device):
            if not patterns:
                for grant in host.pool().claim_exact(
                    owner, [row.uuid for row in host.pool()._state.ledger.held(owner)]
                ):
                    patterns[grant.name] = fill(host.path(grant.name))
            return "the running domain db1"

        pool = pool_with(host, complete_and_start)
        grants = pool.claim(owner, ["SMALL", "LARGE"])
        assert {grant.name for grant in grants} == set(patterns)
        assert {row.state for row in pool._state.ledger.held(owner)} == {"claimed"}
        assert {name: host.path(name).read_bytes() for name in patterns} == patterns
        pool.close()
