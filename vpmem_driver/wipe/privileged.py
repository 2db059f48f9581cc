"""``vpmem-wipe``: the child process of a wipe, for a service that may not open the devices itself.

It is run as root, by sudo or rootwrap, without arguments. What the service says names a namespace by uuid and nothing
else: where namespaces are looked for is this side's own configuration, never the request's. So the service can have
persistent memory of this host overwritten, and no other file. Of root's capabilities it keeps three.
"""

import os
import sys

from oslo_config import cfg

from vpmem_driver import conf, discovery
from vpmem_driver.discovery import base
from vpmem_driver.wipe import capabilities, child

#: Belongs to root. Without it namespaces come from ndctl.
CONFIG_FILE = "/etc/vpmem/vpmem.conf"


def _make(_name: str, **_options: str) -> base.Discovery:
    options = cfg.ConfigOpts()
    conf.register_opts(options)
    options([], project="vpmem", default_config_files=[CONFIG_FILE] if os.path.exists(CONFIG_FILE) else [])
    return discovery.from_conf(options)


def main() -> int:
    """Do what stdin says; see :mod:`.child`."""
    capabilities.keep_only(*capabilities.FOR_A_WIPE)
    return child.main(_make)


if __name__ == "__main__":
    sys.exit(main())
