"""Fail if the tests made a driver that is not ours, or ran in another mode: ``check_nova_drivers.py FILE``.

tests/novatests/switch.py writes the file: a line for each class of drivers that was made, with the mode. It must be the
one that OS_NOVA_DISABLE_EVENTLET_PATCHING demands.
"""

import os
import pathlib
import sys

made = pathlib.Path(sys.argv[1])
lines = made.read_text(encoding="utf-8").splitlines()
made.unlink()
print(*lines, sep="\n")
if not lines or any("vpmem" not in line for line in lines):
    sys.exit("the tests made the in-tree driver, or no driver")
mode = "native threads" if os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] == "True" else "eventlet"
if not all(line.endswith(f", {mode}") for line in lines):
    sys.exit(f"the tests were to run with {mode}")
