"""``python -m tests.cluster [pytest's arguments]`` runs the tests, ``python -m tests.cluster shell`` logs in.

All of it happens in a process with mount, network and PID namespaces of its own. When that process ends, however it
ends, the kernel ends all others, removes the mounts and the network.
"""

import fcntl
import os
import signal
import subprocess
import sys

import pytest

from tests.cluster import cluster, host, shell

_INSIDE = "--in-namespaces"
_DIES_WITH_THIS = ("setpriv", "--pdeathsig", "KILL")
_NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")

#: The first process there. It waits for orphans too: a host that is off is not gone before all its processes are.
_INIT = 'exec 3<&0; "$@" <&3 3<&- & wait $!'


def _interrupted(*_: object) -> None:
    """Once only: a second signal, which tox sends, would interrupt the cleaning up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """Do what the command line says."""
    if os.geteuid() != 0:
        os.execvp("sudo", ["sudo", "--non-interactive", "--preserve-env=CI", *_words(arguments)])  # noqa: S606  no shell is needed
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    if arguments[:1] == [_INSIDE]:
        if arguments[1:] == ["shell"]:
            return shell.main()
        return pytest.main(["--override-ini", "testpaths=tests/cluster", *arguments[1:]])
    lock = (cluster.WORK / "cluster-lock").open("w")  # what is below running hosts must not be made again
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another ./dev cluster of this directory is running. Wait for its end.", file=sys.stderr)
        return 1
    cluster.prepare()  # from the network
    process = subprocess.Popen(
        [*_DIES_WITH_THIS, *_NAMESPACES, "sh", "-c", _INIT, "sh", *_words([_INSIDE, *arguments])]
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # the two processes between here and there ignore them
        signal.signal(number, lambda number, _frame: os.kill(host.child(host.child(process.pid)), number))
    return process.wait()


def _words(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "tests.cluster", *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
