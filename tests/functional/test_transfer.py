"""Transfers between two hosts: this process sends, and a real 'vpmem receive' receives, through pipes."""

import os
import pathlib
import signal
import sys
import threading

import libvirt
import pytest

from tests.functional.conftest import fill, new_owner
from tests.unit.files import MAP, another_process
from vpmem_driver import exception, interpreter
from vpmem_driver.model import State
from vpmem_driver.sizes import MIB
from vpmem_driver.transfer import messages
from vpmem_driver.transfer.connection import ConnectionLost, ProcessConnection, ssh_command
from vpmem_driver.transfer.sender import Sender

COPY = "00c0ffee00c0ffee"
#: Bytes on the wire after which the offer is accepted, and nothing has arrived.
TOO_EARLY = 20_000

#: Passes stdin on to a command, and does something to it: cuts it after some bytes, or flips one.
RELAY = """
import os, subprocess, sys
mode, limit = sys.argv[1], int(sys.argv[2])
child = subprocess.Popen(sys.argv[3:], stdin=subprocess.PIPE, bufsize=0)
done = 0
while piece := bytearray(os.read(0, 65536)):
    if mode == "cut" and done + len(piece) > limit:
        child.stdin.write(piece[:limit - done])
        break
    if mode == "flip" and done <= limit < done + len(piece):
        piece[limit - done] ^= 1
    done += len(piece)
    try:
        child.stdin.write(piece)
    except BrokenPipeError:
        break
child.stdin.close()
sys.exit(child.wait())
"""


class Two:
    """Two hosts, and an owner with content on the first."""

    def __init__(self, host, other, labels=("SMALL", "LARGE"), owner=None):
        self.owner = owner or new_owner()
        self.host, self.other = host, other
        self.pool = host.pool()
        self.grants = self.pool.claim(self.owner, labels)
        self.uuids = [grant.uuid for grant in self.grants]
        self.content = [fill(host.path(grant.name)) for grant in self.grants]
        self.config = str(other.config_file())
        self.relays = iter(())
        self.connections = 0
        self.pauses = []

    def command(self):
        receive = interpreter.command("vpmem_driver.cli.main", "--config-file", self.config, "receive")
        relay = next(self.relays, None)
        return receive if relay is None else [sys.executable, "-c", RELAY, *map(str, relay), *receive]

    def connect(self):
        self.connections += 1
        environment = f"PYTHONPATH={interpreter.search_path()}"
        return ProcessConnection("other", ["env", environment, *self.command()])

    def sender(self, on_progress=lambda event: None, pack=False):
        return Sender(
            self.pool,
            self.connect,
            owner=self.owner,
            copy=COPY,
            pack=pack,
            on_progress=on_progress,
            retries=(0.0, 0.0),
            pause=self.pauses.append,
        )

    def move(self, **options):
        self.pool.copies.depart(self.owner, COPY)
        return self.sender(**options).send(self.uuids, [None] * len(self.uuids))

    def arrived(self):
        """What the destination holds for the owner, in order."""
        return self.other.pool().grants(self.owner)

    def check_moved(self):
        arrived = self.arrived()
        assert [grant.ready for grant in arrived] == [True] * len(self.grants)
        assert [grant.label for grant in arrived] == [grant.label for grant in self.grants]
        assert [self.other.path(grant.name).read_bytes() for grant in arrived] == self.content
        self.check_source()

    def check_source(self):
        assert [self.host.path(grant.name).read_bytes() for grant in self.grants] == self.content
        assert {row.state for row in self.pool.held(self.owner)} == {State.CLAIMED}


@pytest.fixture
def two(host, other):
    return Two(host, other)


@pytest.mark.parametrize("pack", [False, True])
def test_all_that_an_owner_holds_arrives(two, pack):
    seen = []
    expecting = two.move(on_progress=seen.append, pack=pack)
    assert [each.uuid for each in expecting] == [grant.uuid for grant in two.arrived()]
    two.check_moved()
    assert [row.copied for row in two.pool.held(two.owner)] == [row.size for row in two.pool.held(two.owner)]
    assert {event.phase for event in seen} == {"copy", "verify"}
    assert two.connections == 1


def test_a_second_run_after_all_arrived_copies_nothing(two):
    two.move()
    seen = []
    two.move(on_progress=seen.append)
    assert seen == []
    two.check_moved()


@pytest.mark.parametrize("relay", [None, ("cut", 300), ("flip", 300)], ids=["", "cut", "flipped"])
def test_what_an_earlier_run_completed_is_compared(two, relay):
    two.move()
    two.relays = iter([] if relay is None else [relay])
    seen = []
    two.sender(on_progress=seen.append).send(two.uuids, [None, None], again=True)
    assert {event.done for event in seen if event.phase == "copy"} == {grant.size for grant in two.grants}
    assert [event.done for event in seen if event.phase == "verify"][-1] == two.grants[-1].size
    two.check_moved()
    assert two.connections == 2 if relay is None else 3


