"""Programs and libraries: ndctl, daxctl, libpmem, QEMU."""

import platform
from collections.abc import Iterator

from vpmem_driver.checkup import finding
from vpmem_driver.checkup.finding import Finding
from vpmem_driver.checkup.host import Host
from vpmem_driver.faults import checks as faults


def ndctl(host: Host, discovery: str) -> Iterator[Finding]:
    """Check that ndctl and daxctl run, and report their versions."""
    for program in ("ndctl", "daxctl"):
        version = host.run(program, "--version")
        if version is not None:
            yield finding.ok(program, f"version {version.strip()}")
        elif program == "ndctl" and discovery == "ndctl":
            yield finding.failure(
                program,
                faults.PROGRAM,
                "ndctl is not installed or does not run, and [vpmem] discovery = ndctl",
                "Install the package ndctl, or set [vpmem] discovery = sysfs",
            )
        elif discovery != "directory":
            yield finding.warning(program, faults.PROGRAM, f"{program} is not installed or does not run")


def libpmem() -> Iterator[Finding]:
    """Report how this package writes to persistent memory."""
    from vpmem_driver import _pmem  # noqa: PLC0415  compiled, and detects the CPU when it is imported

    yield finding.ok("stores", f"wipes use {_pmem.backend()}")


def qemu(host: Host, *, pmem: bool) -> Iterator[Finding]:
    """Check that QEMU has NVDIMM devices and, for persistent memory, was built with libpmem.

    :param pmem: whether any namespace is persistent without msync, so that its device has ``<pmem/>``
    """
    program = f"qemu-system-{platform.machine()}"
    version = host.run(program, "--version")
    if version is None:
        yield finding.warning("QEMU", faults.QEMU, f"{program} is not installed, or not in PATH")
        return
    yield finding.ok("QEMU", version.splitlines()[0] if version else "no version")
    devices = host.run(program, "-device", "help")
    if devices is not None and 'name "nvdimm"' not in devices:
        yield finding.failure("QEMU", faults.QEMU, f"{program} has no NVDIMM device")
    options = host.run(program, "-object", "memory-backend-file,help")
    if options is None:
        yield finding.unseen("QEMU with libpmem", f"{program} does not list its options", faults.QEMU.remedy)
    elif "pmem=" in options:
        yield finding.ok("QEMU with libpmem", "built with libpmem")
    elif pmem:
        yield finding.failure("QEMU with libpmem", faults.QEMU, f"{program} was built without libpmem")
    else:
        yield finding.ok("QEMU with libpmem", "built without libpmem, which no namespace of this host needs")
