"""``python -m vpmem_driver.worker``: one worker process; see :mod:`.session`."""

import sys

from vpmem_driver.worker.session import main

sys.exit(main())
