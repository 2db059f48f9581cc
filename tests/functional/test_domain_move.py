"""vpmem domain move: two libvirts of the test driver, two ledgers, and a command in place of ssh that runs locally."""

import dataclasses
import pathlib
import shlex
import sys

import libvirt
import pytest

from tests.functional.conftest import Host, fill, is_zero, new_owner
from tests.functional.test_cli import refused, vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_cli_domains import DOMAIN, URI, connection, domain, paths  # noqa: F401  fixtures
from tests.functional.test_renumbered import hook  # noqa: F401  fixture
from tests.unit.files import MAP, another_process
from vpmem_driver import exception, guestxml, interpreter
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import State
from vpmem_driver.pool.holdings import Holdings
from vpmem_driver.sizes import MIB
from vpmem_driver.transfer import messages
from vpmem_driver.transfer.sender import Sender

#: As ssh: options, --, host, command. It runs 'vpmem receive' of the other host, or does as it is told in a file.
SSH = """
import os, pathlib, sys
host, *words = sys.argv[sys.argv.index("--") + 1:]
assert words == ["vpmem", "receive"], words
mood = pathlib.Path(sys.argv[1])
if mood.exists():
    print(mood.read_text(), file=sys.stderr)
    sys.exit(255)
os.environ["PYTHONPATH"] = sys.argv[3]
os.execv(sys.executable, [sys.executable, "-m", "vpmem_driver.cli.main", "--config-file", sys.argv[2], "receive"])
"""


class Kept:
    """A connection to the test driver whose domains end with it: it stays open."""

    def __init__(self, opened):
        self._opened = opened

    def __getattr__(self, name):
        return getattr(self._opened, name)

    def close(self):
        pass


class Other(Host):
    """The destination: namespaces, ledger and libvirt."""

    def __init__(self, root):
        root.mkdir()
        super().__init__(root)
        (root / "node.xml").write_text("<node><cpu><mhz>1</mhz></cpu></node>")
        self.uri = f"test://{root}/node.xml"
        self.libvirt = libvirt.open(self.uri)
        self.no_connection = root / "no-connection"

    def domains(self):
        return {each.UUIDString(): each for each in self.libvirt.listAllDomains()}


@pytest.fixture
def other(tmp_path, host, monkeypatch):
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    made = Other(tmp_path / "other")
    for number in range(2):
        made.make(f"large{number}", size=8 * MIB)
    for number in range(3):
        made.make(f"small{number}", size=4 * MIB)
    program = tmp_path / "ssh.py"
    program.write_text(SSH)
    words = [sys.executable, program, made.no_connection, made.config_file(), interpreter.search_path()]
    host.options["ssh_command"] = shlex.join(map(str, words))
    real = Domains._open
    monkeypatch.setattr(Domains, "_open", lambda self: Kept(made.libvirt) if self.uri == made.uri else real(self))
    yield made
    made.libvirt.close()
    made.close()


class Move:
    """A domain with content, to be moved."""

    def __init__(self, host, other, domain, vpmem, names):  # noqa: F811  fixtures
        self.host, self.other, self._vpmem = host, other, vpmem
        self.owner, self.name = domain.UUIDString(), domain.name()
        pool = host.pool()
        grants = pool.adopt(self.owner, [pool.find(name) for name in names])  # as if its guest had it before
        self.domain = libvirt.open(URI).defineXML(guestxml.add(domain.XMLDesc(), grants))
        self.source = [pathlib.Path(path) for path in paths(self.domain)]
        self.content = [path.read_bytes() for path in self.source]
        self.definition = self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)

    def words(self, *options, name=None, host="other"):
        return [
            "domain",
            "move",
            name or self.name,
            host,
            "--connect",
            URI,
            "--destination-uri",
            self.other.uri,
            *options,
        ]

    def __call__(self, *options, name=None, host="other"):
        return self._vpmem(*self.words(*options, name=name, host=host))

    def complete(self):
        """It is on the other host, and nothing of it is here any more."""
        (moved,) = [each for owner, each in self.other.domains().items() if owner == self.owner]
        definition = moved.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        grants = self.other.pool().grants(self.owner)
        found = guestxml.identified(definition)
        assert [(device.path, uuid) for device, uuid in found] == [(grant.device, grant.uuid) for grant in grants]
        assert [pathlib.Path(device.path).read_bytes() for device, _ in found] == self.content
        assert all(grant.ready for grant in grants)
        before = guestxml.devices(self.definition)
        assert [dataclasses.replace(each, path="/") for each, _ in found] == [
            dataclasses.replace(each, path="/") for each in before
        ]
        assert [grant.hardware for grant in grants] == [each.hardware for each in before]
        assert self.owner not in [each.UUIDString() for each in libvirt.open(URI).listAllDomains()]
        assert self.host.pool().held(self.owner) == []

    def stays(self, *, departs=False):
        """It is here, whole, and startable unless it departs."""
        assert self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) == self.definition
        assert [path.read_bytes() for path in self.source] == self.content
        held = self.host.pool().held(self.owner)
        assert [row.state for row in held] == [State.CLAIMED] * len(self.source)
        assert {row.departure is not None for row in held} == {departs}


