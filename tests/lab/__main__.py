"""``python -m tests.lab [--cxl] [pytest's arguments]`` runs the tests, ``python -m tests.lab shell`` logs in.

With --cxl, the host has CXL memory instead of NVDIMMs.
"""

import signal
import sys

import pytest

from tests.lab import shell


def _interrupted(*_: object) -> None:
    """Once only: a second signal, which tox sends, would interrupt the cleaning up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """Do what the command line says."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    if arguments == ["shell"]:
        return shell.main()
    if "--cxl" in arguments:
        others = [word for word in arguments if word != "--cxl"]
        return pytest.main(["--override-ini", "testpaths=tests/lab/cxl", *others])
    return pytest.main(["--override-ini", "testpaths=tests/lab", "--ignore=tests/lab/cxl", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
