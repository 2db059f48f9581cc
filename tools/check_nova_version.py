"""Fail if the Nova in this environment is not the one that the task names: ``check_nova_version.py nova31``.

A task without a number is for Nova 34.
"""

import importlib.metadata
import re
import sys

number = re.search(r"\d+", sys.argv[1])
wanted = number[0] if number else "34"
version = importlib.metadata.version("nova")
if version.partition(".")[0] != wanted:
    sys.exit(f"{sys.argv[1]} is to test Nova {wanted}, and its environment has {version}: see deps in tox.ini")
print(f"{sys.argv[1]}: Nova {version}")
