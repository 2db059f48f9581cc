"""Measure coverage in this process; called when Python starts, see cover.py."""

import functools
import os
import subprocess
import sys

import coverage


def start(root: str, directory: str) -> None:
    """Measure this process until it ends. Every process writes a file of its own to `directory`."""
    if not os.access(directory, os.W_OK):
        return  # another user's, or on a filesystem that a test has made read-only
    measured = coverage.Coverage(
        data_file=f"{directory}/data", data_suffix=True, config_file=f"{root}/pyproject.toml", auto_data=True
    )
    measured.start()
    subprocess.Popen.__init__ = _with_site(subprocess.Popen.__init__)


def _with_site(original):
    """Have children of :mod:`vpmem_driver.interpreter` load the site module, and with it this module."""

    @functools.wraps(original)
    def init(self, args, *rest, **options):
        if list(args)[:4] == [sys.executable, "-P", "-s", "-S"]:
            args = [*args[:3], *args[4:]]
        return original(self, args, *rest, **options)

    return init
