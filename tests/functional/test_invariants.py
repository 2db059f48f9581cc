"""One test at least for each invariant of the design, named after it; each fails when the rule is broken."""

import os
import sqlite3
import threading

import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from tests.functional.test_transfer import Two
from vpmem_driver import exception, guestxml, ledger, pool
from vpmem_driver.engine import Engine, Outcome
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import DeviceModel, Hardware, State
from vpmem_driver.pool import labels, volatile, wipes
from vpmem_driver.sizes import KIB, MIB


@pytest.fixture(params=["nvdimm", "virtio-pmem", "volatile"])
def host(host, request, monkeypatch):
    """Every rule holds for each kind of memory while the host runs. Labels have the same names here."""
    host.options["device_model"] = [] if request.param == "virtio-pmem" else ["nvdimm"]
    host.volatile = request.param == "volatile"
    if host.volatile:
        monkeypatch.setattr(volatile, "RESOURCE_CLASS_PREFIX", "CUSTOM_PMEM_NAMESPACE_")
    return host


def state_of(some_pool, name):
    (record,) = [record for record in some_pool.records() if record.name == name]
    return record.state


def uuid_of(some_pool, name):
    return some_pool.find(name)


def wipe_all(some_pool):
    wipes.raise_for(some_pool.wipe([record.uuid for record in some_pool.records()]))


class HookedDomains(Domains):
    """Runs `hook` at the last question before the first byte is overwritten."""

    def __init__(self, hook):
        super().__init__(None)
        self.hook = hook

    def user_of(self, device, *, defined=False):
        return self.hook(device)

    def users_of(self, devices):
        return {device: user for device in devices if (user := self.hook(device)) is not None}


def pool_with(host, hook):
    conf = host.conf()
    source = host.source(conf)
    records = ledger.Ledger(conf.vpmem.state_path)
    engine = Engine(source, parallel=1, threads=1, rate=0)
    return pool.Pool(
        labels.parse(conf.libvirt.pmem_namespaces),
        source,
        records,
        wipes.Wiper(records, engine, source.find, HookedDomains(hook)),
    )


class TestInvariant1:
    """A namespace has at most one owner."""

    def test_invariant_1_a_claim_takes_what_nobody_holds(self, host):
        first, second = host.pool(), host.pool()
        grants = [first.claim(new_owner(), ["SMALL"]), second.claim(new_owner(), ["SMALL"])]
        grants.append(first.claim(new_owner(), ["SMALL"]))
        assert len({grant.uuid for (grant,) in grants}) == 3
        with pytest.raises(exception.InsufficientNamespaces):
            second.claim(new_owner(), ["SMALL"])

    def test_invariant_1_what_one_holds_no_other_adopts(self, host):
        owner = new_owner()
        (grant,) = host.pool().claim(owner, ["SMALL"])
        with pytest.raises(exception.NotOwner, match=owner):
            host.pool().adopt(new_owner(), [grant.uuid])
        assert host.pool()._state.ledger.row(grant.uuid).owner == owner

    def test_invariant_1_the_ledger_refuses_a_second_owner_whatever_the_table_says(self, host):
        one, other = host.pool(), host.pool()
        row = one._state.ledger.row(uuid_of(one, "small0"))
        with one._state.ledger.transaction():
            one._state.ledger.move(row, State.CLAIMED, "x", owner=new_owner(), position=0)
        with pytest.raises(exception.LedgerError), other._state.ledger.transaction():
            other._state.ledger.move(row, State.CLAIMED, "x", owner=new_owner(), position=0)


