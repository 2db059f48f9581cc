"""Prometheus' own checker of metrics and rules: the machine's, or unpacked from its package with nothing installed."""

import pathlib
import shutil
import subprocess

from tests.machine import commands


def program(work: pathlib.Path) -> str:
    """The path of promtool, below `work` if the machine does not have it."""
    found = shutil.which("promtool")
    if found is not None:
        return found
    unpacked = work / "usr" / "bin" / "promtool"
    if not unpacked.exists():
        work.mkdir(parents=True, exist_ok=True)
        commands.run("apt-get", "-q", "download", _package(), cwd=work)
        for archive in work.glob("*.deb"):
            commands.run("dpkg", "-x", archive, work)
            archive.unlink()
    return str(unpacked)


def _package() -> str:
    """The package that has promtool: one of its own since Debian 13 and Ubuntu 26.04, before that Prometheus'."""
    found = subprocess.run(["apt-cache", "show", "promtool"], capture_output=True, check=False)
    return "promtool" if found.returncode == 0 else "prometheus"
