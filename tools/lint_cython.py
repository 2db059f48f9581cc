"""Fail if Cython prints a warning or a performance hint for a compiled module."""

import pathlib
import subprocess
import sys
import tempfile

PACKAGE = pathlib.Path(__file__).parent.parent / "vpmem_driver"


def main() -> int:
    """Translate each module; the exit code."""
    said = ""
    for source in sorted(PACKAGE.rglob("*.pyx")):
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "cython", "-3", "-Wextra"),
                    *("-X", "show_performance_hints=True", "-o", f"{directory}/out.c", str(source)),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            said += done.stdout + done.stderr or ("" if done.returncode == 0 else f"{source}: exit {done.returncode}\n")
    print(said or "Cython: no warnings, no hints")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
