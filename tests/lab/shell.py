"""A login in the virtual host, on this terminal."""

import contextlib
import os
import sys
import termios
from collections.abc import Iterator

from tests.lab import daemon, inside, ready

_TERMINAL = "/dev/tty"

_WELCOME = f"""\
PATH={inside.ENVIRONMENT["PATH"]}
cat <<'END'

A host with two NUMA nodes, two NVDIMMs, namespaces of every kind, libvirtd, and this project's vpmem.
All programs of your machine are here; what you write is gone when you leave, with 'exit'. Try:

    vpmem namespace list --all
    ndctl list --namespaces --idle --verbose
    vpmem domain attach guest GUEST && virsh start guest --console

END
alias poweroff=exit
PS1='lab:\\w# '
"""


def main() -> int:
    """Log in; returns when that is left."""
    try:
        terminal = os.open(_TERMINAL, os.O_RDWR)
    except OSError:
        print("There is no terminal to log in on.", file=sys.stderr)
        return 1
    print("Starting a virtual host; this takes half a minute.", flush=True)
    with _restored(terminal), ready.virtual_host(terminal=_TERMINAL) as host:
        daemon.start(host)
        daemon.define(host, daemon.small_guest()[1])
        host.call("write", "/run/.bash_profile", _WELCOME)
        columns, rows = os.get_terminal_size(terminal)
        host.call("shell", "/dev/ttyS0", rows, columns, os.environ.get("TERM", "dumb"), seconds=None)
    return 0


@contextlib.contextmanager
def _restored(terminal: int) -> Iterator[None]:
    """Give the terminal back as it was."""
    state = termios.tcgetattr(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, state)
        os.close(terminal)
