"""Memory that loses its content when the host restarts: no owner gets bytes that nobody knows, or bytes of another."""

import contextlib

import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from vpmem_driver import exception
from vpmem_driver.cli import listing
from vpmem_driver.hook import check
from vpmem_driver.model import State
from vpmem_driver.pool import Pool, volatile


@pytest.fixture
def host(host):
    host.volatile = True
    host.pmem_namespaces = ["VOLATILE_LARGE:large0|large1", "volatile.small:small0|small1|small2"]
    return host


def records_of(pool):
    return {record.name: record for record in pool.records()}


def row_of(pool, name):
    (row,) = [row for row in pool.rows() if row.name == name]
    return row


def test_the_same_boot_keeps_what_is_held(host):
    owner = new_owner()
    (grant,) = host.pool().claim(owner, ["VOLATILE_LARGE"])
    assert not grant.pmem, "a guest that is told of <pmem/> takes its stores for persistent"
    before = fill(host.path(grant.name))
    host.close()
    (again,) = host.pool().claim_exact(owner, [grant.uuid])
    assert again == grant
    assert host.path(grant.name).read_bytes() == before


def test_after_a_restart_what_is_held_is_wiped_for_its_owner_before_its_guest_starts(host):
    owner, other = new_owner(), new_owner()
    granted = host.pool().claim(owner, ["VOLATILE_LARGE", "VOLATILE_LARGE"])
    for grant in granted:
        fill(host.path(grant.name))
    host.restart()
    pool = host.pool()
    assert [(each.uuid, each.ready) for each in pool.grants(owner)] == [(each.uuid, False) for each in granted]
    record = records_of(pool)[granted[0].name]
    assert (record.state, record.owner, record.volatile) == ("dirty", owner, True)
    assert list(pool.history(uuid=granted[0].uuid))[-1].reason == "the host has restarted; its content is lost"
    with pytest.raises(exception.InsufficientNamespaces):
        pool.claim(other, ["VOLATILE_LARGE"])
    again = pool.claim_exact(owner, [grant.uuid for grant in granted])
    assert all(grant.ready and is_zero(host.path(grant.name)) for grant in again)
    assert [grant.uuid for grant in again] == [grant.uuid for grant in granted]


def test_an_operators_wipe_does_the_same_for_all_owners(host):
    owner = new_owner()
    (grant,) = host.pool().claim(owner, ["VOLATILE_LARGE"])
    fill(host.path(grant.name))
    host.restart()
    pool = host.pool()
    pool.wipe()
    assert row_of(pool, grant.name).state is State.CLAIMED
    assert row_of(pool, grant.name).owner == owner
    assert is_zero(host.path(grant.name))


def test_the_hook_starts_no_guest_before_that(host):
    owner = new_owner()
    (grant,) = host.pool().claim(owner, ["VOLATILE_LARGE"])
    host.restart()
    pool = host.pool()
    xml = (
        f"<domain><uuid>{owner}</uuid><devices><memory model='nvdimm'><source><path>{grant.device}</path></source>"
        "<target><size unit='KiB'>1</size></target></memory></devices></domain>"
    )
    found = host.source(host.conf()).namespaces()
    with pytest.raises(exception.NamespaceBusy):
        check.check("guest", xml, pool, found)
    pool.wipe()
    check.check("guest", xml, pool, found)


def test_after_a_restart_nothing_is_clean_and_no_owner_adopts_what_is_lost(host):
    pool, owner = host.pool(), new_owner()
    (grant,) = pool.claim(owner, ["volatile.small"])
    pool.release(owner)
    free = pool.find("large0")
    pool.wipe([free])
    host.restart()
    pool = host.pool()
    assert (row_of(pool, "large0").state, row_of(pool, grant.name).state) == (State.UNKNOWN, State.DIRTY)
    with pytest.raises(exception.NotOwner, match="its wipe has begun"):
        pool.adopt(owner, [grant.uuid])
    assert row_of(pool, "large1").state is State.UNKNOWN


def test_a_wipe_begins_again_after_a_restart(host):
    """What it had zeroed may contain anything now."""
    pool = host.pool()
    uuid = pool.find("large0")
    pool.wipe([uuid])
    owner = new_owner()
    pool.adopt(owner, [uuid], in_domain=True)
    pool.release(owner)
    ledger = pool._state.ledger
    run = ledger.begin_wipe(uuid, 0)
    ledger.progress(uuid, run, wiped=4 << 20)
    assert row_of(pool, "large0").wiped == 4 << 20
    host.restart()
    fill(host.path("large0"))
    pool = host.pool()
    row = row_of(pool, "large0")
    assert (row.state, row.wiped, row.run) == (State.DIRTY, 0, None)
    pool.wipe([uuid])
    assert is_zero(host.path("large0"))


def test_a_claim_that_a_restart_interrupted_stays_reserved(host):
    pool, owner = host.pool(), new_owner()
    uuids = [pool.find(name) for name in ("large0", "large1")]
    pool.wipe(uuids[:1])
    reserved = pool._claims._reserve_exact(owner, uuids)
    assert [row.state for row in reserved] == [State.CLEAN, State.DIRTY]
    host.restart()
    pool = host.pool()
    assert [(row.state, row.reservation) for row in pool.held(owner)] == [(State.DIRTY, reserved[0].reservation)] * 2
    granted = pool.claim_exact(owner, uuids)
    assert all(is_zero(host.path(grant.name)) for grant in granted)


