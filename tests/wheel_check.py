"""Installs the newest wheel of a directory into an empty environment without a compiler, and runs the demo from it.

libvirt-python has no wheel of its own to be had: one is built first, as an operator's build host would.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import venv
import zipfile


def main(directory: str) -> None:
    wheel = max(pathlib.Path(directory).glob("vpmem_driver-*.whl"), key=lambda path: path.stat().st_mtime)
    stray = [
        name
        for name in zipfile.ZipFile(wheel).namelist()
        if "tests" in name or name.endswith((".pyx", ".pxi", ".h", ".c"))
    ]
    if stray:
        sys.exit(f"{wheel.name} has what no compute host needs: {stray}")
    with tempfile.TemporaryDirectory() as scratch:
        given = pathlib.Path(scratch) / "given"
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(given), "libvirt-python"], check=True)
        home = pathlib.Path(scratch) / "venv"
        venv.create(home, with_pip=True)
        programs = pathlib.Path(scratch) / "bin"  # an empty PATH but for Python itself: no compiler to be found
        programs.mkdir()
        environment = {**os.environ, "PATH": f"{home}/bin:{programs}"}
        subprocess.run(
            [
                *(f"{home}/bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install"),
                *("--only-binary", ":all:", "--find-links", str(given), str(wheel)),
            ],
            check=True,
            env=environment,
        )
        subprocess.run([f"{home}/bin/vpmem", "demo"], check=True, env=environment, cwd=scratch)
    print(f"{wheel.name}: installed without a compiler, and its demo ran")


if __name__ == "__main__":
    main(sys.argv[1])