@pytest.fixture
def move(host, other, domain, vpmem):  # noqa: F811
    return Move(host, other, domain, vpmem, ["small1"])


@pytest.fixture
def move_two(host, other, domain, vpmem):  # noqa: F811
    return Move(host, other, domain, vpmem, ["small1", "large0"])


@pytest.fixture
def fail_once(monkeypatch):
    """The next call of a method fails, as if the program had been killed there; the ones after it do not."""

    def fail(owner, name, error=KeyboardInterrupt):
        real, calls = getattr(owner, name), []

        def method(*arguments, **options):
            calls.append(name)
            if len(calls) == 1:
                raise error
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, method)
        return calls

    return fail


def test_a_domain_moves_with_its_content(move_two):
    move = move_two
    code, _, err = move("--wait")
    assert code == 0, err
    move.complete()
    assert all(map(is_zero, move.source))
    assert {record.state for record in move.host.pool().records() if record.device in map(str, move.source)} == {
        "clean"
    }


def test_what_it_lists(move, vpmem_json):  # noqa: F811
    before = vpmem_json(*move.words("--dry-run"))
    listed = vpmem_json(*move.words())
    assert listed == before
    assert [(line["label"], line["size"]) for line in listed] == [("SMALL", 4 * MIB)]
    assert [line["name"] for line in listed] == [path.name for path in move.source]
    assert [line["destination"] for line in listed] == [grant.name for grant in move.other.pool().grants(move.owner)]
    move.complete()


def test_dry_run_changes_nothing_on_either_host(move):
    before = {path: path.read_bytes() for path in move.other.directory.glob("*")}
    code, out, _ = move("--dry-run")
    assert (code, "small0" in out) == (0, True)
    move.stays()
    assert {path: path.read_bytes() for path in move.other.directory.glob("*")} == before
    assert {(row.owner, row.state) for row in move.other.pool().rows()} == {(None, State.UNKNOWN)}


