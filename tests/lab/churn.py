"""Guests come and go, until the power goes. Each step is noted outside as soon as it is done. Runs in the virtual host.

Notes are lines of JSON, ``[step, owner, uuid]``, on a virtio port.
"""

import json
import random
import threading
import uuid

import inside
from oslo_config import cfg

from vpmem_driver import conf, exception
from vpmem_driver.pool import Pool


def come_and_go(pool: Pool, label: str, note) -> None:
    """Claim, fill; most of them release and have it wiped. Some stay for ever."""
    while True:
        owner = str(uuid.uuid4())
        try:
            (grant,) = pool.claim(owner, [label])
        except exception.InsufficientNamespaces:
            return
        inside.fill(grant.device, owner)
        note("filled", owner, grant.uuid)
        if random.random() < 0.2:
            continue
        note("leaving", owner, grant.uuid)
        pool.release(owner)
        note("left", owner, grant.uuid)
        if random.random() < 0.7:
            pool.wipe([grant.uuid])


def main(config_file: str, label: str) -> None:
    """Two threads of it, for namespaces of that label, until there is none left that could be claimed."""
    options = cfg.ConfigOpts()
    conf.register_opts(options)
    options(["--config-file", config_file])
    lock = threading.Lock()
    with open(inside.port("notes"), "wb", buffering=0) as port:

        def note(*words: str) -> None:
            with lock:
                port.write(json.dumps(words).encode() + b"\n")

        threads = [threading.Thread(target=come_and_go, args=(Pool.from_conf(options), label, note)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
