"""Start a wipe that continues after the command has ended."""

import os
import subprocess
from collections.abc import Iterable

from vpmem_driver import exception, interpreter


def start_wipe(config_files: Iterable[str], uuids: Iterable[str]) -> None:
    """Start ``vpmem wipe`` of `uuids` in a new session. The next listing shows its progress.

    :raises HostToolError: it could not be started; the namespaces stay dirty until ``vpmem wipe`` is run
    """
    files = [
        os.path.abspath(os.path.expanduser(file)) for file in config_files
    ]  # as in oslo.config, before the working directory changes
    words = ["--quiet", *(word for file in files for word in ("--config-file", file))]
    words += ["wipe", *(word for uuid in uuids for word in ("--namespace", uuid))]
    try:
        process = subprocess.Popen(
            interpreter.command("vpmem_driver.cli.main", *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=interpreter.environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise exception.HostToolError(
            what="Starting the background wipe",
            reason=error.strerror or str(error),
            remedy="The namespaces are released and dirty. Run 'vpmem wipe'",
        ) from error
    process.returncode = 0  # prevents the warning of Popen: the wipe outlives this process