def test_it_is_larger_at_the_destination(move):
    """The guest has its data at the start, and its label at the end of the larger device."""
    for number in range(3):
        move.other.path(f"small{number}").unlink()
        move.other.make(f"small{number}", size=12 * MIB)
    code, _, err = move()
    assert code == 0, err
    (device,) = guestxml.devices(move.other.domains()[move.owner].XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    assert device.size == 12 * MIB
    content = pathlib.Path(device.path).read_bytes()
    assert content[: 2 * MIB] == move.content[0][: 2 * MIB]
    assert content[-2 * MIB :] == move.content[0][-2 * MIB :]
    assert not any(content[2 * MIB : -2 * MIB])


def test_autostart_moves_too(move):
    move.domain.setAutostart(1)
    assert move()[0] == 0
    assert move.other.domains()[move.owner].autostart() == 1


class TestInterrupted:
    @pytest.mark.parametrize("at", ["send", "define", "copy_autostart", "undefine"])
    def test_it_resumes(self, move, fail_once, at, hook):  # noqa: F811
        fail_once(*{"send": (Sender, "send")}.get(at, (Domains, at)))
        code, _, err = move()
        assert code == 130
        assert "with --cancel to keep the domain here" in err
        move.stays(departs=True)
        code, said = hook(move.domain)
        assert (code, "domain move --cancel" in said) == (1, True)
        code, _, err = move()
        assert code == 0, err
        move.complete()

    def test_only_the_release_is_left(self, move, fail_once):
        """The domain is not defined here any more, and is found by its name on the other host."""
        fail_once(Holdings, "release")
        assert move()[0] == 130
        assert move("--wait")[0] == 0
        move.complete()
        assert all(map(is_zero, move.source))
        code, _, err = move()
        assert (code, "it does not exist on" in err) == (2, True)

    def test_it_runs_there_when_the_move_is_completed(self, move, fail_once):
        fail_once(Domains, "undefine")
        assert move()[0] == 130
        there = move.other.domains()[move.owner]
        there.create()
        written = fill(pathlib.Path(paths(there)[0]))
        move.content[0] = written
        assert move()[0] == 0
        move.complete()
        assert there.isActive()

    def test_it_ran_here_after_all_had_arrived(self, move, fail_once):
        """There is no hook on this host. What the guest wrote was lost: what had arrived was not compared again."""
        fail_once(Domains, "define")
        assert move()[0] == 130
        move.content = [fill(path) for path in move.source]
        code, _, err = move()
        assert (code, "is no longer what the source has" in err, "cancel the move" in err) == (7, True, True), err
        move.stays(departs=True)
        assert move("--cancel")[0] == 0
        assert move()[0] == 0
        move.complete()

    def test_it_is_defined_there_and_not_all_has_arrived(self, move, monkeypatch):
        def send(self, *_arguments, **_options):
            self.offer(_arguments[0], _arguments[1])
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Sender, "send", send)
            assert move()[0] == 130
        (grant,) = move.other.pool().grants(move.owner)
        there = move.other.libvirt.defineXML(move.definition.replace(str(move.source[0]), grant.device))
        written = fill(pathlib.Path(grant.device))
        code, _, err = move()
        assert (code, "not all of its content has arrived there" in err) == (4, True), err
        assert pathlib.Path(grant.device).read_bytes() == written
        there.undefine()
        assert move()[0] == 0
        move.complete()

    def test_it_starts_while_the_destination_reads_back(self, move, monkeypatch):
        real = Sender._handle

        def handle(self, row, expecting, message, ended):
            if isinstance(message, messages.Received):
                monkeypatch.setattr(Sender, "_handle", real)
                move.domain.create()
            real(self, row, expecting, message, ended)

        monkeypatch.setattr(Sender, "_handle", handle)
        code, _, err = move()
        assert (code, "is in use by the running domain" in err) == (4, True), err
        move.stays()
        move.content = [fill(path) for path in move.source]
        move.domain.destroy()
        assert move()[0] == 0
        move.complete()

    def test_it_is_defined_there_on_its_own(self, move, fail_once):
        """It may have run there: nothing there is overwritten."""
        fail_once(Domains, "define")
        assert move()[0] == 130
        (grant,) = move.other.pool().grants(move.owner)
        move.other.libvirt.defineXML(move.definition.replace(str(move.source[0]), grant.device))
        written = fill(pathlib.Path(grant.device))
        assert move()[0] == 0
        assert pathlib.Path(grant.device).read_bytes() == written

    def test_it_is_cancelled(self, move, fail_once, hook):  # noqa: F811
        fail_once(Domains, "define")
        assert move()[0] == 130
        code, _, err = move("--cancel")
        assert code == 0, err
        move.stays()
        assert hook(move.domain) == (0, "")
        pool = move.other.pool()
        assert pool.held(move.owner) == []
        assert [row.state for row in pool.rows()].count(State.DIRTY) == 1
        assert move()[0] == 0
        move.complete()

    def test_nobody_else_moves_or_cancels_it_meanwhile(self, move, monkeypatch):
        """A cancel that had found no domain at the destination released there what the move then defined there."""
        real, others = Domains.define, []

        def define(self, *arguments):
            others.extend(move(*options) for options in ((), ("--cancel",), ("--cancel", "--host-is-lost")))
            return real(self, *arguments)

        monkeypatch.setattr(Domains, "define", define)
        assert move()[0] == 0
        assert [code for code, _, _ in others] == [4] * 3
        assert all("another process moves it" in err for _, _, err in others)
        move.complete()
        assert not list(move.host.state_path.glob("move-*"))

    @pytest.mark.parametrize("left", [True, False])
    def test_it_is_released_there_before_it_is_defined(self, move, monkeypatch, fail_once, left):
        """Somebody followed another message. Both hosts had lost the content."""
        real = Domains.define

        def define(self, *arguments):
            if not left:
                move.other.pool().release(move.owner)
            return real(self, *arguments)

        monkeypatch.setattr(Domains, "define", define)
        if left:
            fail_once(Holdings, "release")
            assert move()[0] == 130
            move.other.pool().release(move.owner)
        code, _, err = move()
        assert (code, "not all of its content has arrived there" in err) == (4, True), err
        assert [path.read_bytes() for path in move.source] == move.content
        assert [row.state for row in move.host.pool().held(move.owner)] == [State.CLAIMED]

    def test_it_is_not_cancelled_where_it_may_have_run(self, move, fail_once):
        fail_once(Domains, "undefine")
        assert move()[0] == 130
        code, _, err = move("--cancel")
        assert (code, "it is defined on other already, and may have run there" in err) == (4, True)
        move.stays(departs=True)
        move.other.domains()[move.owner].undefine()
        assert move("--cancel")[0] == 0
        move.stays()

    def test_the_destination_is_lost(self, move, fail_once):
        fail_once(Domains, "define")
        assert move()[0] == 130
        move.other.no_connection.write_text("No route to host")
        code, _, err = move("--cancel")
        assert (code, "No route to host" in err) == (5, True)
        move.stays(departs=True)
        assert move("--cancel", "--host-is-lost")[0] == 0
        move.stays()

    def test_it_does_not_go_to_another_host_meanwhile(self, move, fail_once):
        fail_once(Domains, "define")
        assert move()[0] == 130
        for option in ((), ("--cancel",), ("--dry-run",), ("--cancel", "--host-is-lost")):
            code, _, err = move(*option, host="third")
            assert (code, "was begun, and is not complete" in err) == (4, True)
        assert move()[0] == 0
        move.complete()

    def test_the_destination_takes_no_such_domain(self, move, fail_once):
        error = exception.LibvirtError(uri="x", reason="unsupported machine type", remedy="Fix it")
        fail_once(Domains, "define", error)
        code, _, err = move()
        assert (code, "unsupported machine type" in err, "with --cancel" in err) == (5, True, True)
        move.stays(departs=True)