class TestInvariant2:
    """Nothing but the owner's guest changes the bytes of a claimed namespace: no wipe, whatever the caller says."""

    def test_invariant_2_a_wipe_by_name_is_refused(self, host):
        owner = new_owner()
        (grant,) = host.pool().claim(owner, ["LARGE"])
        pattern = fill(host.path(grant.name))
        with pytest.raises(exception.NamespaceClaimed, match=f"{grant.name} belongs to {owner}"):
            host.pool().wipe([grant.uuid])
        assert host.path(grant.name).read_bytes() == pattern

    def test_invariant_2_a_wipe_of_everything_passes_it_by(self, host):
        (grant,) = host.pool().claim(new_owner(), ["LARGE"])
        pattern = fill(host.path(grant.name))
        assert host.pool().wipe() == []
        assert host.path(grant.name).read_bytes() == pattern

    def test_invariant_2_the_wiper_itself_leaves_it_alone(self, host):
        some_pool = host.pool()
        (grant,) = some_pool.claim(new_owner(), ["LARGE"])
        pattern = fill(host.path(grant.name))
        some_pool._wiper.wipe([grant.uuid])
        assert host.path(grant.name).read_bytes() == pattern
        assert some_pool._state.ledger.row(grant.uuid).state is State.CLAIMED

    def test_invariant_2_claimed_between_the_decision_and_the_first_byte(self, host):
        owner = new_owner()
        (grant,) = host.pool().claim(owner, ["LARGE"])
        pattern = fill(host.path(grant.name))
        host.pool().release(owner)
        late = pool_with(host, lambda device: host.pool().adopt(owner, [grant.uuid]) and None)
        results = late.wipe([grant.uuid])
        late.close()
        assert host.path(grant.name).read_bytes() == pattern
        assert host.pool()._state.ledger.row(grant.uuid).owner == owner
        assert [result.outcome for result in results] == [Outcome.WIPED] or results[0].outcome is Outcome.STOPPED

    def test_invariant_2_a_running_domain_keeps_its_bytes_though_the_ledger_says_dirty(self, host):
        owner = new_owner()
        (grant,) = host.pool().claim(owner, ["LARGE"])
        pattern = fill(host.path(grant.name))
        host.pool().release(owner)
        guarded = pool_with(host, lambda device: "the running domain db1")
        (result,) = guarded.wipe([grant.uuid])
        guarded.close()
        assert (result.outcome, result.reason) == (Outcome.IN_USE, "the running domain db1")
        assert host.path(grant.name).read_bytes() == pattern
        assert state_of(host.pool(), grant.name) == "dirty"


class TestInvariant3:
    """A new owner gets zeros; the same owner gets its bytes as it left them."""

    def test_invariant_3_the_next_owner_finds_only_zeros(self, host):
        owner, some_pool = new_owner(), host.pool()
        first = some_pool.claim(owner, ["LARGE", "LARGE"])
        for grant in first:
            fill(host.path(grant.name))
        some_pool.release(owner)
        second = some_pool.claim(new_owner(), ["LARGE", "LARGE"])
        assert {grant.uuid for grant in first} == {grant.uuid for grant in second}
        assert all(is_zero(host.path(grant.name)) for grant in second)

    def test_invariant_3_what_this_ledger_has_never_had_is_wiped_first(self, host):
        assert not is_zero(host.path("large0"))
        for grant in host.pool().claim(new_owner(), ["LARGE", "SMALL"]):
            assert is_zero(host.path(grant.name))

    def test_invariant_3_the_same_owner_has_its_bytes_after_a_restart(self, host):
        owner = new_owner()
        (grant,) = host.pool().claim(owner, ["SMALL"])
        pattern = fill(host.path(grant.name))
        host.close()
        (again,) = host.pool().grants(owner)
        assert again.uuid == grant.uuid
        with open(again.device, "rb") as device:
            assert device.read() == pattern

    def test_invariant_3_an_interrupted_wipe_is_not_taken_for_a_whole_one(self, host):
        host.options["wipe_rate"] = 8
        host.options["wipe_parallel"] = 1
        owner, stop = new_owner(), threading.Event()
        path = host.make("huge", size=32 << 20)
        host.pmem_namespaces.append("HUGE:huge")
        some_pool = host.pool()
        some_pool.adopt(owner, [uuid_of(some_pool, "huge")])
        some_pool.release(owner)
        some_pool.wipe(stop=stop, on_progress=lambda event: stop.set())
        assert state_of(host.pool(), "huge") == "dirty"
        assert not is_zero(path)
        host.options["wipe_rate"] = 0
        host.pool().claim(new_owner(), ["HUGE"])
        assert is_zero(path)

    def test_invariant_3_a_file_that_was_replaced_is_not_clean(self, host):
        some_pool = host.pool()
        wipe_all(some_pool)
        path = host.path("small0")
        path.unlink()
        host.make("small0", node=0)
        host.pmem_namespaces = ["SMALL:small0"]
        assert {record.state for record in host.pool().records() if record.name == "small0"} == {"missing", "unknown"}
        host.pool().claim(new_owner(), ["SMALL"])
        assert is_zero(path)

    def test_invariant_3_a_clean_one_that_has_grown_is_unknown(self, host):
        some_pool = host.pool()
        wipe_all(some_pool)
        with host.path("small0").open("ab") as file:
            file.write(os.urandom(4096))
        assert state_of(host.pool(), "small0") == "unknown"

    def test_invariant_3_adopting_does_not_hand_over_somebody_elses_bytes(self, host):
        owner, some_pool = new_owner(), host.pool()
        (grant,) = some_pool.claim(owner, ["SMALL"])
        fill(host.path(grant.name))
        some_pool.release(owner)
        with pytest.raises(exception.NotOwner, match=owner):
            some_pool.adopt(new_owner(), [grant.uuid])

    def test_invariant_3_adopting_a_clean_one_succeeds_though_the_bytes_are_gone(self, host):
        owner, some_pool = new_owner(), host.pool()
        (grant,) = some_pool.claim(owner, ["SMALL"])
        some_pool.release(owner)
        some_pool.wipe([grant.uuid])
        with pytest.raises(exception.NamespaceUnavailable, match="it was wiped .*'vpmem claim'"):
            some_pool.adopt(owner, [grant.uuid])
        assert state_of(some_pool, grant.name) == "clean"


