"""Install the newest wheel of a directory into an empty environment without a compiler, and run the demo from it.

libvirt-python is published as source only, so a wheel of it is built first, as on an operator's build host.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import venv
import zipfile


def main(directory: str) -> None:
    """Check the newest wheel of `directory`."""
    wheel = max(pathlib.Path(directory).glob("vpmem_driver-*.whl"), key=lambda path: path.stat().st_mtime)
    stray = [
        name
        for name in zipfile.ZipFile(wheel).namelist()
        if "tests" in name or name.startswith("tools/") or name.endswith((".pyx", ".pxi", ".h", ".c"))
    ]
    if stray:
        sys.exit(f"{wheel.name} contains files that no compute host needs: {stray}")
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