def contents(two):
    """The bytes of all namespaces of both hosts."""
    paths = [path for each in (two.host, two.other) for path in each.directory.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in paths}


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("which", [0, 1])
def test_what_an_earlier_run_completed_was_not_compared_with_a_source_that_had_changed_since(two, side, which):
    """A guest had run in between, on a host without the hook. Nobody but the operator knows which one is right."""
    two.move()
    grant = two.grants[which] if side == "source" else two.arrived()[which]
    fill((two.host if side == "source" else two.other).path(grant.name))
    before = contents(two)
    with pytest.raises(exception.CopyFailed, match="what has arrived is no longer what the source has"):
        two.sender().send(two.uuids, [None, None], again=True)
    assert two.connections == 2
    assert contents(two) == before
    assert [grant.ready for grant in two.arrived()] == [True, True]


@pytest.mark.parametrize("where", [10, 500, 3 * MIB, 4 * MIB + 5 * MIB])
def test_a_connection_that_breaks_is_made_again(two, where):
    two.relays = iter([("cut", where)])
    two.move()
    assert two.connections == 2
    assert two.pauses == [0.0]
    two.check_moved()


def test_it_goes_on_as_long_as_each_connection_brings_more(host, other):
    """The copy of a large namespace takes hours. It was given up when the fourth connection broke."""
    two = Two(host, other)
    two.relays = iter([("cut", 3 * MIB)] * 4)
    two.move()
    assert two.connections == 5
    assert two.pauses == [0.0] * 4
    two.check_moved()


def test_what_has_arrived_is_not_sent_again(two):
    two.relays = iter([("cut", 4 * MIB + 6 * MIB)])
    seen = []
    two.move(on_progress=seen.append)
    by_connection = [
        [event.done for event in seen if event.phase == "copy" and event.name == grant.name] for grant in two.grants
    ]
    small, large = by_connection
    assert small == sorted(small), "received by the first connection, and not again"
    assert large == sorted(large), "resumed, not begun again"


def test_a_byte_that_changes_on_the_way_is_sent_again(two):
    two.relays = iter([("flip", 2 * MIB)])
    two.move()
    assert two.connections == 2
    two.check_moved()


def test_a_connection_that_breaks_each_time_is_an_error_and_the_source_has_everything(two):
    two.relays = iter([("cut", TOO_EARLY)] * 3)
    with pytest.raises(exception.CopyFailed):
        two.move()
    assert two.connections == 3
    two.check_source()
    assert not any(grant.ready for grant in two.arrived())
    two.sender().abandon()
    pool = two.other.pool()
    assert pool.held(two.owner) == []
    pool.wipe()
    assert not [row for row in pool.rows() if row.state is State.DIRTY]
    two.pool.copies.stay(two.owner)
    assert [grant.ready for grant in two.pool.grants(two.owner)] == [True, True]


def test_the_death_of_the_receiver_is_survived(two):
    """Killed in the middle, with its worker; the second connection resumes."""
    killed = []

    def kill(event):
        if event.phase == "copy" and event.done >= 2 * MIB and not killed:
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    words = pathlib.Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"receive" in words and two.config.encode() in words:
                    os.kill(int(pid), signal.SIGKILL)
                    killed.append(pid)

    two.move(on_progress=kill)
    assert killed
    two.check_moved()


@pytest.mark.parametrize("what", ["no space", "other labels", "no configuration", "no program"])
def test_a_destination_that_cannot_receive_is_said_so_and_nothing_changes(two, what):
    pool = two.other.pool()
    match = {
        "no space": "Not enough free namespaces",
        "other labels": "pmem_namespaces does not contain it",
        "no configuration": "Cannot read the configuration",
        "no program": "lost: its command ended with status 127",
    }[what]
    if what == "no space":
        pool.claim(new_owner(), ["LARGE", "LARGE"])
    elif what == "other labels":
        two.other.pmem_namespaces = ["OTHER:large0"]
        two.other.config_file()
    elif what == "no configuration":
        os.unlink(two.config)
    else:
        two.command = lambda: ["vpmem-is-not-installed"]
    before = {path: path.read_bytes() for path in two.other.directory.glob("*")}
    with pytest.raises((exception.TransferRefused, ConnectionLost), match=match):
        two.move()
    assert {path: path.read_bytes() for path in two.other.directory.glob("*")} == before
    assert pool.held(two.owner) == []
    two.check_source()


def test_a_domain_that_runs_on_the_source_is_an_error_at_once(two):
    with another_process(MAP, two.host.path(two.grants[0].name)), pytest.raises(exception.NamespaceInUse):
        two.move()
    assert two.connections == 1
    two.move()
    two.check_moved()


def offer(namespaces="[]", version=1, copy="00c0ffee"):
    text = f'{{"message":"offer","version":{version},"copy":"{copy}","owner":"OWNER","namespaces":{namespaces}}}\n'
    return text.encode()