def test_a_restart_is_noticed_once(host):
    owner = new_owner()
    (grant,) = host.pool().claim(owner, ["VOLATILE_LARGE"])
    host.restart()
    pool = host.pool()
    pool.claim_exact(owner, [grant.uuid])
    before = fill(host.path(grant.name))
    lines = len(list(pool.history()))
    pool.reconcile()
    assert host.pool().grants(owner)[0].ready
    assert host.path(grant.name).read_bytes() == before
    assert len(list(pool.history())) == lines


def test_one_that_is_missing_loses_its_content_when_it_is_back(host):
    owner = new_owner()
    (grant,) = host.pool().claim(owner, ["VOLATILE_LARGE"])
    host.restart()
    path = host.path(grant.name)
    elsewhere = host.directory.parent / "elsewhere"
    path.rename(elsewhere)
    pool = host.pool()
    assert records_of(pool)[grant.name].state == "missing"
    assert row_of(pool, grant.name).state is State.CLAIMED
    elsewhere.rename(path)
    assert not pool.grants(owner)[0].ready


def test_a_container_that_hides_the_hosts_boot_wipes_nothing(host, tmp_path, monkeypatch):
    owner = new_owner()
    (grant,) = host.pool().claim(owner, ["VOLATILE_LARGE"])
    before = fill(host.path(grant.name))
    host.close()
    monkeypatch.setattr(volatile, "BOOT_ID", tmp_path / "boot_id")
    with pytest.raises(exception.BootUnknown, match="cannot be read"):
        host.pool()
    (tmp_path / "boot_id").write_text(new_owner())
    with pytest.raises(exception.BootUnknown, match="a container has put another file"):
        host.pool()
    assert host.path(grant.name).read_bytes() == before


@pytest.mark.parametrize("label", ["LARGE", "LARGE_VOLATILE"])
def test_a_flavor_must_know_that_it_asks_for_volatile_memory(host, label):
    host.pmem_namespaces = [f"{label}:large0"]
    with pytest.raises(exception.InvalidNamespaceConfig, match="it is volatile, and only a label whose name begins"):
        host.pool()


def test_a_label_has_memory_of_one_kind(host):
    host.pmem_namespaces = ["VOLATILE:large0|large1", "SMALL:small0|small1|small2"]
    source = host.source(host.conf())
    source.persistent = frozenset({"large1", "small0", "small1", "small2"})
    with pytest.raises(exception.InvalidNamespaceConfig, match=r"'large1' is unusable: it is persistent, but others"):
        Pool.from_conf(host.conf(), source=source)
    host.pmem_namespaces[0] = "VOLATILE:large0"
    with contextlib.closing(Pool.from_conf(host.conf(), source=source)) as pool:
        kinds = {record.name: listing.kind(record) for record in pool.records()}
        assert kinds == dict.fromkeys(source.persistent, "") | {"large0": "volatile"}


def test_a_label_of_persistent_memory_may_have_any_name(host):
    host.volatile = False
    assert host.pool().claim(new_owner(), ["VOLATILE_LARGE"])


def test_without_volatile_memory_nobody_asks_for_the_boot(host, tmp_path, monkeypatch):
    host.volatile = False
    monkeypatch.setattr(volatile, "BOOT_ID", tmp_path / "none")
    assert all(row.boot is None for row in host.pool().rows())


def test_what_was_clean_before_the_kernel_used_it_is_unknown(host):
    """In the same boot: it has become system RAM, and is free again."""
    pool, owner = host.pool(), new_owner()
    uuids = {name: pool.find(name) for name in ("large0", "large1", "small0")}
    pool.wipe(list(uuids.values()))
    pool.claim_exact(owner, [uuids["large1"]])
    pool._state.discovery.system_ram = frozenset(uuids)
    pool.reconcile()
    fill(host.path("large0"))
    assert records_of(pool)["large0"].state == "missing"
    pool._state.discovery.system_ram = frozenset()
    pool.reconcile()
    states = {name: row_of(pool, name).state for name in uuids}
    assert states == {"large0": State.UNKNOWN, "large1": State.CLAIMED, "small0": State.UNKNOWN}
    (grant,) = pool.claim_exact(new_owner(), [uuids["large0"]])
    assert is_zero(host.path(grant.name))


def test_a_wipe_that_the_kernel_has_overtaken_begins_again(host):
    pool = host.pool()
    uuid = pool.find("large0")
    pool.wipe([uuid])
    owner = new_owner()
    pool.adopt(owner, [uuid], in_domain=True)
    pool.release(owner)
    ledger = pool._state.ledger
    ledger.progress(uuid, ledger.begin_wipe(uuid, 0), wiped=4 << 20)
    pool._state.discovery.system_ram = frozenset({"large0"})
    pool.reconcile()
    assert (row_of(pool, "large0").state, row_of(pool, "large0").wiped) == (State.DIRTY, 0)
    lines = len(list(pool.history()))
    pool.reconcile()
    assert len(list(pool.history())) == lines