class TestInvariant4:
    """Release and wipe name the owner and the namespace; what the ledger does not hold for it is refused."""

    def test_invariant_4_release_by_somebody_else(self, host):
        owner, some_pool = new_owner(), host.pool()
        (grant,) = some_pool.claim(owner, ["SMALL"])
        stranger = new_owner()
        some_pool.claim(stranger, ["SMALL"])
        with pytest.raises(exception.NotOwner, match=f"belongs to {owner}"):
            some_pool.release(stranger, [grant.uuid])
        assert [held.uuid for held in some_pool.grants(owner)] == [grant.uuid]
        assert len(some_pool.grants(stranger)) == 1

    def test_invariant_4_release_by_an_owner_that_is_not_known(self, host):
        with pytest.raises(exception.NotOwner, match="the ledger records none for it"):
            host.pool().release(new_owner())

    def test_invariant_4_one_wrong_name_releases_nothing(self, host):
        owner, some_pool = new_owner(), host.pool()
        (grant,) = some_pool.claim(owner, ["SMALL"])
        other = next(record.uuid for record in some_pool.records() if record.uuid != grant.uuid)
        with pytest.raises(exception.NotOwner):
            some_pool.release(owner, [grant.uuid, other])
        assert state_of(some_pool, grant.name) == "claimed"

    def test_invariant_4_a_released_one_cannot_be_released_again(self, host):
        owner, some_pool = new_owner(), host.pool()
        some_pool.claim(owner, ["SMALL"])
        some_pool.release(owner)
        with pytest.raises(exception.NotOwner):
            some_pool.release(owner)


class TestInvariant5:
    """The ledger is durable before the act that it allows."""

    def test_invariant_5_claimed_is_on_disk_before_the_claim_returns(self, host):
        owner = new_owner()
        some_pool = host.pool()
        (grant,) = some_pool.claim(owner, ["SMALL"])
        with sqlite3.connect(some_pool._state.ledger.path) as another:
            row = another.execute("SELECT state, owner FROM namespace WHERE uuid = ?", (grant.uuid,)).fetchone()
        another.close()
        assert row == ("claimed", owner)

    def test_invariant_5_a_claim_that_is_not_on_disk_is_not_given(self, host, monkeypatch):
        some_pool = host.pool()
        wipe_all(some_pool)
        owner = new_owner()
        with monkeypatch.context() as patch:
            patch.setattr(ledger.Ledger, "move", _fail)
            with pytest.raises(exception.LedgerError):
                some_pool.claim(owner, ["SMALL"])
        assert some_pool._state.ledger.held(owner) == []
        assert len(some_pool.claim(new_owner(), ["SMALL", "SMALL", "SMALL"])) == 3, "the table was put right again"

    def test_invariant_5_a_release_that_is_not_on_disk_is_not_told(self, host, monkeypatch):
        some_pool, owner = host.pool(), new_owner()
        some_pool.claim(owner, ["SMALL"])
        with monkeypatch.context() as patch:
            patch.setattr(ledger.Ledger, "move", _fail)
            with pytest.raises(exception.LedgerError):
                some_pool.release(owner)
        assert len(some_pool.grants(owner)) == 1
        assert len(some_pool.release(owner)) == 1

    def test_invariant_5_begun_is_on_disk_before_the_first_byte(self, host):
        seen = []
        some_pool = host.pool()
        pattern = host.path("small0").read_bytes()

        class Spy(ledger.Ledger):
            def begin_wipe(self, uuid, wiped, *, start=None):
                seen.append(host.path("small0").read_bytes() == pattern)
                return super().begin_wipe(uuid, wiped, start=start)

        uuid = uuid_of(some_pool, "small0")
        some_pool._wiper._ledger = Spy(host.state_path)
        some_pool.wipe([uuid])
        some_pool._wiper._ledger.close()
        assert seen == [True]
        assert is_zero(host.path("small0"))

    def test_invariant_5_clean_comes_after_the_whole_check(self, host):
        some_pool, phases = host.pool(), []
        uuid = uuid_of(some_pool, "small0")

        def on_progress(event):
            phases.append((event.phase, event.done, host.pool()._state.ledger.row(uuid).state))

        some_pool.wipe([uuid], on_progress=on_progress)
        assert phases[-1] == ("verify", 4 << 20, State.DIRTY)
        assert state_of(some_pool, "small0") == "clean"


