"""libvirt: versions, memory devices, the hook, locked memory, AppArmor and SELinux, and the PID namespace."""

import os
import pathlib
from collections.abc import Iterator

from vpmem_driver import conf, exception
from vpmem_driver.checkup import finding
from vpmem_driver.checkup.finding import Finding
from vpmem_driver.checkup.host import Host
from vpmem_driver.faults import checks as faults
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.sizes import GIB

#: A check waits no longer for libvirt, in seconds.
LIMIT_SECONDS = 10.0

#: libvirt runs several hooks, in qemu.d, since 6.5 (hooks.html).
_LEAST_VERSION = (6, 5, 0)
_HOOK = "/etc/libvirt/hooks/qemu.d/vpmem"
_DAEMONS = ("virtqemud", "libvirtd")
#: inode of the first PID namespace (PROC_PID_INIT_INO in Linux, include/linux/proc_ns.h)
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
#: CAP_SYS_RESOURCE in capabilities(7)
_SYS_RESOURCE = 24


def versions(domains: Domains) -> Iterator[Finding]:
    """Check that libvirt answers, and what it says of itself and its QEMU."""
    if domains.uri is None:
        yield finding.warning("libvirt", faults.LIBVIRT, "no libvirt daemon has a socket on this host")
        return
    try:
        about = domains.about(limit=LIMIT_SECONDS)
    except exception.LibvirtError as error:
        if error.is_timeout:
            silence = f"{domains.uri} did not answer within {LIMIT_SECONDS:g} seconds"
            yield finding.warning("libvirt", faults.LIBVIRT_SILENT, silence)
        else:
            yield finding.of_error("libvirt", error)
        return
    version = ".".join(map(str, about.libvirt))
    if about.libvirt < _LEAST_VERSION:
        yield finding.warning("libvirt", faults.LIBVIRT, f"version {version} is older than 6.5")
    else:
        yield finding.ok("libvirt", f"version {version}, {about.kind} {'.'.join(map(str, about.hypervisor))}")
    if about.memory_backing is False:
        yield finding.failure("domain capabilities", faults.QEMU, "libvirt says that QEMU has no memory backing")
    elif about.memory_backing:
        yield finding.ok("domain capabilities", "memory backing is supported")


def hook(host: Host, *, is_nova: bool) -> Iterator[Finding]:
    """Check that the hook is installed. Nova generates the XML of a guest at each start, and needs none."""
    check = "libvirt hook"
    if is_nova:
        yield finding.ok(check, "not needed with Nova")
        return
    if not host.exists(_HOOK):
        yield finding.failure(check, faults.HOOK, f"{_HOOK} does not exist")
        return
    if not os.access(host.path(_HOOK), os.X_OK):
        yield finding.failure(check, faults.HOOK, f"{_HOOK} cannot be executed, or leads nowhere")
        return
    if not host.exists(conf.CONFIG_FILE):
        yield finding.failure(check, faults.HOOK, f"the hook reads {conf.CONFIG_FILE}, which does not exist")
        return
    yield finding.ok(check, f"{_HOOK} is installed")
    yield from _confinement(host)


def _confinement(host: Host) -> Iterator[Finding]:
    """Check whether a policy may keep the daemon from running the hook."""
    target = str(pathlib.Path(os.path.realpath(host.path(_HOOK))))
    for pid in host.processes(*_DAEMONS)[:1]:
        label = (host.read(f"/proc/{pid}/attr/current") or "").strip("\0\n ")
        if label.endswith("(enforce)"):
            profile = label.partition(" ")[0]
            if target not in _apparmor_rules(host):
                yield finding.warning(
                    "AppArmor", faults.CONFINED, f"{profile} is confined, and no rule in /etc/apparmor.d names {target}"
                )
            else:
                yield finding.ok("AppArmor", f"a rule names {target}")
    if (host.read("/sys/fs/selinux/enforce") or "0").strip() == "1":
        yield finding.warning("SELinux", faults.CONFINED, f"SELinux is enforcing; its policy may not allow {target}")


def _apparmor_rules(host: Host) -> str:
    directories = ("/etc/apparmor.d", "/etc/apparmor.d/local", "/etc/apparmor.d/abstractions")
    return "".join(
        host.read(f"{directory}/{name}") or ""
        for directory in directories
        for name in host.names(directory)
        if "virt" in name
    )


def locked_memory(host: Host) -> Iterator[Finding]:
    """Check that the daemon may raise the limit of locked memory for its guests."""
    check = "locked memory"
    for pid in host.processes(*_DAEMONS)[:1]:
        limits, status = host.read(f"/proc/{pid}/limits"), host.read(f"/proc/{pid}/status")
        if limits is None or status is None:
            yield finding.unseen(check, f"the limits of process {pid} cannot be read")
            continue
        limit = next(
            (line.split()[3] for line in limits.splitlines() if line.startswith("Max locked memory")), "unlimited"
        )
        mask = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
        may_raise = bool(int(mask, 16) >> _SYS_RESOURCE & 1)
        if limit == "unlimited" or int(limit) >= 16 * GIB or may_raise:
            yield finding.ok(
                check, "unlimited" if limit == "unlimited" else f"libvirt can raise the limit of {limit} bytes"
            )
        else:
            yield finding.warning(check, faults.MEMORY_LOCK, f"process {pid} is limited to {limit} bytes")


def pid_namespace(host: Host, domains: Domains) -> Iterator[Finding]:
    """Check that QEMU's processes are visible from here."""
    check = "PID namespace"
    try:
        number = os.stat(host.path("/proc/self/ns/pid")).st_ino
    except OSError as error:
        yield finding.unseen(check, f"/proc/self/ns/pid: {error.strerror}")
        return
    if number == _FIRST_PID_NAMESPACE:
        yield finding.ok(check, "that of the host")
    elif domains.uri is None:
        yield finding.failure(
            check, faults.PID_NAMESPACE, "this is a container with its own PID namespace, and no libvirt can be asked"
        )
    else:
        yield finding.warning(
            check,
            faults.PID_NAMESPACE,
            f"this is a container with its own PID namespace; vpmem relies on {domains.uri}",
        )
