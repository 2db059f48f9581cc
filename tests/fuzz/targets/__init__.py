"""One module for each interface that reads input, with a class ``Fuzzed`` in it."""

import importlib
import pathlib

from tests.fuzz.target import Target

#: By the name that the command line takes.
NAMES = (
    *("ndctl", "regions", "sysfs", "options", "labels", "domain", "ledger", "child", "task", "stream", "transfer"),
    *("archive", "manifest", "plan"),
)


def load(name: str, root: pathlib.Path) -> Target:
    """The target of that name. What it is about is imported here, so that atheris can instrument it."""
    return importlib.import_module(f"tests.fuzz.targets.{name}").Fuzzed(root)