class TestInvariant6:
    """In doubt, keep."""

    def test_invariant_6_an_unreadable_ledger_hands_out_and_wipes_nothing(self, host):
        host.pool()
        before = {path: path.read_bytes() for path in host.directory.rglob("*") if path.is_file()}
        (host.state_path / ledger.FILE_NAME).write_bytes(b"not a ledger" * 1000)
        for suffix in ("-wal", "-shm"):
            (host.state_path / (ledger.FILE_NAME + suffix)).unlink(missing_ok=True)
        with pytest.raises(exception.LedgerCorrupt, match="move the ledger away"):
            host.pool()
        assert before == {path: path.read_bytes() for path in host.directory.rglob("*") if path.is_file()}

    def test_invariant_6_an_empty_discovery_is_an_error(self, host):
        owner = new_owner()
        host.pool().claim(owner, ["SMALL"])
        host.directory.rename(host.directory.parent / "elsewhere")
        host.directory.mkdir()
        with pytest.raises(exception.DiscoveryFailed, match="found no usable namespace, but the ledger has 5"):
            host.pool()
        host.directory.rmdir()
        (host.directory.parent / "elsewhere").rename(host.directory)
        assert len(host.pool().grants(owner)) == 1

    def test_invariant_6_a_failed_discovery_is_an_error(self, host):
        host.pool()
        host.directory.rename(host.directory.parent / "elsewhere")
        with pytest.raises(exception.DiscoveryFailed):
            host.pool()

    def test_invariant_6_what_is_gone_keeps_its_record(self, host):
        owner = new_owner()
        (grant,) = host.pool().claim(owner, ["LARGE"])
        path = host.path(grant.name)
        path.rename(host.directory.parent / "away")
        (record,) = [record for record in host.pool().records() if record.uuid == grant.uuid]
        assert (record.state, record.owner, record.device) == ("missing", owner, None)
        (host.directory.parent / "away").rename(path)
        assert state_of(host.pool(), grant.name) == "claimed"

    def test_invariant_6_a_libvirt_that_does_not_answer_stops_the_wipe(self, host):
        host.options["connection_uri"] = "nosuch:///system"
        some_pool = host.pool()
        before = host.path("small0").read_bytes()
        (result,) = some_pool.wipe([uuid_of(some_pool, "small0")])
        assert result.outcome is Outcome.HOST
        assert "nosuch:///system" in result.reason
        assert host.path("small0").read_bytes() == before
        assert state_of(some_pool, "small0") == "unknown"


