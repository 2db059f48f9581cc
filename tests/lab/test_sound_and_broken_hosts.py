"""``vpmem host check`` on a sound host, and on hosts with one fault each."""

import contextlib
import json
import time

import pytest

from tests.lab import daemon
from tests.lab.host import STATE
from tests.lab.test_power import DEADLINE_SECONDS

_HOOK = "/etc/libvirt/hooks/qemu.d/vpmem"


@pytest.fixture(scope="module")
def sound(cut):
    """The host that was cut by plan, with its libvirtd, and a ledger that knows its namespaces."""
    daemon.start(cut.host)
    cut.host.vpmem("namespace", "list")
    return cut


def check(host, *words):
    """Exit code, and the findings that are neither ok nor unseen, by id. A busy libvirtd may not answer in time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        done = host.call("vpmem", [*words, "host", "check", "-f", "json"])
        found = [one for one in json.loads(done["out"]) if one["level"] not in {"ok", "unseen"}]
        if not any("no answer after" in one["message"] for one in found):
            break
        assert time.monotonic() < deadline, found
    assert all(one["id"] and (one["remedy"] or one["message"].count(".") > 1) for one in found)
    return done["code"], {one["id"]: one for one in found}


def test_a_sound_host(sound, seen):
    assert check(sound.host) == (0, {})
    seen("host check of a sound host", "no warning and no failure")


@contextlib.contextmanager
def commands(host, break_it, repair):
    """Run shell commands that break the host, and some that repair it."""
    host.run("sh", "-ec", break_it)
    try:
        yield ()
    finally:
        host.run("sh", "-ec", repair)


@contextlib.contextmanager
def configuration(cut, entries, **options):
    """Another configuration."""
    text = f"[libvirt]\npmem_namespaces = {entries}\n[vpmem]\n"
    text += "".join(f"{name} = {value}\n" for name, value in options.items())
    cut.host.call("write", "/run/broken.conf", text)
    yield ("--config-file", "/run/broken.conf")


def device_of(cut, name):
    """The name of a dax device, such as dax0.1, and of its namespace."""
    (found,) = [one for one in cut.host.run("ndctl", "list", "--namespaces").json if one["name"] == name]
    return found["chardev"], found["dev"]


def no_driver(cut):
    return commands(cut.host, "modprobe -r device_dax", "modprobe device_dax")


def no_device_node(cut):
    name, _ = device_of(cut, "PAIR-0")
    numbers = cut.host.run("stat", "--format=%Hr %Lr", f"/dev/{name}").out
    return commands(cut.host, f"rm /dev/{name}", f"mknod --mode=600 /dev/{name} c {numbers}")


def system_memory(cut):
    name, _ = device_of(cut, "RAM-0")
    return commands(
        cut.host,
        f"daxctl reconfigure-device --mode=system-ram --no-online {name}",
        f"daxctl reconfigure-device --mode=devdax {name}",
    )


def filesystem_mode(cut):
    """The namespace has another uuid afterwards, so the ledger is made anew."""
    _, name = device_of(cut, "PAIR-0")
    convert = f"ndctl create-namespace --force --reconfig={name} --mode"
    back = f"{convert}=devdax --map=dev --align=2M; rm -f {STATE}/ledger.sqlite3*"
    return commands(cut.host, f"{convert}=fsdax", back)


def disabled(cut):
    _, name = device_of(cut, "PAIR-1")
    return commands(cut.host, f"ndctl disable-namespace {name}", f"ndctl enable-namespace {name}")


def same_name(cut):
    region = cut.plan["regions"][0]["dev"]
    create = f"ndctl create-namespace --region={region} --mode=devdax --size=16M --name=PAIR-0 > /run/made"
    destroy = """ndctl destroy-namespace --force $(sed -n 's/.*"dev":"\\(.*\\)".*/\\1/p' /run/made | head -n 1)"""
    return commands(cut.host, create, destroy)


def absent_name(cut):
    return configuration(cut, cut.plan["pmem_namespaces"] + "|absent", state_path=STATE)


def ledger_in_memory(cut):
    return configuration(cut, cut.plan["pmem_namespaces"], state_path="/run/ledger")


@contextlib.contextmanager
def ledger_damaged(cut):
    cut.host.run("install", "--directory", "--mode=700", f"{STATE}/damaged")
    cut.host.call("write", f"{STATE}/damaged/ledger.sqlite3", "no ledger" * 1000)
    with configuration(cut, cut.plan["pmem_namespaces"], state_path=f"{STATE}/damaged") as words:
        yield words
    cut.host.run("rm", "--recursive", f"{STATE}/damaged")


def disk_full(cut):
    free = f"$(stat --file-system --format='%a * %S' {STATE})"
    return commands(cut.host, f"fallocate --length $(({free} - 1048576)) {STATE}/fill", f"rm {STATE}/fill")


def no_hook(cut):
    return commands(cut.host, f"mv {_HOOK} /run/hook", f"mv /run/hook {_HOOK}")


def no_libvirtd(cut):
    stop = "kill $(cat /run/libvirtd.pid); timeout 60 sh -c 'while test -e /run/libvirtd.pid; do :; done'"
    return commands(cut.host, stop, "libvirtd --daemon; timeout 60 sh -c 'until virsh uri; do :; done'")


#: What breaks it, the id that must be found, and the exit code.
FAULTS = {
    no_driver: ("VPMEM-C01", 8),
    system_memory: ("VPMEM-C02", 8),
    no_device_node: ("VPMEM-N02", 8),
    ledger_in_memory: ("VPMEM-C05", 0),
    disk_full: ("VPMEM-C06", 8),
    no_hook: ("VPMEM-C10", 8),
    absent_name: ("VPMEM-E01", 8),
    same_name: ("VPMEM-E01", 8),
    disabled: ("VPMEM-N02", 8),
    ledger_damaged: ("VPMEM-E16", 8),
    no_libvirtd: ("VPMEM-C08", 0),
    filesystem_mode: ("VPMEM-E01", 8),
}


@pytest.mark.parametrize("broken", FAULTS, ids=lambda broken: broken.__name__)
def test_a_broken_host(sound, seen, broken):
    wanted, code = FAULTS[broken]
    with broken(sound) as words:
        found = check(sound.host, *words)
    assert wanted in found[1], found
    assert found[0] == code
    seen(f"host check: {broken.__name__.replace('_', ' ')}", f"{wanted}: {found[1][wanted]['message'][:100]}")


def test_it_is_sound_again(sound):
    assert check(sound.host) == (0, {})
