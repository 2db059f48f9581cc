"""Run the command line on a terminal of a given width."""

import os
import pty
import subprocess
import sys
import termios

#: The environment of a terminal that shows ASCII only. tox sets PYTHONIOENCODING.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


def run(words, *, width=100, environment=None, module="vpmem_driver.cli.main", shows_errors=False):
    """Returns exit code, what the terminal got, and standard error unless the terminal got that too."""
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, width))
    inherited = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR"}}
    with subprocess.Popen(
        [sys.executable, "-m", module, *map(str, words)],
        stdout=side,
        stderr=side if shows_errors else subprocess.PIPE,
        env=inherited | {"TERM": "xterm"} | (environment or {}),
    ) as process:
        os.close(side)
        shown = bytearray()
        while chunk := _read(main):
            shown += chunk
        err = process.stderr.read() if process.stderr is not None else b""
    os.close(main)
    return process.returncode, shown.decode().replace("\r\n", "\n"), err.decode()


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: every process has closed the other side
        return b""