class TestInvariant7:
    """Identity is the namespace's uuid."""

    def test_invariant_7_a_claim_follows_the_namespace_not_the_path(self, host):
        owner = new_owner()
        (grant,) = host.pool().claim(owner, ["LARGE"])
        pattern = fill(host.path(grant.name))
        other = "large1" if grant.name == "large0" else "large0"
        mine, theirs, aside = host.path(grant.name), host.path(other), host.directory.parent / "aside"
        mine.rename(aside)
        theirs.rename(mine)
        aside.rename(theirs)
        (again,) = host.pool().grants(owner)
        assert again.device == str(theirs)
        assert again.known_device == str(mine)
        host.pool().claim(new_owner(), ["LARGE"])
        assert theirs.read_bytes() == pattern
        assert is_zero(mine)

    def test_invariant_7_two_of_one_name_are_told_apart(self, host):
        host.make("small0", node=7)
        with pytest.raises(
            exception.InvalidNamespaceConfig, match="several namespaces of this host have the name 'small0'"
        ):
            host.pool()
        host.pmem_namespaces = []
        uuids = [record.uuid for record in host.pool().records() if record.name == "small0"]
        host.pmem_namespaces = [f"SMALL:{uuids[1]}"]
        (grant,) = host.pool().claim(new_owner(), ["SMALL"])
        assert grant.uuid == uuids[1]

    def test_invariant_7_an_operator_must_say_which_of_two(self, host):
        host.pmem_namespaces = []
        host.make("small0", node=7)
        with pytest.raises(exception.InvalidRequest, match="Identify it by its uuid"):
            host.pool().find("small0")


def _fail(*_args, **_kwargs):
    raise exception.LedgerError(path="x", reason="disk I/O error", remedy="Fix it")


class Move:
    """Two namespaces of one host: an owner's content goes from one to the other."""

    def __init__(self, host):
        self.host, self.owner, self.copy = host, new_owner(), "00c0ffee"
        self.pool = host.pool()
        (self.source,) = self.pool.claim(self.owner, ["SMALL"])
        self.content = fill(host.path(self.source.name))
        self.target = next(row for row in self.pool.rows() if row.owner is None and row.name.startswith("small"))

    def reserve(self):
        self.pool.copies.depart(self.owner, self.copy)
        self.pool.copies.expect_exact(self.owner, self.copy, [self.target.uuid], [self.source])

    def run(self, on_progress=lambda event: None):
        self.pool.copies.copy(self.copy, self.source.uuid, self.target.uuid, on_progress=on_progress)

    def row(self, which):
        return self.pool._state.ledger.row(which.uuid)

    def bytes_of(self, which):
        return self.host.path(which.name).read_bytes()


class TestInvariantsOfCopies:
    """The same invariants for a copy, and the eighth: at every moment of a move one side has everything."""

    def test_invariant_2_a_copy_does_not_write_to_a_claimed_namespace(self, host):
        move = Move(host)
        other = new_owner()
        move.pool.claim_exact(other, [move.target.uuid])
        theirs = fill(host.path(move.target.name))
        with pytest.raises(exception.NamespaceUnavailable):
            move.reserve()
        with pytest.raises(exception.CopyFailed):
            move.run()
        assert move.bytes_of(move.target) == theirs

    def test_invariant_2_a_copy_does_not_write_to_what_a_domain_uses(self, host):
        move = Move(host)
        move.reserve()
        before = move.bytes_of(move.target)
        used = pool_with(host, lambda device: "the running domain guest" if move.target.name in device else None)
        with pytest.raises(exception.NamespaceInUse):
            used.copies.copy(move.copy, move.source.uuid, move.target.uuid, on_progress=lambda event: None)
        used.close()
        assert move.bytes_of(move.target) == before

    def test_invariant_3_every_byte_is_overwritten_with_the_owners_content_or_zeros(self, host):
        move = Move(host)
        with host.path(move.source.name).open("r+b") as file:
            file.write(bytes(1 << 20))  # zeros in the source are zeros in the destination, whatever was there
        move.reserve()
        move.run()
        assert move.bytes_of(move.target) == bytes(1 << 20) + move.content[1 << 20 :]

    def test_invariant_5_received_only_after_the_bytes_are_durable(self, host):
        move = Move(host)
        move.reserve()
        seen = []

        def look(event):
            row = move.row(move.target)
            assert row.state is State.RECEIVING
            assert move.bytes_of(move.target)[: row.copied] == move.content[: row.copied]
            seen.append(event.phase)

        move.run(look)
        assert set(seen) == {"copy", "verify"}
        assert move.row(move.target).state is State.CLAIMED

    def test_invariant_8_at_every_moment_of_a_move_one_side_has_everything_and_at_its_end_one(self, host):
        move = Move(host)
        move.reserve()

        def look(event):
            assert move.row(move.source).state is State.CLAIMED
            assert move.row(move.source).owner == move.owner
            assert move.bytes_of(move.source) == move.content

        move.run(look)
        look(None)
        assert move.bytes_of(move.target) == move.content
        move.pool.release(move.owner, [move.source.uuid])
        move.pool.wipe()
        assert [row.uuid for row in move.pool.held(move.owner)] == [move.target.uuid]
        assert is_zero(host.path(move.source.name))
        assert move.bytes_of(move.target) == move.content

    def test_invariant_8_a_failed_move_leaves_everything_at_the_source(self, host):
        move = Move(host)
        move.reserve()

        def fail(event):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            move.run(fail)
        move.pool.copies.abandon(move.owner, move.copy)
        move.pool.copies.stay(move.owner)
        move.pool.wipe()
        assert [grant.ready for grant in move.pool.grants(move.owner)] == [True]
        assert move.bytes_of(move.source) == move.content
        assert is_zero(host.path(move.target.name))


