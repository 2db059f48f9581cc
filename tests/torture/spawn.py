"""Starting processes as the package asks for them, by fork instead of a new interpreter: a tenth of the time.

A round may also start real programs: then `[vpmem] wipe_command` names :mod:`.program`, which installs the hooks.
"""

import os
import runpy
import stat
import subprocess
import sys
import traceback
import typing
import warnings
from collections.abc import Callable

from tests.torture import link

_real_fork_exec = subprocess._fork_exec

#: Start real programs.
real = False
#: What to put before the words of a real program that runs on by itself; see :mod:`.program`.
program: list[str] = []


def announce(open_link: link.Link, pid: int) -> None:
    """Tell the controller of a new process; it waits for that one's greeting."""
    open_link.tell("spawned", "after start of a process", pid=pid)


def run(words: list[str]) -> int:
    """Do what ``python WORDS`` would do. :returns: the exit status."""
    words = list(words)
    while words and words[0].startswith("-") and words[0] not in {"-m", "-c"}:
        words.pop(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # runpy: the module is imported already
            if words[0] == "-m":
                sys.argv = words[1:]
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv = words
                runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def fork(main: Callable[[], int]) -> int:
    """Fork a process that does `main` and nothing else. :returns: its pid"""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        status = main()
    except BaseException:  # noqa: BLE001  as the interpreter does
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _fork(address: str, role: str, words: list[str], prepare: Callable[[], None]) -> int:
    """Fork a process that becomes ``python WORDS``."""

    def main() -> int:
        link.current = None
        prepare()
        link.current = link.Link(address, role, words)
        return run(words[1:])

    return fork(main)


def fork_exec(*values: typing.Any) -> int:
    """What subprocess calls; the values are those of CPython 3.11 to 3.14 (Modules/_posixsubprocess.c)."""
    open_link = link.current
    words = [os.fsdecode(word) for word in values[0]]
    if open_link is None or words[0] != sys.executable:
        return _real_fork_exec(*values)
    # A process that is spoken to wipes; the others run on by themselves.
    spoken_to = values[6] >= 0 and stat.S_ISFIFO(os.fstat(values[6]).st_mode)
    if real:  # the words of a wipe have the program already: [vpmem] wipe_command
        hooked = values[0] if spoken_to else [os.fsencode(word) for word in (words[0], *program, *words[1:])]
        return _real_fork_exec(hooked, *values[1:])
    cwd, env = values[4], values[5]
    stdin, _, _, stdout, _, stderr = values[6:12]
    start_new_session, process_group = values[15], values[16]

    def prepare() -> None:
        for number, fd in enumerate((stdin, stdout, stderr)):
            if fd >= 0:
                os.dup2(fd, number)
        if start_new_session:
            os.setsid()
        if process_group >= 0:
            os.setpgid(0, process_group)
        _become(cwd, None if env is None else dict(os.fsdecode(pair).split("=", 1) for pair in env))

    return _fork(open_link.address, "child" if spoken_to else "background", words, prepare)


def _become(cwd: typing.Any, env: typing.Mapping[str, str] | None) -> None:
    """Keep of the forking process what a new program would have."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    if cwd is not None:
        os.chdir(cwd)
    if env is not None:
        wanted = dict(env)
        os.environ.clear()
        os.environ.update(wanted)