_SIZES = '"size":4194304,"align":4096'


@pytest.mark.parametrize(
    "lines",
    [
        b"hello\n",
        b"{}\n",
        b'{"message":"begin","index":0}\n',
        offer(version=99),
        offer(),
        offer(copy="x"),
        offer('[{"name":"n","label":null,"size":4194304,"align":4096}]'),
        offer('[{"name":"n","label":"SMALL","size":4194304,"align":4096,"namespace":"small0"}]'),
        offer('[{"name":"n","label":"SMALL","size":-1,"align":4096}]'),
        offer(f'[{{"name":"n","label":"SMALL",{_SIZES},"hardware":{{"device_model":"dimm"}}}}]', 2),
        offer(f'[{{"name":"n","label":"SMALL",{_SIZES},"hardware":{{"label_size":-1}}}}]', 2),
        offer(f'[{{"name":"n","label":"SMALL",{_SIZES},"hardware":{{"device_model":"virtio-pmem"}}}}]', 2),
        b"[" * 100000 + b"\n",
    ],
)
def test_what_is_not_an_offer_is_refused_and_changes_nothing(two, lines):
    pool = two.other.pool()
    with two.connect() as connection:
        os.write(connection.fd, lines.replace(b"OWNER", two.owner.encode()))
        assert isinstance(connection.read(), messages.Refused)
        with pytest.raises(ConnectionLost):
            connection.read()
    assert pool.held(two.owner) == []


@pytest.mark.parametrize(("options", "version"), [({}, 1), ({"label_size": ["0"]}, 2)])
def test_an_older_host_receives_what_it_understands(host, other, options, version, monkeypatch):
    """An offer has version 2 only if its hardware is not what every version gives, and 3 only if it compares again."""
    written = []
    real = ProcessConnection.write
    monkeypatch.setattr(
        ProcessConnection, "write", lambda self, message: (written.append(message), real(self, message))
    )
    host.options |= options
    two = Two(host, other, ["SMALL"])
    two.move()
    two.sender().send(two.uuids, [None], again=True)
    assert [each.version for each in written if isinstance(each, messages.Offer)] == [version, 3]
    two.check_moved()


def test_two_senders_of_one_copy_do_not_mix(two):
    """The second one is told that another process has the namespace, or comes after the first; the content is right."""
    two.pool.copies.depart(two.owner, COPY)
    errors = []

    def send():
        try:
            two.sender().send(two.uuids, [None, None])
        except (exception.VPMEMError, OSError) as error:
            errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(errors) == 2:
        two.move()
    two.check_moved()


@pytest.mark.parametrize("host", ["", "-oProxyCommand=x", "a b", "a\nb"])
def test_what_is_no_host_is_refused(host):
    with pytest.raises(exception.InvalidRequest, match="not the name or address of a host"):
        ssh_command("ssh", host, "vpmem", "receive")


def test_the_command_of_ssh():
    assert ssh_command("ssh -J jump", "nova@host", "vpmem", "receive") == [
        *("ssh", "-J", "jump", "--", "nova@host", "vpmem", "receive")
    ]


def test_a_copy_is_abandoned_where_a_namespace_was_lost_and_none_is_free(two):
    """An offer would be refused there: what is to be given up is named by owner and copy alone."""
    two.relays = iter([("cut", TOO_EARLY)] * 3)
    with pytest.raises(exception.CopyFailed):
        two.move()
    pool = two.other.pool()
    small, _large = pool.held(two.owner)
    with pool._state.change():
        pool._state.move(small, State.QUARANTINED, "bad medium", reason="bad medium")
    pool.claim(new_owner(), ["SMALL", "SMALL"])
    two.sender().abandon()
    assert pool.held(two.owner) == []
    assert pool._state.ledger.row(small.uuid).state is State.QUARANTINED


def test_a_source_does_not_take_back_what_a_domain_here_has(host, other):
    """It knows the id of the copy for ever, and had it released after the move."""
    connection = libvirt.open("test:///default")
    (domain,) = connection.listAllDomains()
    other.options["connection_uri"] = "test:///default"
    two = Two(host, other, owner=domain.UUIDString())
    two.move()
    with pytest.raises(exception.TransferRefused, match="Domain test: it exists on the destination"):
        two.sender().abandon()
    two.check_moved()


def test_a_source_does_not_take_back_what_goes_on_to_a_third_host(two):
    """The host between the two has the content until the new move is confirmed, but no domain any more."""
    two.move()
    pool = two.other.pool()
    pool.copies.depart(two.owner, "another")
    with pytest.raises(exception.TransferRefused, match="copy another takes its content away from there"):
        two.sender().abandon()
    pool.copies.stay(two.owner)
    two.check_moved()
    two.sender().abandon()
    assert pool.held(two.owner) == []


def test_a_copy_that_was_never_begun_is_abandoned_without_an_error(two):
    two.sender().abandon()
    assert two.other.pool().held(two.owner) == []
