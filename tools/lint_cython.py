"""Fails where Cython has anything to say of the compiled modules and their parts: a warning, or a performance hint."""

import pathlib
import subprocess
import sys
import tempfile

PACKAGE = pathlib.Path(__file__).parent.parent / "vpmem_driver"


def main() -> int:
    """Translate each module; the exit code."""
    said = _not_included()
    for source in sorted(PACKAGE.glob("*.pyx")):
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


def _not_included() -> str:
    """The parts that no module includes, and that Cython therefore does not see."""
    text = "".join(source.read_text() for source in PACKAGE.glob("*.pyx"))
    parts = [str(path.relative_to(PACKAGE)) for path in sorted(PACKAGE.rglob("*.pxi"))]
    return "".join(f"{part}: no module includes it\n" for part in parts if f'include "{part}"' not in text)


if __name__ == "__main__":
    sys.exit(main())
