"""Print what the tests have seen as a table: ``print_seen.py FILE``.

Each line of the file has what was done, a tab, and what was seen.
"""

import pathlib
import sys

path = pathlib.Path(sys.argv[1])
rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
path.unlink()
width = max(len(what) for what, _ in rows)
print("\nWhat was seen:")
for what, result in rows:
    print(f"  {what:{width}}  {result}")
