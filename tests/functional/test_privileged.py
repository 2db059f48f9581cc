"""The wipe of a service that may not open devices: the privileged side looks namespaces up in its own configuration."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import threading

import pytest

from tests.functional.conftest import Host, fill, is_zero, new_owner
from vpmem_driver import discovery, exception
from vpmem_driver.engine import Engine, Job, Outcome

PROGRAM = pathlib.Path(sys.executable).with_name("vpmem-wipe")

#: Where ndctl is not installed, and where it lists nothing.
WITHOUT_NAMESPACES = {Outcome.HOST, Outcome.MISSING}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="other users take root")


def command(config_file):
    """As ``vpmem-wipe``, with another place for what belongs to root."""
    program = (
        "from vpmem_driver import conf; from vpmem_driver.worker import privileged; "
        f"conf.CONFIG_FILE = {str(config_file)!r}; privileged.main()"
    )
    return shlex.join([sys.executable, "-I", "-c", program])


def copy_command(config_file):
    """As ``vpmem-copy``."""
    return command(config_file).replace("privileged.main()", "privileged.main_copy()")


@pytest.fixture
def tmp_path(unshared_path):
    """Where others may write, as below /tmp, it wipes nothing."""
    return unshared_path


def wipe(host, wipe_command, name="large0"):
    """Have one namespace wiped; returns how that ended, after a look that nothing was changed unless it is wiped."""
    host.options["wipe_command"] = wipe_command
    pool = host.pool()
    before = host.path(name).read_bytes()
    (result,) = pool.wipe([pool.find(name)])
    assert result.outcome is Outcome.WIPED or host.path(name).read_bytes() == before
    return result


def test_of_what_root_may_do_it_keeps_what_a_wipe_needs():
    """And what it executes, such as ndctl, has no more."""
    program = (
        "from vpmem_driver.worker import capabilities as c; c.keep_only(*c.FOR_A_WIPE);"
        "import subprocess; print(open('/proc/self/status').read());"
        "print(subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True, check=True).stdout)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    before = dict(
        line.split(":\t") for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "Cap" in line
    )
    wanted = 1 << 1 | 1 << 19 | 1 << 40
    for status in said.strip().split("\n\n"):
        after = dict(line.split(":\t") for line in status.splitlines() if line.startswith(("Cap", "NoNewPrivs")))
        assert after["NoNewPrivs"] == "1"
        for name in ("CapEff", "CapPrm"):
            assert int(after[name], 16) == int(before[name], 16) & wanted
        assert int(after["CapInh"], 16) == 0
        if os.geteuid() == 0:
            assert int(after["CapBnd"], 16) == int(before["CapBnd"], 16) & wanted


def test_a_namespace_of_its_own_configuration_is_wiped(host):
    host.options["wipe_command"] = command(host.config_file())
    pool = host.pool()
    (grant,) = pool.claim(new_owner(), ["LARGE"])
    assert is_zero(host.path(grant.name))


def test_what_only_the_request_names_is_not_touched(host, tmp_path):
    """Else the service could have any file of the host overwritten, by naming its directory."""
    (tmp_path / "root").mkdir()
    theirs = Host(tmp_path / "root")
    theirs.make("real0")
    theirs.pmem_namespaces = []
    result = wipe(host, command(theirs.config_file()))
    assert (result.outcome, result.reason) == (Outcome.MISSING, "discovery does not find it")


@pytest.mark.parametrize("by", ["home", "variables"])
def test_neither_environment_nor_home_configures_it(host, tmp_path, by):
    """The service could name any directory of the host in either of them, and have the files in it overwritten."""
    files = tmp_path / "home" / ".vpmem" / "vpmem.conf.d"
    files.mkdir(parents=True)
    host.config_file().rename(files / "vpmem.conf")
    variables = [f"OS_VPMEM__{name.upper()}={value}" for name, value in host.conf().vpmem.items() if value]
    environment = {"home": [f"HOME={tmp_path / 'home'}"], "variables": variables}[by]
    assert wipe(host, shlex.join(["env", *environment, str(PROGRAM)])).outcome in WITHOUT_NAMESPACES


def test_programs_are_not_found_by_the_callers_path(host, tmp_path):
    """A program called ndctl, which the service has made, was executed as root."""
    program = tmp_path / "bin" / "ndctl"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    program.chmod(0o755)
    assert wipe(host, f"env PATH={program.parent}:/usr/bin:/bin {PROGRAM}").outcome in WITHOUT_NAMESPACES
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["vpmem.conf", "."])
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_configuration_that_others_may_write_to_is_refused(host, tmp_path, name, mode):
    directory = tmp_path / "etc"
    directory.mkdir()
    config_file = host.config_file().rename(directory / "vpmem.conf")
    (directory / name).chmod(mode if name == "vpmem.conf" else mode | 0o111)
    result = wipe(host, command(config_file))
    assert result.outcome is Outcome.HOST
    assert result.reason.startswith(
        f"users other than root may write to {(directory / name)}; to fix that, run 'chown root"
    )


@needs_root
def test_a_configuration_of_another_user_is_refused(host):
    config_file = host.config_file()
    os.chown(config_file, 65534, 65534)
    result = wipe(host, command(config_file))
    assert (result.outcome, "users other than root may write" in result.reason) == (Outcome.HOST, True)


def test_a_configuration_that_is_a_link_is_refused(host, tmp_path):
    config_file = host.config_file()
    link = tmp_path / "link.conf"
    link.symlink_to(config_file)
    result = wipe(host, command(link))
    assert (result.outcome, result.reason) == (
        Outcome.HOST,
        f"Cannot read the configuration: {link} is not a regular file",
    )


@pytest.mark.parametrize(
    "content,said",
    [
        (b"[vpmem]\ndiscovery = telepathy\n", "discovery"),
        (b"[vpmem]\npassword\n", "vpmem.conf cannot be parsed"),
        (b"[vpmem]\ndiscovery = directory\n", "directory: it is not set"),
        (b"\xff", "is not UTF-8 text"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_explained(host, content, said):
    config_file = host.config_file()
    config_file.write_bytes(content)
    result = wipe(host, command(config_file))
    assert result.outcome is Outcome.HOST
    assert said in result.reason
    assert "password" not in result.reason


def test_without_a_configuration_it_asks_ndctl(host, tmp_path):
    result = wipe(host, command(tmp_path / "none" / "vpmem.conf"))
    assert result.outcome in WITHOUT_NAMESPACES
    assert "ndctl" in result.reason or result.reason == "discovery does not find it"


@pytest.mark.parametrize("name", [".", "node0"])
def test_namespaces_are_not_wiped_where_others_may_write(host, name):
    """They could swap a directory between look and use."""
    config_file = host.config_file()
    directory = (host.directory / name).resolve()
    directory.chmod(0o1777)
    result = wipe(host, command(config_file))
    assert result.outcome is Outcome.HOST
    assert result.reason.startswith(f"users other than root may write to {directory}; to fix that, run 'chown root")


def test_a_directory_of_namespaces_that_is_a_link_is_refused(host, tmp_path):
    """Discovery follows it: whoever may change the link would choose which files are namespaces."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "link").symlink_to(host.directory)
    directory, host.directory = host.directory, tmp_path / "shared" / "link"
    config_file = host.config_file()
    host.directory = directory
    result = wipe(host, command(config_file))
    assert result.outcome is Outcome.HOST
    assert "contains a symbolic link" in result.reason


