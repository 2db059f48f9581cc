"""Nova's API, conductor, scheduler, compute and a real Placement in one process, over a real libvirtd and real QEMU.

Namespaces are files. Guests boot a kernel of their own, write into their memory and tell what they found; the tests
look at the bytes.
"""

import pathlib
import sys

# For tests.machine. At the end: this package is to be the installed one.
sys.path.append(str(pathlib.Path(__file__).parents[3]))
