"""What Nova's libvirt connection answers while several wipes go on: eventlet's waits must not get into each other."""

import pathlib
import tempfile
import time
import unittest
import uuid

import nova.tests.functional  # noqa: F401  it patches, and has to be the first of Nova
from nova import utils
from oslo_config import cfg

from vpmem_driver import conf
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.nova import eventlet_poll
from vpmem_driver.pool import Pool

COUNT = 4
ROUNDS = 4
SIZE = 4 << 20


class Library:
    """As libvirt's: in a thread of its own, where there are green ones, and not at once."""

    def ask(self):
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass
        return "nobody"


class Asking(Domains):
    def __init__(self):
        super().__init__(None)
        self.answers = []
        self._library = utils.tpool_wrap(Library()) if hasattr(utils, "tpool_wrap") else _proxy()

    def user_of(self, device, *, defined=False):
        self.answers.append(self._library.ask())


def _proxy():
    from eventlet import tpool

    return tpool.Proxy(Library())


class WaitingTest(unittest.TestCase):
    def test_an_answer_is_what_was_asked_for(self):
        names = [f"ns{number}" for number in range(COUNT)]
        with tempfile.TemporaryDirectory() as root:
            directory = pathlib.Path(root, "pmem")
            directory.mkdir()
            for name in names:
                (directory / name).write_bytes(bytes(SIZE))
                (directory / name).chmod(0o600)
            options = cfg.ConfigOpts()
            conf.register_opts(options)
            options([], default_config_files=[])
            options.set_override("pmem_namespaces", [f"A:{'|'.join(names)}"], group="libvirt")
            ours = {"discovery": "directory", "directory": str(directory), "state_path": root, "wipe_parallel": COUNT}
            for name, value in ours.items():
                options.set_override(name, value, group="vpmem")
            domains = Asking()
            pool = Pool.from_conf(options, domains=domains, wait=eventlet_poll.wait_here())
            self.addCleanup(pool.close)
            for _ in range(ROUNDS):
                owner = str(uuid.uuid4())
                pool.claim(owner, ["A"] * COUNT)
                pool.release(owner)
            self.assertEqual(["nobody"] * COUNT * ROUNDS, domains.answers)
