"""Copies what an owner holds to another host, as a cold move does: ``mover.py CONFIG OWNER WORD…``.

The words are the command that receives on the other host. The content then is at both, claimed, until the caller
releases one of them. Runs in the virtual host.
"""

import sys

from oslo_config import cfg

from vpmem_driver import conf
from vpmem_driver.pool import Pool
from vpmem_driver.transfer.connection import ProcessConnection
from vpmem_driver.transfer.sender import Sender

COPY = "00c0ffee00c0ffee"


def main(config_file: str, owner: str, *receive: str) -> None:
    """Depart, send, and stay."""
    options = cfg.ConfigOpts()
    conf.register_opts(options)
    options(["--config-file", config_file])
    pool = Pool.from_conf(options)
    uuids = [grant.uuid for grant in pool.grants(owner)]
    pool.copies.depart(owner, COPY)
    sender = Sender(
        pool,
        lambda: ProcessConnection("other", list(receive)),
        owner=owner,
        copy=COPY,
        pack=False,
        on_progress=lambda event: None,
    )
    sender.send(uuids, [None] * len(uuids))
    pool.copies.stay(owner)


if __name__ == "__main__":
    main(*sys.argv[1:])
