"""vpmem namespace export and import, vpmem domain snapshot and restore: real ledgers, workers, files and pipes."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess

import libvirt
import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from tests.functional.test_cli import refused, snapshot, vpmem, vpmem_json  # noqa: F401  fixtures
from tests.functional.test_cli_domains import DOMAIN, URI, connection, domain, paths  # noqa: F401  fixtures
from tests.functional.test_renumbered import hook  # noqa: F401  fixture
from tests.unit.files import MAP, another_process
from vpmem_driver import exception, guestxml, interpreter, layout
from vpmem_driver.cli import archives
from vpmem_driver.ledger import holds
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.model import State
from vpmem_driver.pool import copies
from vpmem_driver.sizes import KIB, MIB

needs_qemu_img = pytest.mark.skipif(
    shutil.which("qemu-img") is None and "CI" not in os.environ, reason="qemu-img is not installed"
)


@pytest.fixture
def owned(host):
    """small1, with an owner and content of its own."""
    owner, pool = new_owner(), host.pool()
    pool.adopt(owner, [pool.find("small1")])
    path = host.path("small1")
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(bytes(MIB))  # zeros are not exported
    return owner, path.read_bytes()


class TestExportAndImport:
    @pytest.mark.parametrize("image", ["stream", "raw", pytest.param("qcow2", marks=needs_qemu_img)])
    def test_the_content_comes_back(self, host, owned, vpmem, vpmem_json, image, tmp_path):  # noqa: F811
        owner, content = owned
        file = tmp_path / "file"
        before = snapshot(host)[0]
        assert vpmem("namespace", "export", "small1", file, "--file-format", image)[:2] == (0, "")
        assert snapshot(host)[0] == before
        assert [row.departure for row in host.pool().held(owner)] == [None]
        assert [path.name for path in tmp_path.iterdir() if "file" in path.name] == ["file"]
        assert file.stat().st_mode & 0o777 == 0o600
        if image == "raw":
            assert file.read_bytes() == content
            assert file.stat().st_blocks * 512 < len(content), "zeros are holes"
        heir = new_owner()
        (record,) = vpmem_json("namespace", "import", file, "small2", "--owner", heir, "--file-format", image)
        assert (record["state"], record["owner"], record["name"]) == ("claimed", heir, "small2")
        assert host.path("small2").read_bytes() == content
        assert host.path("small1").read_bytes() == content

    def test_through_a_pipe(self, host, owned):
        _, content = owned
        command = interpreter.command("vpmem_driver.cli.main", "--config-file", str(host.config_file()), "namespace")
        line = {"env": interpreter.environment(), "capture_output": True}
        done = subprocess.run([*command, "export", "small1", "-"], check=True, **line)
        assert len(done.stdout) < 3 * MIB + MIB // 2
        words = ["import", "-", "small0", "--owner", new_owner()]
        subprocess.run([*command, *words], input=done.stdout, check=True, **line)
        assert host.path("small0").read_bytes() == content

    def test_a_larger_namespace(self, host, owned, vpmem, tmp_path):  # noqa: F811
        """The guest has its data at the start, its label at the end, and zeros between them."""
        _, content = owned
        assert vpmem("namespace", "export", "small1", tmp_path / "file")[0] == 0
        assert vpmem("namespace", "import", tmp_path / "file", "large0", "--owner", new_owner())[0] == 0
        large = host.path("large0").read_bytes()
        assert large[: 2 * MIB] == content[: 2 * MIB]
        assert large[-2 * MIB :] == content[-2 * MIB :]
        assert not any(large[2 * MIB : -2 * MIB])

    def test_a_small_label_area(self, host, vpmem, tmp_path):  # noqa: F811
        """It is not a whole cell of the copy, and is at the end of the larger namespace all the same."""
        host.options["label_size"] = ["128KiB"]
        pool = host.pool()
        pool.claim_exact(new_owner(), [pool.find("small1")])
        fill(host.path("small1"))
        assert vpmem("namespace", "export", "small1", tmp_path / "file")[0] == 0
        assert vpmem("namespace", "import", tmp_path / "file", "large0", "--owner", new_owner())[0] == 0
        content, large = host.path("small1").read_bytes(), host.path("large0").read_bytes()
        seen = layout.guest_size(len(content), pool.record(pool.find("small1")).align, 128 * KIB)
        assert large[:seen] == content[:seen]
        assert large[-128 * KIB :] == content[-128 * KIB :]
        assert not any(large[seen : -128 * KIB])

    @pytest.mark.parametrize("same", [True, False])
    def test_an_interrupted_export_resumes(self, host, owned, vpmem, tmp_path, same, monkeypatch):  # noqa: F811
        """If the guest has run meanwhile, it begins again."""
        file = tmp_path / "file"
        assert vpmem("namespace", "export", "small1", file)[0] == 0
        complete = file.read_bytes()
        (tmp_path / "file.part").write_bytes(complete[: 3 * MIB - 5])
        file.unlink()
        if not same:
            with host.path("small1").open("r+b") as memory:
                memory.write(b"changed")
        starts = []
        real = copies.Copies.send
        monkeypatch.setattr(
            copies.Copies,
            "send",
            lambda self, *words, **rest: (starts.append(rest["start"]), real(self, *words, **rest)),
        )
        assert vpmem("namespace", "export", "small1", file)[0] == 0
        assert starts == [3 * MIB] if same else [3 * MIB, 0]
        assert (file.read_bytes() == complete) == same
        assert vpmem("namespace", "import", file, "small2", "--owner", new_owner())[0] == 0
        assert host.path("small2").read_bytes() == host.path("small1").read_bytes()

    def test_an_interrupted_import_resumes(self, host, owned, vpmem, tmp_path):  # noqa: F811
        _, content = owned
        file, part, heir = tmp_path / "file", tmp_path / "part", new_owner()
        assert vpmem("namespace", "export", "small1", file)[0] == 0
        part.write_bytes(file.read_bytes()[: 2 * MIB])
        code, _, err = vpmem("namespace", "import", part, "small2", "--owner", heir)
        assert (code, "part: the stream ended early" in err) == (7, True)
        (row,) = host.pool().held(heir)
        assert (row.state, row.copied) == (State.RECEIVING, MIB)
        assert vpmem("namespace", "import", file, "small2", "--owner", heir)[0] == 0
        assert host.path("small2").read_bytes() == content

    def test_an_interrupted_import_is_given_up(self, host, owned, vpmem, tmp_path):  # noqa: F811
        file, heir = tmp_path / "file", new_owner()
        assert vpmem("namespace", "export", "small1", file)[0] == 0
        os.truncate(file, 2 * MIB)
        assert vpmem("namespace", "import", file, "small2", "--owner", heir)[0] == 7
        assert vpmem("release", heir, "--wait")[0] == 0
        assert is_zero(host.path("small2"))

    def test_a_damaged_file_is_not_imported(self, host, owned, vpmem, tmp_path):  # noqa: F811
        file, heir = tmp_path / "file", new_owner()
        assert vpmem("namespace", "export", "small1", file)[0] == 0
        with file.open("r+b") as damaged:
            damaged.seek(2 * MIB)
            byte = damaged.read(1)
            damaged.seek(2 * MIB)
            damaged.write(bytes([byte[0] ^ 1]))
        code, _, err = vpmem("namespace", "import", file, "small2", "--owner", heir)
        assert (code, "were changed on the way" in err) == (7, True)
        assert [grant.ready for grant in host.pool().grants(heir)] == [False]

    def test_a_full_disk(self, owned, vpmem, tmp_path, monkeypatch):  # noqa: F811
        from vpmem_driver.transfer import archive

        def cell(self, cell):
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(archive.Frames, "cell", cell)
        code, _, err = vpmem("namespace", "export", "small1", tmp_path / "file")
        assert (code, "No space left on device" in err) == (5, True)
        assert not (tmp_path / "file").exists()


class TestMeanwhile:
    def test_the_guest_does_not_start(self, host, owned, hook, domain, monkeypatch):  # noqa: F811
        owner, _ = owned
        pool = host.pool()
        xml = guestxml.add(domain.XMLDesc().replace(domain.UUIDString(), owner), pool.grants(owner))
        with pool.copies.hold_still(owner):
            code, said = hook(domain, xml)
            assert (code, "a copy of it is not complete" in said) == (1, True)
            with pytest.raises(exception.NamespaceUnavailable):
                host.pool().claim_exact(owner, [row.uuid for row in pool.held(owner)])
        assert hook(domain, xml) == (0, "")
        assert list(host.state_path.glob("departure-*")) == []

    @pytest.mark.parametrize("by", ["hook", "claim_exact", "reconcile"])
    def test_an_export_that_was_killed_blocked_the_guest_for_ever(self, host, owned, hook, domain, by):  # noqa: F811
        owner, _ = owned
        pool = host.pool()
        xml = guestxml.add(domain.XMLDesc().replace(domain.UUIDString(), owner), pool.grants(owner))
        code = """
