"""A guest moves with its memory to another host: two libvirtds, two ledgers, and ssh through a real sshd."""

import copy
import getpass
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time

import libvirt
import pytest

from tests.functional.conftest import MIB, Host
from tests.functional.test_transfer import RELAY
from tests.integration.test_hook import HOOK
from tests.machine import guest, libvirtd
from vpmem_driver import interpreter

SSHD = "/usr/sbin/sshd"
_START_SECONDS = 30

CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def ssh(tmp_path_factory):
    """An sshd of the test's own, which runs one command whatever it is asked; call it with that command."""
    if not os.path.exists(SSHD) and "CI" not in os.environ:
        pytest.skip("openssh-server is not installed")
    directory = tmp_path_factory.mktemp("ssh")
    port = _free_port()
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    (directory / "config").write_text(CONFIG.format(port=port, directory=directory))
    separation = pathlib.Path("/run/sshd")
    is_new = os.geteuid() == 0 and not separation.exists()
    if is_new:
        separation.mkdir(mode=0o755)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", directory / "config"], stderr=log)
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def serve(command):
        key = (directory / "key.pub").read_text()
        (directory / "authorized_keys").write_text(f'restrict,command="{command}" {key}')
        options = [f"UserKnownHostsFile={directory}/known_hosts", "StrictHostKeyChecking=accept-new", "BatchMode=yes"]
        words = ["ssh", "-F", "none", "-i", directory / "key", "-p", port]
        return shlex.join([*map(str, words), *(word for option in options for word in ("-o", option))])

    yield serve
    process.terminate()
    process.wait()
    if is_new:
        separation.rmdir()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Two hosts with a namespace each, a libvirtd and the hook on both; host, and URI."""
    made, running = [], []
    for number in range(2):
        host = Host(tmp_path_factory.mktemp(f"host{number}"))
        host.make(f"memory{number}", size=8 * MIB)
        host.pmem_namespaces = [f"MEMORY:memory{number}"]
        hook = HOOK.format(python=sys.executable, config_file=str(host.directory.parent / "vpmem.conf"))
        running.append(libvirtd.running(hook))
        host.options["connection_uri"] = running[-1].__enter__()
        made.append(host)
    yield made
    for each in running:
        each.__exit__(None, None, None)
    for host in made:
        host.close()


@pytest.fixture
def host(hosts):
    return hosts[0]


@pytest.fixture
def uri(host):
    return host.options["connection_uri"]


def test_a_guest_finds_its_bytes_on_the_other_host(hosts, boot, ssh, tmp_path, seen):
    here, there = hosts
    from tests.integration.domain import Guest

    receive = interpreter.command("vpmem_driver.cli.main", "--config-file", str(there.config_file()), "receive")
    here.options["ssh_command"] = ssh(shlex.join(["env", f"PYTHONPATH={interpreter.search_path()}", *receive]))
    program = pathlib.Path(sys.executable).with_name("vpmem")

    def vpmem(*words, code=0):
        line = [program, "--config-file", here.config_file(), "domain", *words]
        done = subprocess.run(list(map(str, line)), check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    connections = [libvirt.open(each.options["connection_uri"]) for each in hosts]
    domain = Guest(connections[0], boot, tmp_path / "serial.log")
    vpmem("attach", domain.name, "MEMORY")
    domain.unpin()
    domain.start()
    assert all(device.holds(domain.uuid, 0) for device in domain.report().devices)
    other = ["--destination-uri", there.options["connection_uri"]]
    move = ["move", domain.name, f"{getpass.getuser()}@127.0.0.1", *other]
    assert "it is running" in vpmem(*move, code=4)
    domain.shut_down()
    assert "memory1" in vpmem(*move, "--dry-run")
    assert "memory1" in vpmem(*move, "--wait")
    assert guest.is_zero(here.path("memory0"))
    assert guest.holds(there.path("memory1"), domain.uuid, 0, 6 * MIB)
    with pytest.raises(libvirt.libvirtError):
        connections[0].lookupByUUIDString(domain.uuid)
    moved = copy.copy(domain)
    moved._connection, moved.domain = connections[1], connections[1].lookupByUUIDString(domain.uuid)
    moved.start()
    (device,) = moved.report().devices
    assert device.text == f"{domain.uuid} 0"
    assert device.holds(domain.uuid, 0)
    moved.shut_down()
    moved.close()
    there.pool().release(domain.uuid)  # for the next test
    there.pool().wipe()
    for connection in connections:
        connection.close()
    seen("vpmem domain move", "through sshd to another libvirtd; the guest finds all its bytes there")


def test_an_interrupted_move_starts_on_neither_host(hosts, boot, ssh, tmp_path, seen):
    """The connection breaks; the operator stops the move and cancels it, and the guest has its bytes."""
    here, there = hosts
    from tests.integration.domain import Guest

    program = pathlib.Path(sys.executable).with_name("vpmem")

    def line_of(*words):
        return list(map(str, [program, "--config-file", here.config_file(), *words]))

    def vpmem(*words):
        done = subprocess.run(line_of(*words), check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    connections = [libvirt.open(each.options["connection_uri"]) for each in hosts]
    domain = Guest(connections[0], boot, tmp_path / "serial.log")
    vpmem("domain", "attach", domain.name, "MEMORY")
    domain.unpin()
    domain.start()
    domain.report()
    domain.shut_down()
    move = ["domain", "move", domain.name, "127.0.0.1", "--destination-uri", there.options["connection_uri"]]
    receive = interpreter.command("vpmem_driver.cli.main", "--config-file", str(there.config_file()), "receive")
    line = shlex.join(["env", f"PYTHONPATH={interpreter.search_path()}", *receive])
    relay = tmp_path / "relay.py"
    relay.write_text(RELAY)
    here.options["ssh_command"] = ssh(shlex.join(map(str, [sys.executable, relay, "cut", MIB - 1])) + f" {line}")
    with subprocess.Popen(line_of(*move), stderr=subprocess.PIPE, text=True) as moving:
        next(said for said in moving.stderr if "Trying again in" in said)
        moving.send_signal(signal.SIGINT)
        assert "with --cancel to keep the domain here" in moving.stderr.read()
    assert moving.returncode == 130
    with pytest.raises(libvirt.libvirtError, match="a copy of it is not complete"):
        domain.start()
    here.options["ssh_command"] = ssh(line)
    vpmem(*move, "--cancel")
    assert there.pool().held(domain.uuid) == []
    domain.start()
    assert domain.report().devices[0].text == f"{domain.uuid} 0"
    domain.shut_down()
    vpmem("domain", "detach", domain.name, "--wait")
    domain.close()
    for connection in connections:
        connection.close()
    seen("an interrupted move", "the hook refuses the guest; after --cancel it starts and finds all its bytes")
