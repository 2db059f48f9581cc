"""A real program with the hooks: ``python -P program.py ROOT PACKAGE ADDRESS ROLE WORDS…``.

ROOT is where these tests are, PACKAGE where the package is; ``[vpmem] wipe_command`` and :mod:`.spawn` name it.
"""

import sys

if __name__ == "__main__":
    root, package, address, role, *words = sys.argv[1:]
    sys.path[:0] = [package, root]
    from tests.torture import hooks, link, spawn

    hooks.install()
    spawn.real = True
    spawn.program = [*sys.argv[:4], "background"]
    link.current = link.Link(address, role, words)
    sys.exit(spawn.run(words))
