"""Run tests, measure which lines and branches of the package they execute, and print those that none did.

``cover.py DIRECTORY [PYTEST'S ARGUMENTS]``. Data of all processes goes to DIRECTORY; pyproject.toml has the options and
the least coverage that is accepted. It is part of the environment of ``./dev cover`` and of no other one: it writes to
that environment's site-packages.

The package starts its child processes with few environment variables, and some without the site module, so that
coverage.py's own way to measure subprocesses does not reach them. Here a .pth file starts the measurement in each
Python of the environment, and a child that is started without the site module (-S) gets it.
"""

import pathlib
import shutil
import subprocess
import sys
import sysconfig

import coverage

ROOT = pathlib.Path(__file__).resolve().parent.parent
STARTER = pathlib.Path(__file__).with_name("cover_start.py")


def main(directory: pathlib.Path, arguments: list[str]) -> int:
    """Run pytest, then report; the exit code: of pytest, or 2 where coverage is too low."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    directory.chmod(0o1777)  # some tests start processes of another user
    purelib = pathlib.Path(sysconfig.get_path("purelib"))
    starter = purelib / "vpmem_cover_start.pth"
    starter.write_text(
        f"import sys; sys.path.append({str(STARTER.parent)!r}); import cover_start; sys.path.pop(); "
        f"cover_start.start({str(ROOT)!r}, {str(directory)!r})\n"
    )
    try:
        code = subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False, cwd=ROOT).returncode
    finally:
        starter.unlink()
    return code or report(directory)


def report(directory: pathlib.Path) -> int:
    """Print the coverage; the exit code: 2 where it is less than ``fail_under``."""
    measured = coverage.Coverage(data_file=str(directory / "data"), config_file=str(ROOT / "pyproject.toml"))
    measured.combine([str(directory)])
    measured.save()
    total = measured.report()
    least = measured.get_option("report:fail_under")
    if total < least:
        print(f"{total:.2f} % of lines and branches are covered, and {least} % are required (pyproject.toml).")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), sys.argv[2:]))