#: Options at the claim, what they give, and options that would give something else.
HARDWARE = [
    ({"device_model": []}, Hardware(DeviceModel.VIRTIO_PMEM, 0), {"device_model": ["nvdimm"]}),
    (
        {"device_model": ["nvdimm"], "label_size": ["SMALL:128KiB"]},
        Hardware(DeviceModel.NVDIMM, 128 * KIB),
        {"device_model": ["SMALL:virtio-pmem"], "label_size": []},
    ),
    ({"device_model": ["nvdimm"], "label_size": ["0"]}, Hardware(DeviceModel.NVDIMM, 0), {"label_size": ["2MiB"]}),
]


@pytest.mark.parametrize(("before", "wanted", "after"), HARDWARE)
class TestInvariant9:
    """A guest's hardware is decided at claim, and neither a restart nor a refresh nor a move changes it."""

    def test_invariant_9_a_restart_and_a_rebuild_keep_it_whatever_the_configuration_says(
        self, host, before, wanted, after
    ):
        host.options |= before
        owner = new_owner()
        (grant,) = host.pool().claim(owner, ["SMALL"])
        assert grant.hardware == wanted
        host.options |= after
        restarted = host.pool()
        assert [each.hardware for each in restarted.grants(owner)] == [wanted]
        restarted.renew(owner)
        assert [each.hardware for each in restarted.claim_exact(owner, [grant.uuid])] == [wanted]
        (record,) = [each for each in restarted.records() if each.uuid == grant.uuid]
        assert (record.device_model, record.label_size) == (wanted.device_model, wanted.label_size)

    def test_invariant_9_a_refresh_keeps_it(self, host, before, wanted, after):
        host.options |= before
        owner = new_owner()
        grants = host.pool().claim(owner, ["SMALL"])
        definition = guestxml.new_domain(
            name="db", uuid=owner, domain_type="test", memory=64 * MIB, vcpus=1, host_nodes=[], grants=grants
        )
        host.options |= after
        path = host.path(grants[0].name)
        path.rename(host.directory / path.name)
        fresh = guestxml.refresh(definition, host.pool().grants(owner))
        (device,) = guestxml.devices(fresh)
        assert device.path == str(host.directory / path.name)
        assert device.hardware == wanted
        assert fresh == definition.replace(str(path), device.path)

    def test_invariant_9_a_copy_to_another_namespace_keeps_it(self, host, before, wanted, after):
        host.options |= before
        move = Move(host)
        host.options |= after
        move.pool = host.pool()
        move.reserve()
        assert move.row(move.target).hardware == wanted
        move.run()
        assert move.row(move.target).hardware == wanted
        assert move.bytes_of(move.target) == move.content

    def test_invariant_9_a_move_to_another_host_keeps_it(self, host, other, before, wanted, after):
        host.options |= before
        other.options |= after
        move = Two(host, other, ["SMALL"])
        move.move()
        assert [each.hardware for each in other.pool().grants(move.owner)] == [wanted]

    def test_invariant_9_only_a_new_claim_has_what_is_configured_now(self, host, before, wanted, after):
        host.options |= before
        owner = new_owner()
        first = host.pool()
        (grant,) = first.claim(owner, ["SMALL"])
        first.release(owner)
        row = first._state.ledger.row(grant.uuid)
        assert (row.device_model, row.label_size) == (None, None)
        host.options |= after
        (again,) = host.pool().claim(owner, ["SMALL"])
        assert again.hardware != wanted
