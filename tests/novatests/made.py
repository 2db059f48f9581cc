"""Fails unless every driver that the tests made was ours: ``made.py FILE``, which switch.py has written."""

import pathlib
import sys

made = pathlib.Path(sys.argv[1])
lines = made.read_text(encoding="utf-8").splitlines()
made.unlink()
print(*lines, sep="\n")
if not lines or any("vpmem" not in line for line in lines):
    sys.exit("the in-tree driver was made, or none")
