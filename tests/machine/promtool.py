"""Prometheus' own checker of metrics and rules: the machine's, or unpacked from its package with nothing installed."""

import pathlib
import shutil

from tests.machine import commands


def program(work: pathlib.Path) -> str:
    """The path of promtool, below `work` if the machine does not have it."""
    found = shutil.which("promtool")
    if found is not None:
        return found
    unpacked = work / "usr" / "bin" / "promtool"
    if not unpacked.exists():
        work.mkdir(parents=True, exist_ok=True)
        commands.run("apt-get", "-q", "download", "prometheus", cwd=work)
        for archive in work.glob("*.deb"):
            commands.run("dpkg", "-x", archive, work)
            archive.unlink()
    return str(unpacked)
