"""A copy of the package whose compiled modules have the sanitizers in them, and tests that run on it."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
_SANITIZERS = "-fsanitize=address,undefined"
# Python's own flags have -fwrapv, under which no signed overflow is an error, and -DNDEBUG.
_CFLAGS = f"{_SANITIZERS} -fno-sanitize-recover=all -fno-omit-frame-pointer -fno-wrapv -UNDEBUG -g -O1"
# Python itself keeps memory until the end. SIGBUS is for the wipe's child to die of.
_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:handle_sigbus=0:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A mistake put into the compiled code.

    :ivar report: what a sanitizer must say of it
    :ivar tests: that must run into it
    """

    name: str
    file: str
    old: str
    new: str
    report: str
    tests: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of tests.

    :ivar output: of pytest, and what UBSan said
    :ivar reports: what ASan said, of any process
    """

    passed: bool
    output: str
    reports: str


class Tree:
    """Built in `path`, which is not there yet."""

    def __init__(self, path: pathlib.Path, original: "Tree | None" = None) -> None:
        """Copy the sources, or `original` with what is built."""
        self.path = path
        if original is not None:
            shutil.copytree(original.path, path)
        else:
            ignored = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
            shutil.copytree(ROOT / "vpmem_driver", path / "vpmem_driver", ignore=ignored)
            shutil.copy(ROOT / "setup.py", path)

    def mutate(self, mutant: Mutant) -> None:
        """Put the mistake in. :raises ValueError: its place is no longer there."""
        file = self.path / "vpmem_driver" / mutant.file
        text = file.read_text()
        if text.count(mutant.old) != 1:
            raise ValueError(f"{mutant.file} does not have, exactly once: {mutant.old}")
        file.write_text(text.replace(mutant.old, mutant.new))

    def build(self) -> None:
        """Compile what has changed."""
        environment = os.environ | {"CC": "gcc", "CFLAGS": _CFLAGS, "LDFLAGS": _SANITIZERS}
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--parallel", "2"]
        done = subprocess.run(
            command,
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"the build failed:\n{done.stdout}")

    def test(self, tests: tuple[str, ...]) -> Result:
        """Run `tests`, and all processes that they start, on this tree."""
        with tempfile.TemporaryDirectory(dir=self.path) as reports:
            environment = self._environment(pathlib.Path(reports))
            # UBSan writes to standard error here, whatever its log_path, and then ends the process.
            command = [sys.executable, "-P", "-m", "pytest", "-q", "--capture=sys", "-p", "tests.sanitize.children"]
            done = subprocess.run(
                [*command, "-p", "no:cacheprovider", "-p", "no:faulthandler", *tests],
                cwd=ROOT,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
            said = "\n".join(path.read_text(errors="replace") for path in pathlib.Path(reports).glob("report.*"))
        return Result(done.returncode == 0 and not said, done.stdout, said)

    def _environment(self, reports: pathlib.Path) -> dict[str, str]:
        sanitizers = {name: f"{options}:log_path={reports}/report" for name, options in _OPTIONS.items()}
        # The interpreter is not built with them, so their library must be loaded first. malloc is for Python's objects
        # too: what Python allocates itself has no red zones.
        sanitizers |= {"LD_PRELOAD": _library(), "PYTHONMALLOC": "malloc"}
        python = reports / "python"
        words = "".join(f"{name}='{value}' " for name, value in sanitizers.items())
        python.write_text(f'#!/bin/sh\n{words}exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        return sanitizers | {
            "PYTHONPATH": f"{self.path}{os.pathsep}{ROOT}",
            "VPMEM_SANITIZED_PYTHON": str(python),
            "VPMEM_SANITIZED": str(self.path),
        }


def _library() -> str:
    said = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    return os.path.realpath(said.strip())
