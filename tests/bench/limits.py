"""The compiled limits, built when they are first asked for; they are in no wheel."""

import importlib
import pathlib
import sys
import types

import pyximport


def load() -> types.ModuleType:
    """The module ``_limits``. It is built below the environment's own prefix."""
    pyximport.install(build_dir=pathlib.Path(sys.prefix, "bench-limits"), language_level=3)
    return importlib.import_module("bench._limits")