class Watcher:
    def may_start(self, job):
        return True

    def progress(self, job, phase, done):
        pass

    def finished(self, result):
        pass


def test_it_zeroes_what_it_reads_whatever_an_earlier_wipe_is_said_to_have_zeroed(host):
    """A wipe of nothing, start = size, told the first byte that is not zero, and left everything as it was."""
    source = discovery.make("directory", directory=str(host.directory))
    (found,) = (each for each in source.namespaces() if each.name == "large0")
    engine = Engine(source, parallel=1, threads=1, rate=0, command=shlex.split(command(host.config_file())))
    job = Job(uuid=found.uuid, name=found.name, size=found.size, start=found.size)
    assert engine.run([job], Watcher()) == {found.uuid: job.ended(Outcome.WIPED)}
    assert is_zero(host.path("large0"))


@pytest.mark.parametrize("task", ["", "wipe", "[]", '{"uuid": "/etc/passwd"}', "[" * 60_000])
def test_a_task_that_is_not_understood_is_one_line_and_an_exit_status(task):
    done = subprocess.run([PROGRAM], input=task + "\ngo\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"vpmem: invalid task on standard input: [^\n]+\n", done.stderr)


class TestCopy:
    """vpmem-copy: the copies of a service that may not open the devices itself."""

    def copy(self, host, **options):
        """Copy one owner's namespace to another one of this host, and to one of another; returns the contents."""
        host.options |= options
        owner, pool = new_owner(), host.pool()
        (grant,) = pool.claim(owner, ["SMALL"])
        content = fill(host.path(grant.name))
        target = next(row for row in pool.rows() if row.owner is None and row.name.startswith("small"))
        pool.copies.depart(owner, "00c0ffee")
        pool.copies.expect_exact(owner, "00c0ffee", [target.uuid], [grant])
        return pool, grant, target, content

    def test_it_copies_on_one_host(self, host):
        pool, grant, target, content = self.copy(host, copy_command=copy_command(host.config_file()))
        pool.copies.copy("00c0ffee", grant.uuid, target.uuid, on_progress=lambda event: None)
        assert host.path(target.name).read_bytes() == content

    def test_the_stream_reaches_it_through_its_stdin(self, host):
        """Which is all that sudo and rootwrap leave open."""
        pool, grant, target, content = self.copy(host, copy_command=copy_command(host.config_file()))
        read, write = os.pipe()
        (destination,) = [grant for grant in pool.grants(grant.owner) if grant.uuid == target.uuid]

        def send():
            pool.copies.send("00c0ffee", grant.uuid, write, destination=destination, start=0, pack=False)
            os.close(write)

        thread = threading.Thread(target=send)
        pool.copies.receive(
            "00c0ffee", target.uuid, read, on_ready=lambda start: thread.start(), on_progress=lambda event: None
        )
        thread.join()
        os.close(read)
        assert host.path(target.name).read_bytes() == content

    @pytest.mark.parametrize("option", ["wipe_command", "copy_command"])
    def test_one_does_not_do_the_work_of_the_other(self, host, option):
        swapped = {"wipe_command": copy_command, "copy_command": command}[option](host.config_file())
        if option == "wipe_command":
            assert wipe(host, swapped).outcome is Outcome.HOST
            return
        pool, grant, target, _content = self.copy(host, copy_command=swapped)
        before = host.path(target.name).read_bytes()
        with pytest.raises(exception.CopyFailed, match="its process ended with status"):
            pool.copies.copy("00c0ffee", grant.uuid, target.uuid, on_progress=lambda event: None)
        assert host.path(target.name).read_bytes() == before
