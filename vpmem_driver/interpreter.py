"""How this package starts Python: every process of ours that runs Python is started with what is here.

It imports from where this process imports, except from its working directory, which may belong to anybody; and Python's
own environment variables do not reach it.
"""

import os
import pathlib
import sys
from collections.abc import Iterator

import vpmem_driver


def command(module: str, *arguments: str, site: bool = True) -> list[str]:
    """The command line that runs `module`; start it with :func:`search_path` in ``PYTHONPATH``.

    Python's isolated mode (``-I``) is ``-P``, ``-s`` and an environment without Python's variables. It would ignore
    ``PYTHONPATH`` as well, and then not find a package that is installed for one user or by ``PYTHONPATH``.

    :param site: load the site module, which costs a tenth of the start and may run what others have installed
    """
    options = ["-P", "-s"] if site else ["-P", "-s", "-S"]
    return [sys.executable, *options, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """The environment of this process for a :func:`command`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PYTHONPATH": search_path()}


def search_path() -> str:
    """Where a :func:`command` finds modules: ``PYTHONPATH`` for it.

    An editable installation is found by an import hook, which the site module loads; so the directory of this package
    is always in it.
    """
    return os.pathsep.join(dict.fromkeys([*_trusted(), str(pathlib.Path(vpmem_driver.__file__).parents[1])]))


def _trusted() -> Iterator[str]:
    for entry in sys.path:
        if os.path.isabs(entry) and not _is_working_directory(entry):
            yield entry


def _is_working_directory(entry: str) -> bool:
    try:
        return os.path.samefile(entry, ".")
    except OSError:  # one of the two is not there any more
        return False
