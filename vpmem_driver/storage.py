"""Warn about a ledger on storage that is lost when a container is created again, or at a reboot."""

import logging
import pathlib

from vpmem_driver import hostpaths

LOG = logging.getLogger(__name__)

#: Types of filesystems, and when their content is lost. The root directory of a container is an overlay.
LOST = {
    "overlay": "its content is lost when the container is created again",
    "ramfs": "its content is lost at a reboot",
    "tmpfs": "its content is lost at a reboot and when the container stops",
}


def warn_if_lost(ledger: pathlib.Path) -> None:
    """Log a warning if the filesystem of the file `ledger` does not last."""
    directory = ledger.parent
    kind = hostpaths.filesystem(str(directory))
    if kind in LOST:
        LOG.warning(
            "The ledger in %s is on %s: %s, and with it the record of who owns which namespace. Set [vpmem] state_path "
            "to a directory that lasts, such as a volume of the container: in Kolla, /var/lib/nova/vpmem",
            *(directory, kind, LOST[kind]),
        )
