"""Start Python processes. Every Python process of this package is started with these functions.

It imports from the same places as this process, except from the working directory, which may belong to anyone. Python's
environment variables do not affect it.
"""

import os
import pathlib
import sys
from collections.abc import Iterator

import vpmem_driver


def command(module: str, *arguments: str, site: bool = True) -> list[str]:
    """Return the command line that runs `module`. Start it with :func:`search_path` in ``PYTHONPATH``.

    Python's isolated mode (``-I``) is ``-P``, ``-s`` and an environment without Python's variables. It also ignores
    ``PYTHONPATH``, and would not find a package that is installed for one user or in ``PYTHONPATH``.

    :param site: load the site module, which takes a tenth of the start time and may run code that others installed
    """
    options = ["-P", "-s"] if site else ["-P", "-s", "-S"]
    return [sys.executable, *options, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Return the environment for a :func:`command`, from that of this process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PYTHONPATH": search_path()}


def search_path() -> str:
    """Return ``PYTHONPATH`` for a :func:`command`.

    It always contains the directory of this package: an editable installation is found by an import hook, which needs
    the site module.
    """
    return os.pathsep.join(dict.fromkeys([*_trusted(), str(pathlib.Path(vpmem_driver.__file__).parents[1])]))


def _trusted() -> Iterator[str]:
    for entry in sys.path:
        if os.path.isabs(entry) and not _is_working_directory(entry):
            yield entry


def _is_working_directory(entry: str) -> bool:
    try:
        return os.path.samefile(entry, ".")
    except OSError:  # one of the two no longer exists
        return False
