"""Files that stand for devices: filling, looking and waiting, for the tests of engine and worker."""

import contextlib
import fcntl
import subprocess
import sys

from vpmem_driver import discovery

DEADLINE = 60.0
PATTERN = 0xA5


def fill(path, size, byte=PATTERN):
    path.write_bytes(bytes([byte]) * size)
    return path


def namespaces(directory, sizes):
    """A Discovery over new files full of old data, and what it sees."""
    for name, size in sizes.items():
        fill(directory / name, size).chmod(0o600)
    source = discovery.make("directory", directory=str(directory))
    return source, {namespace.name: namespace for namespace in source.namespaces()}


def is_zero(path):
    content = path.read_bytes()
    return content == bytes(len(content))


def is_untouched(path):
    content = path.read_bytes()
    return content == bytes([PATTERN]) * len(content)


def is_locked(path):
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


#: Code for another process that keeps a file open and mapped.
MAP = """
import mmap, sys
file = open(sys.argv[1], "r+b")
held = mmap.mmap(file.fileno(), 0)
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def another_process(code, *arguments, wrapper=()):
    """Run Python code in another process up to the first line that it prints; it is told to go on by closing stdin."""
    command = [*wrapper, sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.stdin.close()
            process.wait(DEADLINE)


def state_of(pid):
    """The state letter of a process in /proc/PID/stat, an empty string when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
