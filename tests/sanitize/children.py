"""A plugin for pytest: every Python that a test starts gets the sanitizers' environment, whatever the package keeps."""

import os
import sys

sys.executable = os.environ["VPMEM_SANITIZED_PYTHON"]
