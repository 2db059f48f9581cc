"""Command line and environment for every Python process that this package starts.

The process imports from the same directories as this one, except the working directory, which may belong to another
user. It does not inherit Python's own environment variables.
"""

import os
import pathlib
import sys
from collections.abc import Iterator

import vpmem_driver


def command(module: str, *arguments: str, site: bool = True) -> list[str]:
    """Return the command line that runs `module`; start it with :func:`search_path` in ``PYTHONPATH``.

    Python's isolated mode (``-I``) is ``-P``, ``-s`` and an environment without Python's variables. It also ignores
    ``PYTHONPATH``, and so would not find a package that is installed for one user or by ``PYTHONPATH``.

    :param site: load the site module, which takes a tenth of the start time and may run code of installed packages
    """
    options = ["-P", "-s"] if site else ["-P", "-s", "-S"]
    return [sys.executable, *options, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Return the environment of this process for a :func:`command`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PYTHONPATH": search_path()}


def search_path() -> str:
    """Return the ``PYTHONPATH`` for a :func:`command`.

    An editable installation needs an import hook, which only the site module loads. So the path always includes the
    directory of this package.
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
