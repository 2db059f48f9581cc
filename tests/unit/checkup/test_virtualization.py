"""libvirt, its hook, its limits, and what it may see."""

import types

import pytest

from tests.unit.checkup.conftest import levels
from vpmem_driver import exception
from vpmem_driver.checkup import virtualization
from vpmem_driver.libvirt_domains import About, Domains

HOOK = "/etc/libvirt/hooks/qemu.d/vpmem"


def domains(about=None, uri="qemu:///system", *, is_timeout=False):
    def answer(limit):
        if about is None:
            raise exception.LibvirtError(uri=uri, reason="no", remedy="Check the daemon", is_timeout=is_timeout)
        return about

    return types.SimpleNamespace(uri=uri, about=answer)


def test_versions():
    first, second = virtualization.versions(domains(About((9, 0, 0), "QEMU", (7, 2, 22), memory_backing=True)))
    assert first.message == "version 9.0.0, QEMU 7.2.22"
    assert levels([first, second]) == ["ok", "ok"]


@pytest.mark.parametrize(
    ("asked", "level", "name"),
    [
        (domains(uri=None), "warning", "VPMEM-C08"),
        (domains(), "failure", "VPMEM-E20"),
        (domains(is_timeout=True), "warning", "VPMEM-C22"),
        (domains(About((6, 0, 0), "QEMU", (4, 2, 0), memory_backing=None)), "warning", "VPMEM-C08"),
    ],
)
def test_a_libvirt_that_is_absent_broken_silent_or_old(asked, level, name):
    (found,) = virtualization.versions(asked)
    assert (str(found.level), found.id) == (level, name)


def test_domain_capabilities_without_memory_backing():
    _, found = virtualization.versions(domains(About((9, 0, 0), "QEMU", (7, 2, 22), memory_backing=False)))
    assert levels([found]) == ["failure"]


def test_what_a_real_libvirt_says_of_itself():
    about = Domains("test:///default").about(limit=30)
    assert about.kind == "TEST"
    assert about.libvirt >= (6, 5, 0)


def install(made, target="/opt/vpmem/bin/vpmem-libvirt-hook"):
    program = made.write(target, "#!/bin/sh\n")
    program.chmod(0o755)
    made.path(HOOK).parent.mkdir(parents=True, exist_ok=True)
    made.path(HOOK).symlink_to(program)
    made.write("/etc/vpmem/vpmem.conf")
    return str(program)


def test_the_hook(made):
    install(made)
    assert levels(virtualization.hook(made, is_nova=False)) == ["ok"]


def test_a_nova_host_needs_no_hook(made):
    assert levels(virtualization.hook(made, is_nova=True)) == ["ok"]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda made: made.path(HOOK).unlink(), "does not exist"),
        (lambda made: made.path("/opt/vpmem/bin/vpmem-libvirt-hook").unlink(), "leads nowhere"),
        (lambda made: made.path("/opt/vpmem/bin/vpmem-libvirt-hook").chmod(0o644), "cannot be executed"),
        (lambda made: made.path("/etc/vpmem/vpmem.conf").unlink(), "/etc/vpmem/vpmem.conf, which does not exist"),
    ],
)
def test_a_hook_that_cannot_run(made, break_it, said):
    install(made)
    break_it(made)
    (found,) = virtualization.hook(made, is_nova=False)
    assert (str(found.level), found.id) == ("failure", "VPMEM-C10")
    assert said in found.message


def daemon(made, *, label="unconfined", limit="8388608", capabilities="000001ffffffffff"):
    made.write("/proc/7/comm", "libvirtd\n")
    made.write("/proc/7/attr/current", f"{label}\n")
    made.write(
        "/proc/7/limits", f"Limit  Soft Limit\nMax locked memory         {limit}              {limit}    bytes\n"
    )
    made.write("/proc/7/status", f"Name:\tlibvirtd\nCapEff:\t{capabilities}\n")


def test_apparmor_and_the_hook(made):
    target = install(made)
    daemon(made)
    assert levels(virtualization.hook(made, is_nova=False)) == ["ok"]
    daemon(made, label="libvirtd (enforce)")
    _, found = virtualization.hook(made, is_nova=False)
    assert (str(found.level), found.id, found.check) == ("warning", "VPMEM-C12", "AppArmor")
    made.write("/etc/apparmor.d/local/usr.sbin.libvirtd", f"  {target} PUx,\n")
    assert levels(virtualization.hook(made, is_nova=False)) == ["ok", "ok"]


@pytest.mark.parametrize(("enforce", "expected"), [("1", ["ok", "warning"]), ("0", ["ok"])])
def test_selinux_and_the_hook(made, enforce, expected):
    install(made)
    made.write("/sys/fs/selinux/enforce", enforce)
    assert levels(virtualization.hook(made, is_nova=False)) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ["ok"]),
        ({"limit": "unlimited", "capabilities": "0"}, ["ok"]),
        ({"capabilities": "0000000000000000"}, ["warning"]),
        ({"capabilities": f"{(1 << 41) - 1 - (1 << 24):016x}"}, ["warning"]),
    ],
)
def test_locked_memory(made, values, expected):
    daemon(made, **values)
    assert levels(virtualization.locked_memory(made)) == expected


def test_limits_that_this_user_may_not_read(made):
    made.write("/proc/7/comm", "virtqemud\n")
    assert levels(virtualization.locked_memory(made)) == ["unseen"]


def test_without_a_daemon_there_is_no_limit(made):
    assert list(virtualization.locked_memory(made)) == []


def test_the_pid_namespace(made, monkeypatch):
    made.write("/proc/self/ns/pid")
    here = made.path("/proc/self/ns/pid").stat().st_ino
    (found,) = virtualization.pid_namespace(made, domains())
    assert (str(found.level), found.id) == ("warning", "VPMEM-C13")
    assert "relies on qemu:///system" in found.message
    assert levels(virtualization.pid_namespace(made, domains(uri=None))) == ["failure"]
    monkeypatch.setattr(virtualization, "_FIRST_PID_NAMESPACE", here)
    assert levels(virtualization.pid_namespace(made, domains(uri=None))) == ["ok"]
    made.path("/proc/self/ns/pid").unlink()
    assert levels(virtualization.pid_namespace(made, domains())) == ["unseen"]
