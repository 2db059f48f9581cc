"""Loading tests by the name of a package or module: they keep their own ids, so stestr can select and share them."""

import importlib
import os
import unittest


def load(name: str) -> unittest.TestSuite:
    """All tests of the module or package `name`."""
    module = importlib.import_module(name)
    loader = unittest.TestLoader()
    if not hasattr(module, "__path__"):
        return loader.loadTestsFromModule(module)
    start = os.path.dirname(module.__file__)
    top = start
    for _ in name.split("."):
        top = os.path.dirname(top)
    return loader.discover(start, top_level_dir=top)