import sys
from vpmem_driver import conf
from vpmem_driver.pool import Pool
pool = Pool.from_conf(conf.read([sys.argv[1]]))
with pool.copies.hold_still(sys.argv[2]):
    print("ready", flush=True)
    sys.stdin.read()
"""
        with another_process(code, host.config_file(), owner) as process:
            assert hook(domain, xml)[0] == 1
            process.kill()
            process.wait()
            assert [row.departure is not None for row in pool.held(owner)] == [True]
        if by == "hook":
            assert hook(domain, xml) == (0, "")
        elif by == "claim_exact":
            assert [grant.ready for grant in pool.claim_exact(owner, [row.uuid for row in pool.held(owner)])] == [True]
        else:
            assert [grant.ready for grant in pool.grants(owner)] == [True]
        assert list(host.state_path.glob("departure-*")) == []

    def test_an_export_whose_namespace_is_released_fails(self, host, owned, vpmem, tmp_path, monkeypatch):  # noqa: F811
        owner, _ = owned
        real = copies.Copies.send

        def send(self, *words, **rest):
            real(self, *words, **rest)
            host.pool().release(owner)

        monkeypatch.setattr(copies.Copies, "send", send)
        code, _, err = vpmem("namespace", "export", "small1", tmp_path / "file")
        assert (code, "it was released" in err) == (7, True)
        assert not (tmp_path / "file").exists()

    def test_a_move_is_not_ended_by_others(self, host, owned):
        owner, _ = owned
        pool = host.pool()
        pool.copies.depart(owner, "00c0ffee00c0ffee")
        assert [grant.ready for grant in host.pool().grants(owner)] == [False]
        with (
            pytest.raises(exception.NamespaceUnavailable, match="takes its content away already"),
            contextlib.ExitStack() as stack,
        ):
            stack.enter_context(pool.copies.hold_still(owner))
        assert list(host.state_path.glob("departure-*")) == []


class TestRefused:
    def test_one_in_use(self, host, owned, vpmem, tmp_path):  # noqa: F811
        with another_process(MAP, host.path("small1")):
            code, _, err = vpmem("namespace", "export", "small1", tmp_path / "file")
        assert (code, "is in use by process" in err) == (4, True)
        assert not (tmp_path / "file").exists()
        assert [row.departure for row in host.pool().held(owned[0])] == [None]

    def test_one_without_an_owner(self, refused, tmp_path):  # noqa: F811
        assert "it is unknown, and only the content of an owner" in refused(
            2, "namespace", "export", "small0", tmp_path / "file"
        )

    def test_a_file_that_exists(self, owned, refused, tmp_path):  # noqa: F811
        (tmp_path / "file").touch()
        assert "it exists" in refused(2, "namespace", "export", "small1", tmp_path / "file")

    def test_a_part_of_something_else(self, owned, vpmem, tmp_path):  # noqa: F811
        (tmp_path / "file.part").write_text("notes\n")
        code, _, err = vpmem("namespace", "export", "small1", tmp_path / "file")
        assert (code, "it is not the begin of this export" in err) == (2, True)
        assert (tmp_path / "file.part").read_text() == "notes\n"

    @pytest.mark.parametrize("command", [["export", "small1", "-"], ["import", "-", "small2", "--owner", new_owner()]])
    def test_an_image_through_a_pipe(self, owned, refused, command):  # noqa: F811
        assert "the format raw needs a file" in refused(2, "namespace", *command, "--file-format", "raw")

    def test_a_directory_that_is_not_there(self, owned, vpmem):  # noqa: F811
        code, _, err = vpmem("namespace", "export", "small1", "/nonexistent/file")
        assert (code, "No such file or directory" in err) == (5, True)

    def test_an_import_to_one_that_is_held(self, owned, vpmem, tmp_path, refused):  # noqa: F811
        assert vpmem("namespace", "export", "small1", tmp_path / "file")[0] == 0
        for owner in (owned[0], new_owner()):
            refused(4, "namespace", "import", tmp_path / "file", "small1", "--owner", owner)

    def test_an_import_to_one_in_use(self, host, owned, vpmem, tmp_path):  # noqa: F811
        assert vpmem("namespace", "export", "small1", tmp_path / "file")[0] == 0
        before, heir = host.path("small2").read_bytes(), new_owner()
        with another_process(MAP, host.path("small2")):
            code, _, err = vpmem("namespace", "import", tmp_path / "file", "small2", "--owner", heir)
        assert (code, "is in use by process" in err) == (4, True)
        assert host.path("small2").read_bytes() == before
        assert host.pool().held(heir) == []

    def test_an_import_that_does_not_fit(self, host, vpmem, refused, tmp_path):  # noqa: F811
        pool = host.pool()
        pool.adopt(new_owner(), [pool.find("large0")])
        assert vpmem("namespace", "export", "large0", tmp_path / "file")[0] == 0
        err = refused(4, "namespace", "import", tmp_path / "file", "small2", "--owner", new_owner())
        assert "8388608 bytes" in err

    @pytest.mark.parametrize(
        ("content", "words", "said"),
        [
            (b"notes\n", [], "it does not begin as an export"),
            (b"x" * 4096, ["--file-format", "raw"], "it has 4096 bytes, and the namespace has 4194304"),
            pytest.param(b"x" * 4096, ["--file-format", "qcow2"], "qemu-img info", marks=needs_qemu_img),
        ],
    )
    def test_an_import_of_something_else(self, refused, tmp_path, content, words, said):  # noqa: F811
        (tmp_path / "file").write_bytes(content)
        code = 5 if "qcow2" in words else 2
        assert said in refused(code, "namespace", "import", tmp_path / "file", "small2", "--owner", new_owner(), *words)

    @needs_qemu_img
    def test_an_image_with_another_file_behind_it_would_reveal_that_file(self, refused, tmp_path):  # noqa: F811
        (tmp_path / "secret").write_bytes(b"s" * 4 * MIB)
        subprocess.run(
            ["qemu-img", "create", "-f", "qcow2", "-b", tmp_path / "secret", "-F", "raw", tmp_path / "file"],
            check=True,
            capture_output=True,
        )
        words = ["namespace", "import", tmp_path / "file", "small2", "--owner", new_owner(), "--file-format", "qcow2"]
        assert "it refers to another file" in refused(2, *words)

    def test_no_qemu_img(self, owned, vpmem, tmp_path, monkeypatch):  # noqa: F811
        monkeypatch.setenv("PATH", "/nonexistent")
        code, _, err = vpmem("namespace", "export", "small1", tmp_path / "file", "--file-format", "qcow2")
        assert (code, "Install qemu-utils" in err) == (5, True)
        assert list(tmp_path.glob("file*")) == []


class Snapshot:
    """A domain with two namespaces, and a directory for its snapshot."""

    def __init__(self, host, domain, directory, vpmem):  # noqa: F811
        self.host, self.directory, self._vpmem = host, directory, vpmem
        self.owner = domain.UUIDString()
        pool = host.pool()
        grants = pool.adopt(self.owner, [pool.find(name) for name in ("small1", "large0")])
        self.domain = libvirt.open(URI).defineXML(guestxml.add(domain.XMLDesc(), grants))
        self.content = self.read()

    def read(self):
        return [pathlib.Path(path).read_bytes() for path in paths(self.domain)]

    def change(self):
        for path in paths(self.domain):
            fill(pathlib.Path(path))

    def __call__(self, command, *words, code=0):
        name = self.domain.name()
        result, out, err = self._vpmem("domain", command, name, self.directory, "--connect", URI, *words)
        assert result == code, err
        return out + err


@pytest.fixture
def taken(host, domain, vpmem, tmp_path):  # noqa: F811
    return Snapshot(host, domain, tmp_path / "snapshot", vpmem)


class TestSnapshot:
    def test_it_is_restored(self, host, taken):
        taken("snapshot")
        manifest = json.loads((taken.directory / "manifest.json").read_text())
        assert (manifest["domain"], [each["label"] for each in manifest["namespaces"]]) == (
            taken.owner,
            ["SMALL", "LARGE"],
        )
        assert taken.directory.stat().st_mode & 0o777 == 0o700
        taken.change()
        old = [pathlib.Path(path) for path in paths(taken.domain)]
        out = taken("restore", "--wait")
        assert "large1" in out
        assert taken.read() == taken.content
        assert all(map(is_zero, old))
        pool = host.pool()
        assert [grant.device for grant in pool.grants(taken.owner)] == paths(taken.domain)
        taken.change()
        host.pool().wipe()
        taken("restore")
        assert taken.read() == taken.content, "again, and not what was restored before"

    def test_a_domain_that_has_lost_its_namespaces(self, host, taken, vpmem):  # noqa: F811
        taken("snapshot")
        assert vpmem("domain", "detach", taken.domain.name(), "--connect", URI)[0] == 0
        taken("restore")
        assert taken.read() == taken.content

    @pytest.mark.parametrize("changed", [False, True])
    def test_an_interrupted_snapshot_resumes(self, taken, changed, monkeypatch):
        real, calls = archives.export_stream, []

        def export_stream(*arguments):
            calls.append(arguments)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(archives, "export_stream", export_stream)
        taken("snapshot", code=130)
        assert [row.departure for row in taken.host.pool().held(taken.owner)] == [None, None]
        assert "it is not a complete snapshot" in taken("restore", code=2)
        if changed:
            taken.change()
            taken.content = taken.read()
        taken("snapshot")
        taken.change()
        taken("restore")
        assert taken.read() == taken.content

    @pytest.mark.parametrize("at", ["second namespace", "define"])
    def test_an_interrupted_restore_resumes(self, taken, at, monkeypatch):
        taken("snapshot")
        taken.change()
        before = taken.read()
        owner, name = (archives, "fill") if at == "second namespace" else (Domains, "define")
        real, calls = getattr(owner, name), []

        def once(*arguments):
            calls.append(arguments)
            if len(calls) == (2 if owner is archives else 1):
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(owner, name, once)
        taken("restore", code=130)
        assert taken.read() == before
        held = taken.host.pool().held(taken.owner)
        assert [row.departure for row in held] == [None] * 4
        taken("restore")
        assert taken.read() == taken.content
        assert [row.uuid for row in taken.host.pool().held(taken.owner)] == [row.uuid for row in held[2:]]

    def test_what_cannot_be_snapshot_or_restored_changes_nothing(self, host, taken, connection, vpmem, tmp_path):  # noqa: F811
        taken.domain.create()
        assert "it is running" in taken("snapshot", code=4)
        taken.domain.destroy()
        taken("snapshot")
        assert "it has a complete snapshot" in taken("snapshot", code=2)
        before = snapshot(host)
        other = connection.defineXML(DOMAIN.format(name="other", uuid=new_owner()))
        code, _, err = vpmem("domain", "restore", "other", taken.directory, "--connect", URI)
        assert (code, "the snapshot is of domain" in err) == (4, True)
        other.undefine()
        pool = host.pool()
        free = pool.find("large1")
        stranger = new_owner()
        pool.adopt(stranger, [free])
        assert "LARGE: none is free" in taken("restore", code=3)
        pool.release(stranger)
        taken.domain.create()
        assert "it is running" in taken("restore", code=4)
        taken.domain.destroy()
        pool.adopt(taken.owner, [pool.find("small0")])
        assert "which its definition does not use" in taken("restore", code=4)
        pool.release(taken.owner, [pool.find("small0")])
        manifest = taken.directory / "manifest.json"
        for old, new, said in [
            ('"digest": "', '"digest": "00', "cannot be used"),
            ('"size": 4194304', '"size": 8388608', "0.vpmem is not the file that its manifest.json names"),
            ("1.vpmem", "2.vpmem", "2.vpmem is missing"),
            ("1.vpmem", "../1.vpmem", "cannot be used"),
            ("1.vpmem", f"{'1' * 250}.vpmem", "cannot be used"),
        ]:
            text = manifest.read_text()
            manifest.write_text(text.replace(old, new, 1))
            assert said in taken("restore", code=2)
            manifest.write_text(text)
        os.truncate(taken.directory / "1.vpmem", (taken.directory / "1.vpmem").stat().st_size - 1)
        assert "1.vpmem is damaged: it" in taken("restore", code=2)
        assert snapshot(host)[0] == before[0]
        assert {row.uuid for row in host.pool().held(taken.owner)} == {row.uuid for row in before[1]}

    def test_a_directory_of_something_else(self, taken):
        taken.directory.mkdir()
        (taken.directory / "notes").touch()
        assert "it contains notes" in taken("snapshot", code=2)


def test_a_hold_that_is_being_made_is_not_stale(tmp_path):
    with holds.hold(tmp_path, "00c0ffee"):
        assert holds.stale(tmp_path) == []
        assert [path.name for path in tmp_path.iterdir()] == ["departure-00c0ffee.lock"]
    assert holds.stale(tmp_path) == ["00c0ffee"]
    holds.forget(tmp_path, "00c0ffee")
    assert list(tmp_path.iterdir()) == []