class TestRefused:
    def check(self, move, code, said, *options, **names):
        result, out, err = move(*options, **names)
        assert (result, out) == (code, ""), err
        assert said in err
        move.stays()
        assert move.other.pool().held(move.owner) == []

    def test_it_runs(self, move):
        move.domain.create()
        self.check(move, 4, "it is running. Shut it down first")

    def test_it_starts_before_it_departs(self, move, monkeypatch):
        """There is no hook on this host: libvirt starts it."""
        real = Sender.preview

        def preview(self, *arguments):
            found = real(self, *arguments)
            move.domain.create()
            return found

        monkeypatch.setattr(Sender, "preview", preview)
        self.check(move, 4, "it is running")

    def test_a_process_uses_it(self, move):
        with another_process(MAP, move.source[0]):
            self.check(move, 4, "is in use by process")
        assert move()[0] == 0
        move.complete()

    def test_there_is_no_room(self, move):
        pool = move.other.pool()
        pool.adopt(new_owner(), [pool.find(f"small{number}") for number in range(3)])
        self.check(move, 4, "SMALL: 1 wanted, 0 free")

    def test_there_is_no_connection(self, move):
        move.other.no_connection.write_text("Permission denied (publickey)")
        self.check(move, 5, "Permission denied (publickey)")

    def test_it_is_defined_there(self, move):
        move.other.libvirt.defineXML(DOMAIN.format(name="old", uuid=move.owner))
        self.check(move, 4, "a domain with its uuid is defined on other already")

    def test_it_has_a_saved_state(self, move):
        move.domain.create()
        move.domain.managedSave()
        self.check(move, 4, "it has a saved state")
        move.domain.managedSaveRemove()

    def test_it_has_snapshots(self, move):
        taken = move.domain.snapshotCreateXML("<domainsnapshot/>")
        self.check(move, 4, "it has snapshots")
        taken.delete()

    def test_it_does_not_use_what_it_holds(self, move):
        pool = move.host.pool()
        pool.adopt(move.owner, [pool.find("small2")])
        code, _, err = move()
        assert (code, "its definition has no device for small2" in err) == (4, True)

    def test_it_holds_nothing(self, other, domain, refused):  # noqa: F811
        words = ["domain", "move", domain.name(), "other", "--connect", URI, "--destination-uri", other.uri]
        assert "the ledger records none for it" in refused(4, *words)

    @pytest.mark.parametrize(
        ("options", "code", "said"),
        [
            (["--host-is-lost"], 2, "it has no meaning without --cancel"),
            (["--cancel"], 4, "no move to other was begun"),
            (["--cancel", "--host-is-lost"], 4, "no move to other was begun"),
        ],
    )
    def test_nothing_was_begun(self, move, options, code, said):
        self.check(move, code, said, *options)

    def test_no_such_domain(self, move):
        self.check(move, 2, "it does not exist on test:///default", name="nobody")

    def test_no_such_host(self, move):
        self.check(move, 2, "it is not the name or address of a host", host="a b")
