"""Starting a wipe that goes on after the command has ended."""

import os
import sys
from collections.abc import Iterable

from vpmem_driver import exception


def start_wipe(config_files: Iterable[str], uuids: Iterable[str]) -> None:
    """Start ``vpmem wipe`` of `uuids` in a session of its own. How it goes is in the ledger, for the next listing.

    :raises HostToolError: it could not be started; the namespaces stay dirty until somebody wipes them
    """
    words = [sys.executable, "-m", "vpmem_driver.cli.main", "--quiet"]
    words += [word for file in config_files for word in ("--config-file", file)]
    words += ["wipe", *(word for uuid in uuids for word in ("--namespace", uuid))]
    null = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        os.posix_spawn(sys.executable, words, os.environ, file_actions=null, setsid=True)
    except OSError as error:
        raise exception.HostToolError(
            what="Starting the wipe in the background",
            reason=error.strerror or error,
            remedy="The namespaces are released and dirty; run 'vpmem wipe'.",
        ) from error
